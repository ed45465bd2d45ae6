//! How the learning rate changes in the course of training.

use super::Definition;
use crate::hyperparameter::{Bound, DefaultValue, Domain};

pub(super) static SCHEDULE: &[Definition] = &[
    Definition {
        name: "schedule",
        domain: Domain::Choice(&[
            "constant",
            "step",
            "exponential",
            "cosine",
            "one_cycle",
            "reduce_on_plateau",
        ]),
        default: DefaultValue::Choice("constant"),
        used_with: None,
        meaning: "how the learning rate changes, by PyTorch's definitions; learning_rate is its highest point",
    },
    Definition {
        name: "schedule_gamma",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.1),
        used_with: Some(("schedule", &["step", "exponential", "reduce_on_plateau"])),
        meaning: "what the learning rate is multiplied by: at each step of epochs, after each epoch, or on a plateau",
    },
    Definition {
        name: "schedule_step_epochs",
        domain: Domain::Integer { min: 1, max: 100_000 },
        default: DefaultValue::Integer(10),
        used_with: Some(("schedule", &["step"])),
        meaning: "epochs from one reduction to the next",
    },
    Definition {
        name: "schedule_patience",
        domain: Domain::Integer { min: 0, max: 100_000 },
        default: DefaultValue::Integer(10),
        used_with: Some(("schedule", &["reduce_on_plateau"])),
        meaning: "epochs without a better validation loss after which one more reduces the learning rate",
    },
    Definition {
        name: "warmup_epochs",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1e5) },
        default: DefaultValue::Number(0.0),
        used_with: Some(("schedule", &["cosine"])),
        meaning: "epochs, or parts of one, in which the learning rate first rises in a line",
    },
    Definition {
        name: "final_factor",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: Some(("schedule", &["cosine"])),
        meaning: "part of the learning rate that the cosine falls to",
    },
    Definition {
        name: "pct_start",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.3),
        used_with: Some(("schedule", &["one_cycle"])),
        meaning: "part of all steps in which the learning rate rises; momentum is not cycled",
    },
    Definition {
        name: "div_factor",
        domain: Domain::Number { min: Bound::Included(1.0), max: Bound::Included(1e6) },
        default: DefaultValue::Number(25.0),
        used_with: Some(("schedule", &["one_cycle"])),
        meaning: "what the learning rate is divided by in the first step",
    },
    Definition {
        name: "final_div_factor",
        domain: Domain::Number { min: Bound::Included(1.0), max: Bound::Included(1e12) },
        default: DefaultValue::Number(10_000.0),
        used_with: Some(("schedule", &["one_cycle"])),
        meaning: "what that is divided by once more in the last step",
    },
];
