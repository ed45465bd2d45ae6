//! What a model is made of.

use super::Definition;
use crate::hyperparameter::{DefaultValue, Domain};

/// The models that have convolutions.
pub(super) const CONVOLUTIONAL: &[&str] = &["cnn", "lenet", "alexnet", "vgg"];

pub(super) static MODEL: &[Definition] = &[
    Definition {
        name: "model",
        domain: Domain::Choice(&["fcn", "dnn", "cnn", "lenet", "alexnet", "vgg", "resnet", "wide_resnet"]),
        default: DefaultValue::Choice("fcn"),
        used_with: None,
        meaning: "architecture: fcn (fully connected), dnn (the same, deep), cnn (convolutions, each with a pool, then fully connected), lenet (conv 5x5 to 32, pool, conv 5x5 to 64, pool, 256, 128), \
                  alexnet, vgg (small), resnet (small, pre-activation) or wide_resnet; `fittingroom-worker models` shows their shapes",
    },
    Definition {
        name: "hidden_sizes",
        domain: Domain::Sizes { max_layers: 64, max_size: 65_536 },
        default: DefaultValue::Sizes(&[256, 128]),
        used_with: Some(("model", &["fcn", "cnn"])),
        meaning: "units of each hidden fully connected layer, as a list: [300, 200]",
    },
    Definition {
        name: "depth",
        domain: Domain::Integer { min: 1, max: 256 },
        default: DefaultValue::Integer(4),
        used_with: Some(("model", &["dnn"])),
        meaning: "hidden layers",
    },
    Definition {
        name: "width",
        domain: Domain::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Integer(256),
        used_with: Some(("model", &["dnn"])),
        meaning: "units of each hidden layer",
    },
    Definition {
        name: "residual",
        domain: Domain::Flag,
        default: DefaultValue::Flag(false),
        used_with: Some(("model", &["dnn"])),
        meaning: "whether the hidden layers from the second on are added to their input (pre-activation)",
    },
    Definition {
        name: "alexnet_geometry",
        domain: Domain::Choice(&["adapted", "original"]),
        default: DefaultValue::Choice("adapted"),
        used_with: Some(("model", &["alexnet"])),
        meaning: "adapted to small images (conv 3x3), or as published, with images interpolated to 227x227 and local response \
                  normalization: nine times the work on 28x28",
    },
    Definition {
        name: "classifier_units",
        domain: Domain::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Integer(4096),
        used_with: Some(("model", &["alexnet"])),
        meaning: "units of each of the two hidden fully connected layers",
    },
    Definition {
        name: "channels",
        domain: Domain::Sizes { max_layers: 8, max_size: 4096 },
        default: DefaultValue::Sizes(&[32, 64, 128]),
        used_with: Some(("model", &["cnn", "resnet"])),
        meaning: "channels of each stage, as a list; the image is halved from each stage to the next. A stage of a cnn is one convolution",
    },
    Definition {
        name: "kernel_size",
        domain: Domain::Integer { min: 1, max: 15 },
        default: DefaultValue::Integer(3),
        used_with: Some(("model", &["cnn"])),
        meaning: "rows and columns of each convolution's windows",
    },
    Definition {
        name: "blocks",
        domain: Domain::Integer { min: 1, max: 32 },
        default: DefaultValue::Integer(2),
        used_with: Some(("model", &["resnet", "wide_resnet"])),
        meaning: "residual blocks of two convolutions in each stage; a wide_resnet is 6 * blocks + 4 layers deep",
    },
    Definition {
        name: "widen_factor",
        domain: Domain::Integer { min: 1, max: 64 },
        default: DefaultValue::Integer(2),
        used_with: Some(("model", &["wide_resnet"])),
        meaning: "the stages have 16, 32 and 64 times this many channels",
    },
    Definition {
        name: "normalization",
        domain: Domain::Choice(&["none", "batch", "layer", "group", "instance"]),
        default: DefaultValue::Choice("none"),
        used_with: None,
        meaning: "between each linear or convolution layer and its activation; residual blocks begin with it; instance after convolutions alone",
    },
    Definition {
        name: "norm_groups",
        domain: Domain::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Integer(8),
        used_with: Some(("normalization", &["group"])),
        meaning: "groups that group normalization splits the channels of each layer into; it must divide them",
    },
];
