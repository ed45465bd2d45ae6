//! How weights are updated.

use super::{Definition, ZERO_TO_BELOW_ONE};
use crate::hyperparameter::{Bound, DefaultValue, Domain};

pub(super) static OPTIMIZATION: &[Definition] = &[
    Definition {
        name: "optimizer",
        domain: Domain::Choice(&["sgd", "rmsprop", "adam", "adamw"]),
        default: DefaultValue::Choice("adam"),
        used_with: None,
        meaning: "update rule, by PyTorch's definitions",
    },
    Definition {
        name: "learning_rate",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(10.0) },
        default: DefaultValue::Number(0.001),
        used_with: None,
        meaning: "step size",
    },
    Definition {
        name: "momentum",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: Some(("optimizer", &["sgd", "rmsprop"])),
        meaning: "momentum factor",
    },
    Definition {
        name: "nesterov",
        domain: Domain::Flag,
        default: DefaultValue::Flag(false),
        used_with: Some(("optimizer", &["sgd"])),
        meaning: "Nesterov's form of momentum",
    },
    Definition {
        name: "rmsprop_alpha",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.99),
        used_with: Some(("optimizer", &["rmsprop"])),
        meaning: "smoothing of RMSProp's mean square",
    },
    Definition {
        name: "beta1",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.9),
        used_with: Some(("optimizer", &["adam", "adamw"])),
        meaning: "smoothing of Adam's first moment",
    },
    Definition {
        name: "beta2",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.999),
        used_with: Some(("optimizer", &["adam", "adamw"])),
        meaning: "smoothing of Adam's second moment",
    },
    Definition {
        name: "epsilon",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(1e-8),
        used_with: Some(("optimizer", &["rmsprop", "adam", "adamw"])),
        meaning: "added to the denominator of RMSProp's and Adam's updates",
    },
];
