//! Batch normalisation over three batches: results, gradients and running statistics, then evaluation.

use candle_core::Tensor;

use super::{Form, Layout, ROUNDING, assert_near, check_op, device, fixture};
use crate::train::ops::batch_norm::{self, Running};
use crate::train::ops::testing::flat;
use crate::train::ops::{Activation, GradientSlot, Leaf};

const TABLE: [(&str, Activation); 4] = [
    ("over features", Activation::Identity),
    ("over features, with ReLU", Activation::Relu),
    ("over images", Activation::Identity),
    ("over images, with ReLU", Activation::Relu),
];

#[test]
fn three_batches_and_the_running_statistics_are_pytorchs() {
    let fixture = fixture!("batch_norms");
    let keys = TABLE.map(|(row, _)| [1, 2, 3].map(|batch| format!("{row}, batch {batch}")));
    fixture.assert_rows(keys.iter().flatten().map(String::as_str));
    for ((row, activation), keys) in TABLE.into_iter().zip(&keys) {
        for (form, (dtype, tolerance)) in
            [Form::Fused, Form::Composed].into_iter().flat_map(|form| ROUNDING.map(|it| (form, it)))
        {
            let channels = fixture.get(&keys[0], "weight").values.len();
            let mean = Tensor::zeros((1, channels), dtype, device()).expect("a tensor");
            let variance = Tensor::ones((1, channels), dtype, device()).expect("a tensor");
            let running = Running { mean: &mean, variance: &variance };
            for key in keys {
                check_op(&fixture, key, form, (dtype, tolerance), |form, x, leaves, tape| {
                    match (form, leaves) {
                        (Form::Fused, &[weight, bias]) => {
                            batch_norm::train(x, weight, bias, running, activation, tape)
                        }
                        (Form::Composed, [weight, bias]) => {
                            batch_norm::composed(x, weight.tensor, bias.tensor, running, activation)
                        }
                        _ => panic!("{key} has {} parameters", leaves.len()),
                    }
                });
                for (name, statistic) in [("running_mean", &mean), ("running_var", &variance)] {
                    let what = format!("{key}, {form:?}, {dtype:?}: {name}");
                    assert_near(&what, &flat(statistic), &fixture.get(key, name).values, tolerance);
                }
            }

            let last = &keys[2];
            let layout = Layout::of_activations(&fixture.get(last, "x").shape);
            let parameter = |name: &str| {
                let golden = fixture.get(last, name);
                Layout::of_parameter(&golden.shape, &layout).tensor(golden, dtype)
            };
            let (weight, bias) = (parameter("weight"), parameter("bias"));
            let gradient = GradientSlot::default();
            let leaf = |tensor| Leaf { tensor, gradient: &gradient };
            let x = layout.tensor(fixture.get(last, "x"), dtype);
            let y = batch_norm::evaluate(&x, leaf(&weight), leaf(&bias), running, activation).expect(row);
            let expected = layout.numbers(fixture.get(last, "evaluated"));
            assert_near(&format!("{row}, {dtype:?}: evaluation"), &flat(&y), &expected, tolerance);
        }
    }
}
