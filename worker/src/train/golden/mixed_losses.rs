//! The loss of images that are made of two, and its gradient.

use std::sync::Arc;

use super::{Form, Golden, ROUNDING, check_op, fixture};
use crate::train::ops::cross_entropy::{Mixed, mixed_composed, mixed_cross_entropy};

#[test]
fn losses_and_gradients_are_pytorchs_of_probabilities() {
    let table = [
        ("a third of another", 0.0),
        ("a third of another, label smoothing 0.1", 0.1),
        ("half and half, label smoothing 0.1", 0.1),
        ("nothing of another", 0.0),
    ];
    let fixture = fixture!("mixed_losses");
    fixture.assert_rows(table.map(|(row, _)| row));
    for (row, smoothing) in table {
        let classes =
            |golden: &Golden| -> Arc<[u8]> { golden.values.iter().map(|&class| class as u8).collect() };
        let labels = classes(fixture.get(row, "labels"));
        let mixed =
            Mixed { other: classes(fixture.get(row, "other")), share: fixture.get(row, "share").values[0] };
        for form in [Form::Fused, Form::Composed] {
            for rounding in ROUNDING {
                check_op(&fixture, row, form, rounding, |form, x, _, tape| match form {
                    Form::Fused => mixed_cross_entropy(x, &labels, Some(&mixed), &[smoothing], tape),
                    Form::Composed => mixed_composed(x, &labels, Some(&mixed), &[smoothing]),
                });
            }
        }
    }
}
