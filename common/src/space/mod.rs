//! What a search is: its space of hyperparameters, its method, its metric, its limits.
//!
//! A [`SearchSpec`] is made in two ways: from a search file by [`SearchSpec::parse`], whose errors
//! point at a line and a column, or from [`SearchFields`] by [`SearchSpec::new`], whose errors name
//! the part that is wrong. Both hold the same rules, so whoever has a `SearchSpec` need not check it.
//! Nothing here reads a file, draws a random number or knows a wire format.

mod distribution;
mod error;
mod grid;
mod notes;
mod parse;
mod problem;
mod read;
mod read_checkpoint;
mod read_distribution;
mod read_parameters;
mod tree;
mod validate;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

pub use distribution::{Bell, Distribution, Multiples, Scale};
pub use error::{Note, SpaceError};
pub use grid::{Alive, Grid};
pub use parse::Parsed;
pub use problem::{Path, Problem, SpecError, Step};

use crate::checkpoint::CheckpointRule;
use crate::dataset::KnownDataset;
use crate::hyperparameter::{Hyperparameters, Parameter, Value};
use crate::id::Name;
use crate::trial::Metric;

/// The most trials that a grid may have, replicates included.
pub const MAX_GRID: u64 = 1_000_000;

/// The most values that a list may have.
pub const MAX_VALUES: usize = 1_000;

/// The most trials that a search may have.
pub const MAX_TRIALS: u64 = 1_000_000_000;

/// The largest search file, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// What a search says, not yet checked. [`SearchSpec::new`] checks it.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchFields {
    /// What to call the search, if the file says.
    pub name: Option<Name>,
    /// A sentence for people; empty if there is none.
    pub description: String,
    /// What the trials, their data order and their initial weights are drawn from.
    pub seed: u64,
    /// What the models are trained on.
    pub dataset: DatasetChoice,
    /// How trials are chosen.
    pub method: Method,
    /// What trials are ranked by.
    pub metric: Metric,
    /// The most trials. [`Method::Random`] needs it.
    pub run_cap: Option<u64>,
    /// How many trials each point gets, with different random numbers; from 1.
    pub replicates: u32,
    /// How often a trial is tried when workers are lost; from 1.
    pub max_attempts: u32,
    /// The search fails when more trials than this have failed.
    pub max_failed_trials: Option<u32>,
    /// The search stops handing out trials after this long.
    pub budget: Option<Duration>,
    /// Whether loss and accuracy on the test set are recorded each epoch. They never rank.
    pub track_test: bool,
    /// When running trials are checkpointed, for the next attempt to go on from.
    pub checkpoint: CheckpointRule,
    /// What is searched. With [`Method::Points`], constants that all points share.
    pub space: Space,
    /// The trials of [`Method::Points`]; empty otherwise.
    pub points: Vec<Hyperparameters>,
}

impl Default for SearchFields {
    /// What a file that says nothing would mean, were it allowed to say nothing.
    fn default() -> Self {
        Self {
            name: None,
            description: String::new(),
            seed: 0,
            dataset: DatasetChoice::default(),
            method: Method::Grid,
            metric: Metric::ValidationAccuracy,
            run_cap: None,
            replicates: 1,
            max_attempts: 3,
            max_failed_trials: None,
            budget: None,
            track_test: false,
            checkpoint: CheckpointRule::default(),
            space: Space::default(),
            points: Vec::new(),
        }
    }
}

/// A search that keeps every rule. Its fields are read through [`Deref`]; they cannot be changed,
/// except for the name.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSpec {
    fields: SearchFields,
    trial_count: u64,
}

impl SearchSpec {
    /// Checks every rule that does not need the file.
    pub fn new(mut fields: SearchFields) -> Result<Self, SpecError> {
        fields.space.settle_values();
        let trial_count = validate::trial_count(&fields)?;
        Ok(Self { fields, trial_count })
    }

    /// How many trials there are, replicates included.
    pub const fn trial_count(&self) -> u64 {
        self.trial_count
    }

    /// The hyperparameters that all points of a list share.
    pub fn shared(&self) -> Hyperparameters {
        let mut shared = Hyperparameters::new();
        for dimension in &self.fields.space.dimensions {
            if let Distribution::Constant(value) = &dimension.distribution {
                // Cannot fail: the value was checked when this search was made.
                let _ = shared.set(dimension.parameter, value);
            }
        }
        shared
    }

    /// The same search under another name.
    #[must_use]
    pub fn with_name(mut self, name: Name) -> Self {
        self.fields.name = Some(name);
        self
    }
}

impl Deref for SearchSpec {
    type Target = SearchFields;

    fn deref(&self) -> &SearchFields {
        &self.fields
    }
}

/// What the models are trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatasetChoice {
    /// A dataset that the coordinator holds or knows by this name.
    Named(Name),
    /// A folder of IDX files, as the file wrote it.
    Folder(PathBuf),
}

impl Default for DatasetChoice {
    fn default() -> Self {
        Self::Named(Name::sanitised(KnownDataset::FASHION_MNIST.name))
    }
}

impl fmt::Display for DatasetChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Folder(path) => path.display().fmt(f),
        }
    }
}

/// How trials are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every point of a finite space.
    Grid,
    /// Points drawn from the distributions.
    Random,
    /// The points that the file lists.
    Points,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::Grid, Self::Random, Self::Points];

    /// Its name in search files and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Random => "random",
            Self::Points => "points",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is searched: hyperparameters and the values each may take, in the file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Space {
    /// Each hyperparameter at most once.
    pub dimensions: Vec<Dimension>,
}

