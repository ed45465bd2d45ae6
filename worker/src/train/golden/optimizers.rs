//! Optimizers, by the names of the catalogue: where they go in 50 steps over rough ground.

use candle_core::Tensor;
use fittingroom_common::trial::Seeds;

use super::{assert_near, device, fixture};
use crate::train::ops::testing::flat;
use crate::train::optim::Optimizer;
use crate::train::params::{Builder, Order};
use crate::train::testing::{Settings, group};

const STEPS: usize = 50;

/// What 50 steps in f32 may be off, relative to the largest coordinate of each step.
const TOLERANCE: f64 = 5e-6;

const TABLE: [(&str, Settings<'_>); 28] = [
    ("sgd", &[("optimizer", "sgd"), ("learning_rate", "0.05")]),
    ("sgd with weight decay", &[("optimizer", "sgd"), ("learning_rate", "0.05"), ("weight_decay", "0.1")]),
    ("momentum", &[("optimizer", "sgd"), ("learning_rate", "0.05"), ("momentum", "0.9")]),
    (
        "momentum with weight decay",
        &[("optimizer", "sgd"), ("learning_rate", "0.05"), ("momentum", "0.9"), ("weight_decay", "0.1")],
    ),
    (
        "nesterov",
        &[("optimizer", "sgd"), ("learning_rate", "0.05"), ("momentum", "0.9"), ("nesterov", "true")],
    ),
    (
        "nesterov with weight decay",
        &[
            ("optimizer", "sgd"),
            ("learning_rate", "0.05"),
            ("momentum", "0.8"),
            ("nesterov", "true"),
            ("weight_decay", "0.1"),
        ],
    ),
    ("rmsprop", &[("optimizer", "rmsprop"), ("learning_rate", "0.02")]),
    (
        "rmsprop, alpha 0.9",
        &[("optimizer", "rmsprop"), ("learning_rate", "0.02"), ("rmsprop_alpha", "0.9"), ("epsilon", "1e-3")],
    ),
    (
        "rmsprop with momentum",
        &[
            ("optimizer", "rmsprop"),
            ("learning_rate", "0.02"),
            ("rmsprop_alpha", "0.95"),
            ("momentum", "0.9"),
        ],
    ),
    (
        "rmsprop with weight decay",
        &[
            ("optimizer", "rmsprop"),
            ("learning_rate", "0.02"),
            ("rmsprop_alpha", "0.95"),
            ("weight_decay", "0.1"),
        ],
    ),
    (
        "rmsprop with momentum and weight decay",
        &[
            ("optimizer", "rmsprop"),
            ("learning_rate", "0.02"),
            ("rmsprop_alpha", "0.95"),
            ("momentum", "0.5"),
            ("weight_decay", "0.1"),
        ],
    ),
    ("adam", &[("optimizer", "adam"), ("learning_rate", "0.05")]),
    (
        "adam, other betas",
        &[
            ("optimizer", "adam"),
            ("learning_rate", "0.05"),
            ("beta1", "0.8"),
            ("beta2", "0.95"),
            ("epsilon", "1e-3"),
        ],
    ),
    ("adam with weight decay", &[("optimizer", "adam"), ("learning_rate", "0.05"), ("weight_decay", "0.1")]),
    ("adamw without weight decay", &[("optimizer", "adamw"), ("learning_rate", "0.05")]),
    ("adamw", &[("optimizer", "adamw"), ("learning_rate", "0.05"), ("weight_decay", "0.1")]),
    (
        "rmsprop, centered",
        &[("optimizer", "rmsprop"), ("learning_rate", "0.02"), ("centered", "true"), ("epsilon", "1e-3")],
    ),
    (
        "rmsprop, centered, with momentum and weight decay",
        &[
            ("optimizer", "rmsprop"),
            ("learning_rate", "0.02"),
            ("rmsprop_alpha", "0.95"),
            ("centered", "true"),
            ("momentum", "0.5"),
            ("weight_decay", "0.1"),
            ("epsilon", "1e-3"),
        ],
    ),
    ("adagrad", &[("optimizer", "adagrad"), ("learning_rate", "0.1"), ("epsilon", "1e-10")]),
    (
        "adagrad with decay of both kinds",
        &[
            ("optimizer", "adagrad"),
            ("learning_rate", "0.1"),
            ("learning_rate_decay", "0.05"),
            ("weight_decay", "0.1"),
            ("epsilon", "1e-3"),
        ],
    ),
    ("adadelta", &[("optimizer", "adadelta"), ("learning_rate", "1"), ("epsilon", "1e-6")]),
    (
        "adadelta, rho 0.8, with weight decay",
        &[
            ("optimizer", "adadelta"),
            ("learning_rate", "0.5"),
            ("rho", "0.8"),
            ("weight_decay", "0.1"),
            ("epsilon", "1e-3"),
        ],
    ),
    ("nadam", &[("optimizer", "nadam"), ("learning_rate", "0.05")]),
    (
        "nadam, other numbers, with weight decay",
        &[
            ("optimizer", "nadam"),
            ("learning_rate", "0.05"),
            ("beta1", "0.8"),
            ("beta2", "0.95"),
            ("momentum_decay", "0.1"),
            ("weight_decay", "0.1"),
            ("epsilon", "1e-3"),
        ],
    ),
    ("lamb", &[("optimizer", "lamb"), ("learning_rate", "0.02"), ("epsilon", "1e-6")]),
    (
        "lamb with weight decay",
        &[
            ("optimizer", "lamb"),
            ("learning_rate", "0.02"),
            ("beta1", "0.8"),
            ("beta2", "0.95"),
            ("weight_decay", "0.1"),
            ("epsilon", "1e-6"),
        ],
    ),
    ("lion", &[("optimizer", "lion"), ("learning_rate", "0.02"), ("beta2", "0.99")]),
    (
        "lion with weight decay",
        &[
            ("optimizer", "lion"),
            ("learning_rate", "0.02"),
            ("beta1", "0.8"),
            ("beta2", "0.95"),
            ("weight_decay", "0.1"),
        ],
    ),
];

#[test]
fn fifty_steps_are_pytorchs() {
    let fixture = fixture!("optimizers");
    fixture.assert_rows(TABLE.iter().map(|(row, _)| *row).chain(["problem"]));
    let single = |name: &str| -> Vec<f32> {
        fixture.get("problem", name).values.iter().map(|&number| number as f32).collect()
    };
    let (start, pull, curvature) = (single("start"), single("pull"), single("curvature"));
    let dimensions = start.len();
    let tensor = |numbers: &[f32]| {
        Tensor::from_slice(numbers, (1, dimensions), device()).expect("one number for each dimension")
    };
    let curvature = tensor(&curvature);

    for (row, settings) in TABLE {
        let group = group(&[(settings, Seeds::from_one(1))]);
        let mut builder = Builder::new(&group.lanes, device());
        let place = builder.constant("place".to_owned(), &[dimensions], Order::AsInPytorch, 0.0);
        let place = place.expect("a parameter");
        place.values().slice_set(&tensor(&start), 0, 0).expect("the same shape");
        let optimizer = Optimizer::new(group.shape.optimizer, &group.lanes, &builder.parameters);
        let mut optimizer = optimizer.expect("an optimizer");

        let learning_rate = group.lanes[0].update.learning_rate;
        let expected = &fixture.get(row, "places").values;
        assert_eq!(expected.len(), STEPS * dimensions, "{row}");
        for (step, (pull, expected)) in
            pull.chunks_exact(dimensions).zip(expected.chunks_exact(dimensions)).enumerate()
        {
            // Of half the squares, weighted by their curvature, and the numbers, weighted by their pull.
            let slope = (place.values() * &curvature).and_then(|slope| slope + tensor(pull));
            place.leaf().gradient.put(slope.expect("the same shape"));
            optimizer.step(&builder.parameters, &[learning_rate]).expect("a step");
            let what = format!("{row}, step {}", step + 1);
            assert_near(&what, &flat(place.values()), expected, TOLERANCE);
        }
    }
}
