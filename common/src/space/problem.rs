//! The ways in which a search can break its rules.

use std::fmt;

use crate::hyperparameter::{Domain, Value, ValueError};

use super::{MAX_GRID, MAX_TRIALS, MAX_VALUES, Method};

/// A rule that a search breaks, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct SpecError {
    /// The part of the search that is wrong, in the search file's words.
    pub path: Path,
    /// What is wrong with it.
    pub problem: Problem,
}

/// The way from the top of a search file to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

/// One step of a [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the value of a key.
    Key(&'static str),
    /// To an entry of a list, counted from 0.
    Index(usize),
}

impl From<&'static str> for Step {
    fn from(key: &'static str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) => write!(f, "{}{key}", if index == 0 { "" } else { "." })?,
                Step::Index(number) => write!(f, "[{number}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a search.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// A hyperparameter cannot have this value.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The bounds leave nothing between them.
    #[error("min is {min} and max is {max}, but min must be less than max")]
    Bounds {
        /// The lower bound.
        min: f64,
        /// The upper bound.
        max: f64,
    },
    /// A logarithm needs a positive number.
    #[error("min is {min}, but a logarithmic distribution needs a min above 0")]
    NotPositive {
        /// The lower bound.
        min: f64,
    },
    /// A number of a distribution is infinite or NaN.
    #[error("{number} is not a finite number")]
    NotFinite {
        /// The number.
        number: f64,
    },
    /// A distribution draws numbers with digits after the point, but the hyperparameter takes whole ones.
    #[error("{parameter} takes whole numbers, but {distribution} draws others")]
    NotWhole {
        /// The hyperparameter.
        parameter: &'static str,
        /// The distribution.
        distribution: &'static str,
    },
    /// A step is no step.
    #[error("q is {q}, but must be a number above 0")]
    Step {
        /// The step.
        q: f64,
    },
    /// No multiple of the step lies between the bounds, or too many do to tell them apart.
    #[error("there are no usable multiples of {q} from {min} to {max}")]
    NoMultiples {
        /// The step.
        q: f64,
        /// The lower bound.
        min: f64,
        /// The upper bound.
        max: f64,
    },
    /// A standard deviation is none.
    #[error("sigma is {sigma}, but must be a number above 0")]
    Sigma {
        /// The standard deviation.
        sigma: f64,
    },
    /// Draws from a normal distribution would hardly ever be values of the hyperparameter.
    #[error("{parameter} takes {domain}, which draws around {centre} with this sigma would hardly ever hit")]
    OutOfReach {
        /// The hyperparameter.
        parameter: &'static str,
        /// What it takes.
        domain: Domain,
        /// The value around which numbers are drawn.
        centre: f64,
    },
    /// There is no value to choose from.
    #[error("there is no value to choose from")]
    NoValues,
    /// A list of values is too long to be meant.
    #[error("{values} values are listed; the limit is {MAX_VALUES}")]
    TooManyValues {
        /// How many.
        values: usize,
    },
    /// A value stands in a list twice.
    #[error("{value} is listed twice")]
    DuplicateValue {
        /// The value.
        value: Value,
    },
    /// Probabilities and values differ in number.
    #[error("there are {probabilities} probabilities for {values} values")]
    ProbabilityCount {
        /// How many probabilities there are.
        probabilities: usize,
        /// How many values there are.
        values: usize,
    },
    /// A probability is none.
    #[error("{probability} is not a probability from 0 to 1")]
    Probability {
        /// The number.
        probability: f64,
    },
    /// Probabilities do not add up to 1.
    #[error("the probabilities add up to {sum}, not to 1")]
    ProbabilitySum {
        /// What they add up to.
        sum: f64,
    },
    /// A hyperparameter is given twice.
    #[error("{parameter} is given twice")]
    GivenTwice {
        /// The hyperparameter.
        parameter: &'static str,
    },
    /// A condition names a hyperparameter that the search does not.
    #[error("this depends on {controller}, which the search does not name")]
    UnknownController {
        /// The hyperparameter that the condition names.
        controller: &'static str,
    },
    /// A condition names a hyperparameter whose values are not listed.
    #[error("this depends on {controller}, whose values are not listed but drawn from {distribution}")]
    DrawnController {
        /// The hyperparameter that the condition names.
        controller: &'static str,
        /// How its values are drawn.
        distribution: &'static str,
    },
    /// Hyperparameters depend on each other in a circle.
    #[error("{parameter} depends on itself, directly or through others")]
    Circle {
        /// One of them.
        parameter: &'static str,
    },
    /// An optimizer named for its momentum, which is 0 by default.
    #[error("optimizer {optimizer} needs a momentum above 0")]
    NoMomentum {
        /// The optimizer.
        optimizer: &'static str,
    },
    /// A grid has an end only if every hyperparameter has a finite number of values.
    #[error("a grid needs a finite number of values, but {distribution} has no end of them")]
    EndlessGrid {
        /// The distribution.
        distribution: &'static str,
    },
    /// The grid is too large to be meant.
    #[error("this grid has {} trials; the limit is {MAX_GRID}", Many(*trials))]
    GridTooLarge {
        /// How many trials it would have.
        trials: u128,
    },
    /// A search would have more trials than any can.
    #[error("a search may have {MAX_TRIALS} trials, not {run_cap}")]
    TooManyTrials {
        /// How many it asks for.
        run_cap: u64,
    },
    /// Conditions make too many different combinations.
    #[error("the conditions (`when`) make too many different combinations")]
    TooManyConditions,
    /// A random search does not say when it is done.
    #[error("a random search needs `run_cap`, the number of trials after which it is done")]
    NoRunCap,
    /// A number that must be at least 1 is 0.
    #[error("this must be at least 1")]
    Zero,
    /// Nothing is searched.
    #[error("the search has no parameters")]
    NoParameters,
    /// There is no point.
    #[error("the list of points is empty")]
    NoPoints,
    /// Points are listed, but the method makes its own.
    #[error("the method {method} makes its own points, but `points` lists some")]
    UnusedPoints {
        /// The method.
        method: Method,
    },
    /// Beside a list of points, a hyperparameter is not one value for all of them.
    #[error("beside `points`, {parameter} can only be one value that all points share")]
    NotShared {
        /// The hyperparameter.
        parameter: &'static str,
    },
    /// A point is in the list twice.
    #[error("this is the same as point {first} of the list")]
    DuplicatePoint {
        /// Which one it repeats, counted from 1.
        first: usize,
    },
}

/// A number that stops being exact where it stops to matter.
struct Many(u128);

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < u128::from(u64::MAX) { self.0.fmt(f) } else { f.write_str("more than 10^19") }
    }
}

