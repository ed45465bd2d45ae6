//! Values, and what values a hyperparameter may take.

use std::fmt;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

/// The value of one hyperparameter. Which kind a hyperparameter takes is said by its [`Domain`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One of the words of a [`Domain::Choice`].
    Choice(&'static str),
    /// A finite number.
    Number(f64),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Flag(bool),
    /// Sizes of layers, from the input's side to the output's.
    Sizes(Box<[u32]>),
}

/// What values a hyperparameter may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Domain {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A finite number between two bounds.
    Number {
        /// The lower bound.
        min: Bound,
        /// The upper bound.
        max: Bound,
    },
    /// A whole number from `min` to `max`, both allowed.
    Integer {
        /// The smallest value.
        min: i64,
        /// The largest value.
        max: i64,
    },
    /// True or false.
    Flag,
    /// 1 to `max_layers` sizes of 1 to `max_size` each.
    Sizes {
        /// The most sizes.
        max_layers: usize,
        /// The largest size.
        max_size: u32,
    },
}

/// One end of a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The bound itself is allowed.
    Included(f64),
    /// The bound itself is not allowed.
    Excluded(f64),
}

/// A default, in a form that can stand in a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DefaultValue {
    /// For [`Domain::Choice`].
    Choice(&'static str),
    /// For [`Domain::Number`].
    Number(f64),
    /// For [`Domain::Integer`].
    Integer(i64),
    /// For [`Domain::Flag`].
    Flag(bool),
    /// For [`Domain::Sizes`].
    Sizes(&'static [u32]),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Number { min, max } => {
                match min {
                    Bound::Included(bound) => write!(f, "a number from {bound}")?,
                    Bound::Excluded(bound) => write!(f, "a number above {bound}")?,
                }
                match max {
                    Bound::Included(bound) => write!(f, " up to {bound}"),
                    Bound::Excluded(bound) => write!(f, " to below {bound}"),
                }
            }
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Flag => f.write_str("true or false"),
            Self::Sizes { max_layers, max_size } => {
                write!(f, "a list of 1 to {max_layers} sizes from 1 to {max_size}")
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(word) => f.pad(word),
            Self::Number(number) if *number != 0.0 && !(1e-3..1e6).contains(&number.abs()) => {
                write!(f, "{number:e}")
            }
            Self::Number(number) => number.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Sizes(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
                f.pad(&sizes.join("-"))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Choice(word) => serializer.serialize_str(word),
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Sizes(sizes) => {
                let mut list = serializer.serialize_seq(Some(sizes.len()))?;
                for size in sizes {
                    list.serialize_element(size)?;
                }
                list.end()
            }
        }
    }
}
