//! How weights are updated.

use super::{Definition, ZERO_TO_BELOW_ONE};
use crate::hyperparameter::{Bound, DefaultValue, Domain};

pub(super) static OPTIMIZATION: &[Definition] = &[
    Definition {
        name: "optimizer",
        domain: Domain::Choice(&[
            "sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adadelta", "adam", "adamw", "nadam",
            "lamb", "lion",
        ]),
        default: DefaultValue::Choice("adam"),
        used_with: None,
        meaning: "update rule, by PyTorch's definitions; momentum and nesterov are sgd with a momentum above 0",
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
        used_with: Some(("optimizer", &["sgd", "momentum", "nesterov", "rmsprop"])),
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
        name: "centered",
        domain: Domain::Flag,
        default: DefaultValue::Flag(false),
        used_with: Some(("optimizer", &["rmsprop"])),
        meaning: "whether RMSProp divides by the gradient's deviation in place of its root mean square",
    },
    Definition {
        name: "learning_rate_decay",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: Some(("optimizer", &["adagrad"])),
        meaning: "Adagrad's step t is divided by 1 + (t - 1) times this (PyTorch's lr_decay)",
    },
    Definition {
        name: "rho",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.9),
        used_with: Some(("optimizer", &["adadelta"])),
        meaning: "smoothing of Adadelta's mean squares",
    },
    Definition {
        name: "beta1",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.9),
        used_with: Some(("optimizer", &["adam", "adamw", "nadam", "lamb", "lion"])),
        meaning: "smoothing of Adam's first moment; of the momentum in Lion's direction",
    },
    Definition {
        name: "beta2",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.999),
        used_with: Some(("optimizer", &["adam", "adamw", "nadam", "lamb", "lion"])),
        meaning: "smoothing of Adam's second moment; of the momentum that Lion keeps (its paper: 0.99)",
    },
    Definition {
        name: "momentum_decay",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.004),
        used_with: Some(("optimizer", &["nadam"])),
        meaning: "how fast NAdam's momentum grows from half of beta1 to all of it",
    },
    Definition {
        name: "epsilon",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(1e-8),
        used_with: Some(("optimizer", &["rmsprop", "adagrad", "adadelta", "adam", "adamw", "nadam", "lamb"])),
        meaning: "added to the denominator of the update; with adadelta within both of its roots",
    },
    Definition {
        name: "clip_value",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1e6) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "numbers of the gradient beyond plus or minus this are cut off to it; 0 is off",
    },
    Definition {
        name: "clip_norm",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1e6) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "the gradient of all parameters together is scaled down to this Euclidean norm; after clip_value; 0 is off",
    },
];