impl Problem {
    /// What to do about it, where the message does not say it already.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotPositive { .. } => "give the smallest value that is worth trying, say 1e-5",
            Self::NotWhole { .. } => {
                "use int_uniform, q_uniform or q_log_uniform_values with a whole q, or list `values`"
            }
            Self::Bounds { .. } => "exchange them, or write one `value`",
            Self::NoMultiples { .. } => "give a q that fits between min and max",
            Self::OutOfReach { .. } => {
                "mu and sigma are of the value itself for normal, of its natural logarithm for log_normal"
            }
            Self::TooManyValues { .. } => "give `min` and `max`, and `q` for steps between them",
            Self::NoValues => "list at least one value",
            Self::DuplicateValue { .. } => "list each value once; `probabilities` makes one more frequent",
            Self::ProbabilityCount { .. } => "give one probability for each of the values",
            Self::GivenTwice { .. } => "keep one of the two",
            Self::UnknownController { .. } => "add it to `parameters`, with a `value` or with `values`",
            Self::DrawnController { .. } => "give it a `value` or list its `values`",
            Self::Circle { .. } => "take one of the `when` away",
            Self::NoMomentum { .. } => "add `momentum: {value: 0.9}`, or take optimizer sgd",
            Self::EndlessGrid { .. } => {
                "list `values`, use a q_ distribution that draws multiples of `q`, or use `method: random`"
            }
            Self::GridTooLarge { .. } => "list fewer values, or use `method: random` with a `run_cap`",
            Self::TooManyTrials { .. } => "give a smaller `run_cap`; launch another search when it is done",
            Self::NoRunCap => "add, say, `run_cap: 50`",
            Self::NoParameters => {
                "add `parameters:` with at least one hyperparameter, or a list of `points:`"
            }
            Self::NoPoints => "list at least one point, as `- {optimizer: adam, learning_rate: 0.001}`",
            Self::UnusedPoints { .. } => "take `method` or `points` away",
            Self::NotShared { .. } => "give it a `value` without `when`, or name it in each point",
            Self::DuplicatePoint { .. } => "take it away; `replicates` runs every point several times",
            Self::Value(_)
            | Self::NotFinite { .. }
            | Self::Step { .. }
            | Self::Sigma { .. }
            | Self::Probability { .. }
            | Self::ProbabilitySum { .. }
            | Self::TooManyConditions
            | Self::Zero => return None,
        })
    }
}