/// One hyperparameter of a [`Space`].
#[derive(Clone, Debug, PartialEq)]
pub struct Dimension {
    /// Which one.
    pub parameter: Parameter,
    /// How its values are spread.
    pub distribution: Distribution,
    /// It exists only at points where all of these hold.
    pub when: Vec<Condition>,
}

/// Holds at the points where another hyperparameter exists and has one of these values.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The other hyperparameter.
    pub parameter: Parameter,
    /// Any of these.
    pub values: Vec<Value>,
}

impl Space {
    /// The place of a hyperparameter in [`Space::dimensions`].
    pub fn position(&self, parameter: Parameter) -> Option<usize> {
        self.dimensions.iter().position(|dimension| dimension.parameter == parameter)
    }

    /// What is said of a hyperparameter.
    pub fn find(&self, parameter: Parameter) -> Option<&Dimension> {
        self.position(parameter).map(|position| &self.dimensions[position])
    }

    /// Gives every value the kind that its hyperparameter takes, so that 1 and 1.0 are the same
    /// value of a number. Values that no kind fits stay as they are, to be refused.
    fn settle_values(&mut self) {
        let settle = |parameter: Parameter, value: &mut Value| {
            if let Ok(settled) = parameter.check(value) {
                *value = settled;
            }
        };
        for Dimension { parameter, distribution, when } in &mut self.dimensions {
            match distribution {
                Distribution::Constant(value) => settle(*parameter, value),
                Distribution::Categorical { values, .. } => {
                    values.iter_mut().for_each(|value| settle(*parameter, value));
                }
                Distribution::IntUniform { .. }
                | Distribution::Range { .. }
                | Distribution::Normal { .. } => {}
            }
            for Condition { parameter, values } in when {
                values.iter_mut().for_each(|value| settle(*parameter, value));
            }
        }
    }

    /// Whether the space has a finite number of points.
    pub fn is_finite(&self) -> bool {
        self.dimensions.iter().all(|dimension| dimension.distribution.size().is_some())
    }

    /// Whether the space has a finite number of points and no distribution prefers some to others,
    /// so that points can be drawn without drawing any of them twice.
    pub fn is_evenly_finite(&self) -> bool {
        self.dimensions.iter().all(|dimension| dimension.distribution.is_even())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str) -> Parameter {
        Parameter::find(name).expect("in the catalogue")
    }

    fn one(name: &str, distribution: Distribution) -> SearchFields {
        let dimension = Dimension { parameter: parameter(name), distribution, when: Vec::new() };
        SearchFields { space: Space { dimensions: vec![dimension] }, ..SearchFields::default() }
    }

    #[test]
    fn fields_that_came_without_a_file_keep_the_same_rules() {
        let listed = |values: Vec<Value>| Distribution::Categorical { values, probabilities: None };
        let mut twice = one("dropout", listed(vec![Value::Number(0.1)]));
        twice.space.dimensions.push(twice.space.dimensions[0].clone());
        let uniform = Distribution::Range { scale: Scale::Uniform, min: 0.0, max: f64::NAN, q: None };
        for (fields, said) in [
            (SearchFields::default(), "parameters: the search has no parameters"),
            (
                SearchFields { run_cap: Some(0), ..one("epochs", listed(vec![])) },
                "run_cap: this must be at least 1",
            ),
            (
                one("epochs", listed(vec![Value::Integer(0)])),
                "parameters.epochs.values[0]: epochs cannot be 0",
            ),
            (one("dropout", uniform), "parameters.dropout.max: NaN is not a finite number"),
            (twice, "parameters.dropout: dropout is given twice"),
        ] {
            let error = SearchSpec::new(fields).expect_err(said).to_string();
            assert!(error.starts_with(said), "{error:?} does not begin with {said:?}");
        }
    }

    #[test]
    fn whole_numbers_are_numbers_where_numbers_are_taken() {
        let values = vec![Value::Integer(0), Value::Number(0.5)];
        let spec = SearchSpec::new(one("dropout", Distribution::Categorical { values, probabilities: None }));
        let expected = vec![Value::Number(0.0), Value::Number(0.5)];
        assert_eq!(
            spec.expect("good").space.dimensions[0].distribution,
            Distribution::Categorical { values: expected, probabilities: None }
        );
    }

    #[test]
    fn conditions_that_make_too_many_combinations_are_refused() {
        // Two with many values each, and each decides over others by the digits of its value.
        let numbers = |chosen: &dyn Fn(i64) -> bool| {
            (1..=1_000).filter(|number| chosen(*number)).map(Value::Integer).collect::<Vec<_>>()
        };
        let everything = || Distribution::Categorical { values: numbers(&|_| true), probabilities: None };
        let controllers = ["epochs", "batch_size"].map(parameter);
        let mut fields = one("epochs", everything());
        fields.space.dimensions.extend(one("batch_size", everything()).space.dimensions);
        let others = Parameter::all().filter(|other| !controllers.contains(other)).take(16);
        for (index, other) in others.enumerate() {
            let values = numbers(&|number| number >> (index / 2) & 1 == 1);
            fields.space.dimensions.push(Dimension {
                parameter: other,
                distribution: Distribution::Constant(other.default_value()),
                when: vec![Condition { parameter: controllers[index % 2], values }],
            });
        }
        let error = SearchSpec::new(fields).expect_err("too many");
        assert_eq!(error.problem, Problem::TooManyConditions);
    }
}
