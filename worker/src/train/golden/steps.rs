//! Whole steps of training: schedules, clipping, penalties, exemptions and averages around the
//! optimizers, over 50 steps of a weight and a bias on rough ground.

use candle_core::Tensor;
use fittingroom_common::trial::Seeds;

use super::{Fixture, assert_near, device, fixture};
use crate::train::average;
use crate::train::init::Fan;
use crate::train::ops::testing::flat;
use crate::train::optim::Optimizer;
use crate::train::params::{Builder, Order, Parameter};
use crate::train::rng::Moment;
use crate::train::schedule::{Place, Scheduler};
use crate::train::testing::{Settings, group};

const STEPS: usize = 50;
const STEPS_PER_EPOCH: usize = 10;

/// What an average keeps.
const KEEP: f64 = 0.9;

/// What 50 steps in f32 may be off, relative to the largest coordinate of each step.
const TOLERANCE: f64 = 1e-5;

const MOMENTUM: [(&str, &str); 3] =
    [("optimizer", "momentum"), ("momentum", "0.9"), ("learning_rate", "0.05")];

const TABLE: [(&str, Settings<'_>); 10] = [
    (
        "momentum by cosine with warm-up",
        &[MOMENTUM[0], MOMENTUM[1], MOMENTUM[2], ("schedule", "cosine"), ("warmup_epochs", "0.7")],
    ),
    (
        "adamw by one cycle",
        &[
            ("optimizer", "adamw"),
            ("learning_rate", "0.05"),
            ("weight_decay", "0.1"),
            ("schedule", "one_cycle"),
        ],
    ),
    ("clipped by norm", &[MOMENTUM[0], MOMENTUM[1], MOMENTUM[2], ("clip_norm", "2.5")]),
    ("clipped by value", &[MOMENTUM[0], MOMENTUM[1], MOMENTUM[2], ("clip_value", "0.5")]),
    (
        "clipped by value and norm",
        &[MOMENTUM[0], MOMENTUM[1], MOMENTUM[2], ("clip_value", "1"), ("clip_norm", "2.5")],
    ),
    ("l1", &[MOMENTUM[0], MOMENTUM[1], MOMENTUM[2], ("l1", "0.2")]),
    (
        "l1 and l2, clipped",
        &[
            MOMENTUM[0],
            MOMENTUM[1],
            MOMENTUM[2],
            ("l1", "0.2"),
            ("weight_decay", "0.1"),
            ("clip_norm", "2.5"),
        ],
    ),
    (
        "weight decay of weights",
        &[
            MOMENTUM[0],
            MOMENTUM[1],
            MOMENTUM[2],
            ("weight_decay", "0.3"),
            ("weight_decay_exempt", "bias_and_norm"),
        ],
    ),
    (
        "decoupled weight decay of weights",
        &[
            ("optimizer", "adamw"),
            ("learning_rate", "0.05"),
            ("weight_decay", "0.3"),
            ("weight_decay_exempt", "bias_and_norm"),
        ],
    ),
    (
        "lamb",
        &[("optimizer", "lamb"), ("learning_rate", "0.02"), ("epsilon", "1e-6"), ("weight_decay", "0.1")],
    ),
];

/// The ground that a lane's parameters walk on: the loss of step t at p is curvature * p² / 2 + pull[t] * p.
struct Ground<'a> {
    fixture: &'a Fixture,
}

impl Ground<'_> {
    fn tensor(&self, name: &str, range: std::ops::Range<usize>, parameter: &Parameter) -> Tensor {
        let numbers = &self.fixture.get("problem", name).values[range];
        let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
        Tensor::from_vec(numbers, parameter.values().shape(), device()).expect("the shape fits")
    }

    /// Of half the squares, weighted by their curvature, and the numbers, weighted by their pull.
    fn gradient(&self, parameter: &Parameter, name: &str, step: usize) -> Tensor {
        let count = parameter.values().elem_count();
        let curvature = self.tensor(&format!("{name} curvature"), 0..count, parameter);
        let pull = self.tensor(&format!("{name} pull"), step * count..(step + 1) * count, parameter);
        (parameter.values() * curvature).and_then(|slope| slope + pull).expect("alike")
    }
}

#[test]
fn fifty_steps_are_pytorchs() {
    let fixture = fixture!("steps");
    fixture.assert_rows(TABLE.iter().map(|(row, _)| *row).chain(["problem"]));
    let ground = Ground { fixture: &fixture };
    for (row, settings) in TABLE {
        let group = group(&[(settings, Seeds::from_one(1))]);
        let mut builder = Builder::new(&group.lanes, device());
        let fan = Fan { inputs: 4, outputs: 3 };
        builder.weight("weight".to_owned(), &[3, 4], &[3, 4], Order::AsInPytorch, fan).expect("a weight");
        builder.constant("bias".to_owned(), &[3], Order::AsInPytorch, 0.0).expect("a bias");
        let parameters: Vec<(&str, &Parameter)> =
            ["weight", "bias"].into_iter().zip(&builder.parameters).collect();
        for (name, parameter) in &parameters {
            let start =
                ground.tensor(&format!("{name} start"), 0..parameter.values().elem_count(), parameter);
            parameter.values().slice_set(&start, 0, 0).expect("the same shape");
        }
        let averages: Vec<Tensor> =
            parameters.iter().map(|(_, it)| it.values().zeros_like().expect("alike")).collect();
        let optimizer = Optimizer::new(group.shape.optimizer, &group.lanes, &builder.parameters);
        let mut optimizer = optimizer.expect("an optimizer");
        let scheduler = Scheduler::new(&group.lanes);
        for step in 0..STEPS {
            let moment = Moment { epoch: (step / STEPS_PER_EPOCH) as u32 + 1, step: step % STEPS_PER_EPOCH };
            let epochs = (STEPS / STEPS_PER_EPOCH) as u32;
            let rates = scheduler.learning_rates(Place { moment, steps: STEPS_PER_EPOCH, epochs });
            for (name, parameter) in &parameters {
                parameter.leaf().gradient.put(ground.gradient(parameter, name, step));
            }
            optimizer.step(&builder.parameters, &rates).expect("a step");
            for ((name, parameter), average) in parameters.iter().zip(&averages) {
                let keep = if step == 0 { 0.0 } else { KEEP };
                average::mix(&[keep], average, parameter.values()).expect("alike");
                let averaged = format!("average {name}");
                for (name, values) in [(*name, parameter.values()), (&averaged, average)] {
                    let count = values.elem_count();
                    let expected = &fixture.get(row, name).values[step * count..(step + 1) * count];
                    let what = format!("{row}, {name}, step {}", step + 1);
                    assert_near(&what, &flat(values), expected, TOLERANCE);
                }
            }
        }
    }
}
