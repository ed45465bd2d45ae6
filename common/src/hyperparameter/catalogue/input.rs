//! How images become what a model takes.

use super::Definition;
use crate::hyperparameter::{DefaultValue, Domain};

pub(super) static INPUT: &[Definition] = &[Definition {
    name: "input_standardization",
    domain: Domain::Choice(&["dataset", "unit", "per_image"]),
    default: DefaultValue::Choice("dataset"),
    used_with: None,
    meaning: "what inputs are standardised by: mean and deviation of all training images, of each image itself, or nothing (unit: pixel / 255)",
}];
