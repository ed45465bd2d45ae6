//! The catalogue itself, one file per theme.

mod augmentation;
mod initialization;
mod input;
mod model;
mod optimization;
mod regularization;
mod schedule;
mod training;

use std::sync::LazyLock;

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
pub static CATALOGUE: LazyLock<Vec<&'static Definition>> = LazyLock::new(|| {
    let themes = [
        model::MODEL,
        initialization::INITIALIZATION,
        input::INPUT,
        optimization::OPTIMIZATION,
        schedule::SCHEDULE,
        regularization::REGULARIZATION,
        augmentation::AUGMENTATION,
        training::TRAINING,
    ];
    themes.into_iter().flatten().collect()
});
