//! The catalogue itself.

use super::{Bound, DefaultValue, Domain};

/// One hyperparameter: its name, what it may be, what it is if nothing is said.
#[derive(Debug)]
pub struct Definition {
    /// The name in search files, in `--set`, in exports and on the wire.
    pub name: &'static str,
    /// What values it may take.
    pub domain: Domain,
    /// Its value where a search file does not name it.
    pub default: DefaultValue,
    /// The hyperparameter and those of its values with which this one has an effect; `None` if always.
    pub used_with: Option<(&'static str, &'static [&'static str])>,
    /// One line for people.
    pub meaning: &'static str,
}

const ZERO_TO_BELOW_ONE: Domain = Domain::Number { min: Bound::Included(0.0), max: Bound::Excluded(1.0) };

/// Every hyperparameter, in the order in which they are shown.
pub static CATALOGUE: &[Definition] = &[
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
        domain: Domain::Choice(&["none", "batch", "layer"]),
        default: DefaultValue::Choice("none"),
        used_with: None,
        meaning: "between each linear or convolution layer and its activation",
    },
    Definition {
        name: "dropout",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "probability with which a hidden unit of a fully connected layer is dropped in training",
    },
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
    Definition {
        name: "weight_decay",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "L2 penalty added to the gradient; with adamw decoupled from it. Applies to every parameter, as in PyTorch",
    },
    Definition {
        name: "label_smoothing",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "share of the target's probability that is spread evenly over all classes in training",
    },
    Definition {
        name: "batch_size",
        domain: Domain::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Integer(128),
        used_with: None,
        meaning: "images per step",
    },
    Definition {
        name: "epochs",
        domain: Domain::Integer { min: 1, max: 100_000 },
        default: DefaultValue::Integer(10),
        used_with: None,
        meaning: "passes over the training images",
    },
];
