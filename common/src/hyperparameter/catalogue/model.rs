//! What a model is made of.

use super::Definition;
use crate::hyperparameter::{DefaultValue, Domain};

/// The models that have convolutions.
pub(super) const CONVOLUTIONAL: &[&str] = &["lenet"];

pub(super) static MODEL: &[Definition] = &[
    Definition {
        name: "model",
        domain: Domain::Choice(&["fcn", "lenet"]),
        default: DefaultValue::Choice("fcn"),
        used_with: None,
        meaning: "architecture: fcn (fully connected) or lenet (conv 5x5 to 32, pool, conv 5x5 to 64, pool, 256, 128)",
    },
    Definition {
        name: "hidden_sizes",
        domain: Domain::Sizes { max_layers: 64, max_size: 65_536 },
        default: DefaultValue::Sizes(&[256, 128]),
        used_with: Some(("model", &["fcn"])),
        meaning: "units of each hidden layer, as a list: [300, 200]",
    },
    Definition {
        name: "normalization",
        domain: Domain::Choice(&["none", "batch", "layer", "group", "instance"]),
        default: DefaultValue::Choice("none"),
        used_with: None,
        meaning: "between each linear or convolution layer and its activation; instance after convolutions alone",
    },
    Definition {
        name: "norm_groups",
        domain: Domain::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Integer(8),
        used_with: Some(("normalization", &["group"])),
        meaning: "groups that group normalization splits the channels of each layer into; it must divide them",
    },
];
