//! Where weights and biases begin.

use super::Definition;
use crate::hyperparameter::{Bound, DefaultValue, Domain};

/// Every initialization but PyTorch's default, which has biases of its own.
const WITH_CONSTANT_BIASES: &[&str] = &[
    "zeros",
    "constant",
    "normal",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "orthogonal",
];

const FROM_MINUS_TEN_TO_TEN: Domain =
    Domain::Number { min: Bound::Included(-10.0), max: Bound::Included(10.0) };

pub(super) static INITIALIZATION: &[Definition] = &[
    Definition {
        name: "initialization",
        domain: Domain::Choice(&[
            "zeros",
            "constant",
            "normal",
            "truncated_normal",
            "uniform",
            "xavier_normal",
            "xavier_uniform",
            "kaiming_normal",
            "kaiming_uniform",
            "orthogonal",
            "pytorch_default",
        ]),
        default: DefaultValue::Choice("kaiming_uniform"),
        used_with: None,
        meaning: "distribution of the initial weights, by PyTorch's names (kaiming: gain of ReLU; truncated_normal: cut off at -2 and 2)",
    },
    Definition {
        name: "initialization_value",
        domain: FROM_MINUS_TEN_TO_TEN,
        default: DefaultValue::Number(0.01),
        used_with: Some(("initialization", &["constant"])),
        meaning: "every weight of the constant initialization",
    },
    Definition {
        name: "initialization_std",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(10.0) },
        default: DefaultValue::Number(0.01),
        used_with: Some(("initialization", &["normal", "truncated_normal"])),
        meaning: "standard deviation of the normal initialization, and of the truncated one before it is truncated",
    },
    Definition {
        name: "initialization_bound",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(10.0) },
        default: DefaultValue::Number(0.05),
        used_with: Some(("initialization", &["uniform"])),
        meaning: "the uniform initialization draws from minus this up to it",
    },
    Definition {
        name: "initialization_fan",
        domain: Domain::Choice(&["fan_in", "fan_out"]),
        default: DefaultValue::Choice("fan_in"),
        used_with: Some(("initialization", &["kaiming_normal", "kaiming_uniform"])),
        meaning: "what the kaiming initializations keep the variance of: activations (fan_in) or gradients (fan_out)",
    },
    Definition {
        name: "initialization_gain",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(100.0) },
        default: DefaultValue::Number(1.0),
        used_with: Some((
            "initialization",
            &["xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform", "orthogonal"],
        )),
        meaning: "factor of the initial weights, on top of kaiming's gain of ReLU",
    },
    Definition {
        name: "initial_linear_bias",
        domain: FROM_MINUS_TEN_TO_TEN,
        default: DefaultValue::Number(0.0),
        used_with: Some(("initialization", WITH_CONSTANT_BIASES)),
        meaning: "where the biases of linear layers begin",
    },
    Definition {
        name: "initial_convolution_bias",
        domain: FROM_MINUS_TEN_TO_TEN,
        default: DefaultValue::Number(0.0),
        used_with: Some(("initialization", WITH_CONSTANT_BIASES)),
        meaning: "where the biases of convolutions begin",
    },
];
