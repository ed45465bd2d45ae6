//! How long and in what portions a model is trained.

use super::Definition;
use crate::hyperparameter::{DefaultValue, Domain};

pub(super) static TRAINING: &[Definition] = &[
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
    Definition {
        name: "early_stopping_patience",
        domain: Domain::Integer { min: 0, max: 100_000 },
        default: DefaultValue::Integer(0),
        used_with: None,
        meaning: "epochs without a lower validation loss after which training stops, with the weights that it has then; 0: it never stops early",
    },
];
