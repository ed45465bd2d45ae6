//! How the values of a hyperparameter are spread, with the meaning that W&B's sweeps give them.

use crate::hyperparameter::{Parameter, Value};

/// How the values of a hyperparameter are spread. Bounds are always values, never exponents.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Always this value.
    Constant(Value),
    /// One of these values.
    Categorical {
        /// The values, all different.
        values: Vec<Value>,
        /// How probable each is; all alike if nothing is said.
        probabilities: Option<Vec<f64>>,
    },
    /// Whole numbers, all alike.
    IntUniform {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// Numbers between two bounds.
    Range {
        /// Where numbers are dense.
        scale: Scale,
        /// The lower bound.
        min: f64,
        /// The upper bound.
        max: f64,
        /// Only multiples of this that lie between the bounds.
        q: Option<f64>,
    },
    /// Numbers around a mean. A draw outside the hyperparameter's domain is drawn again.
    Normal {
        /// Whether the number or its logarithm is normal.
        bell: Bell,
        /// The mean, of the logarithm if that is what is normal.
        mu: f64,
        /// The standard deviation, likewise.
        sigma: f64,
        /// Rounded to a multiple of this.
        q: Option<f64>,
    },
}

/// Where the numbers of a [`Distribution::Range`] are dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly between the bounds.
    Uniform,
    /// The logarithm is evenly spread. W&B's inverse log uniform is the same distribution.
    LogUniform,
}

/// What is normal in a [`Distribution::Normal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bell {
    /// The number.
    Normal,
    /// Its logarithm.
    LogNormal,
}

/// The multiples of a step that lie in a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multiples {
    first: i64,
    last: i64,
    step: f64,
}

impl Multiples {
    /// The multiples of `step` from `low` to `high`; `None` if there are none, or more than can be told apart.
    pub fn within(low: f64, high: f64, step: f64) -> Option<Self> {
        // A multiple that misses a bound by rounding alone is the bound: 0.3 / 0.1 is 2.9999999999999996.
        const ROUNDING: f64 = 1e-9;
        const EXACT: f64 = 9e15;
        let (first, last) = ((low / step - ROUNDING).ceil(), (high / step + ROUNDING).floor());
        let fits = step > 0.0 && first.abs() < EXACT && last.abs() < EXACT && first <= last;
        fits.then_some(Self { first: first as i64, last: last as i64, step })
    }

    /// How many there are.
    pub fn count(self) -> u64 {
        self.last.abs_diff(self.first).saturating_add(1)
    }

    /// The multiple at a place, counted from 0 at the smallest.
    pub fn at(self, index: u64) -> f64 {
        multiple(self.first.saturating_add_unsigned(index).min(self.last) as f64, self.step)
    }

    /// The multiple nearest to a number.
    pub fn nearest(self, number: f64) -> f64 {
        multiple((number / self.step).round().clamp(self.first as f64, self.last as f64), self.step)
    }
}

/// `count * step`, without the last digits that only rounding put there: 3 * 0.1 is 0.3.
pub(crate) fn multiple(count: f64, step: f64) -> f64 {
    let product = count * step;
    format!("{product:.12e}").parse().unwrap_or(product)
}

impl Distribution {
    /// Its name in search files.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Constant(_) => "constant",
            Self::Categorical { .. } => "categorical",
            Self::IntUniform { .. } => "int_uniform",
            Self::Range { scale: Scale::Uniform, q: None, .. } => "uniform",
            Self::Range { scale: Scale::Uniform, q: Some(_), .. } => "q_uniform",
            Self::Range { scale: Scale::LogUniform, q: None, .. } => "log_uniform_values",
            Self::Range { scale: Scale::LogUniform, q: Some(_), .. } => "q_log_uniform_values",
            Self::Normal { bell: Bell::Normal, q: None, .. } => "normal",
            Self::Normal { bell: Bell::Normal, q: Some(_), .. } => "q_normal",
            Self::Normal { bell: Bell::LogNormal, q: None, .. } => "log_normal",
            Self::Normal { bell: Bell::LogNormal, q: Some(_), .. } => "q_log_normal",
        }
    }

    /// How many values it has; `None` if it has no end of them.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Constant(_) => Some(1),
            Self::Categorical { values, .. } => Some(values.len() as u64),
            Self::IntUniform { min, max } => Some(max.abs_diff(*min).saturating_add(1)),
            Self::Range { .. } => self.multiples().map(Multiples::count),
            Self::Normal { .. } => None,
        }
    }

    /// Whether it has a finite number of values, all equally probable.
    pub fn is_even(&self) -> bool {
        match self {
            Self::Constant(_) | Self::IntUniform { .. } => true,
            Self::Categorical { probabilities, .. } => probabilities.is_none(),
            Self::Range { scale, q, .. } => *scale == Scale::Uniform && q.is_some(),
            Self::Normal { .. } => false,
        }
    }

    /// The multiples that a [`Distribution::Range`] with a `q` draws from.
    pub fn multiples(&self) -> Option<Multiples> {
        let Self::Range { min, max, q: Some(q), .. } = self else {
            return None;
        };
        Multiples::within(*min, *max, *q)
    }

    /// The value at a place, counted from 0, of a distribution that has a [`size`](Self::size).
    pub fn value(&self, parameter: Parameter, index: u64) -> Option<Value> {
        match self {
            Self::Constant(value) => (index == 0).then(|| value.clone()),
            Self::Categorical { values, .. } => values.get(usize::try_from(index).ok()?).cloned(),
            Self::IntUniform { min, .. } => parameter.integer(min.checked_add_unsigned(index)?).ok(),
            Self::Range { .. } => parameter.number(self.multiples()?.at(index)).ok(),
            Self::Normal { .. } => None,
        }
    }
}
