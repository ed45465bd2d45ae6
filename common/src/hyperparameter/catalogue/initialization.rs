//! Where weights begin.

use super::Definition;
use crate::hyperparameter::{Bound, DefaultValue, Domain};

pub(super) static INITIALIZATION: &[Definition] = &[
    Definition {
        name: "initialization",
        domain: Domain::Choice(&[
            "normal",
            "xavier_normal",
            "xavier_uniform",
            "kaiming_normal",
            "kaiming_uniform",
        ]),
        default: DefaultValue::Choice("kaiming_uniform"),
        used_with: None,
        meaning: "distribution of the initial weights, by PyTorch's names (kaiming: fan_in, gain of ReLU); biases begin at 0",
    },
    Definition {
        name: "initialization_std",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(10.0) },
        default: DefaultValue::Number(0.01),
        used_with: Some(("initialization", &["normal"])),
        meaning: "standard deviation of the normal initialization",
    },
];
