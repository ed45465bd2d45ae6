//! Group and instance normalisation, forward and backward, in both forms and both precisions.

use super::{Form, ROUNDING, check_op, fixture};
use crate::train::ops::Activation::{self, Identity, Relu};
use crate::train::ops::group_norm::{composed, group_norm};

/// Row, groups and what follows.
const TABLE: [(&str, usize, Activation); 7] = [
    ("3 groups of features", 3, Identity),
    ("8 groups of features, with ReLU", 8, Relu),
    ("2 groups of channels", 2, Identity),
    ("4 groups of channels, with ReLU", 4, Relu),
    ("one group", 1, Identity),
    ("instance norm", 19, Identity),
    ("instance norm, with ReLU", 3, Relu),
];

#[test]
fn results_and_gradients_are_pytorchs() {
    let fixture = fixture!("group_norms");
    fixture.assert_rows(TABLE.map(|(row, ..)| row));
    for (row, groups, activation) in TABLE {
        for form in [Form::Fused, Form::Composed] {
            for rounding in ROUNDING {
                check_op(&fixture, row, form, rounding, |form, x, leaves, tape| match (form, leaves) {
                    (Form::Fused, &[weight, bias]) => group_norm(x, weight, bias, groups, activation, tape),
                    (Form::Composed, [weight, bias]) => {
                        composed(x, weight.tensor, bias.tensor, groups, activation)
                    }
                    _ => panic!("{row} has {} parameters", leaves.len()),
                });
            }
        }
    }
}
