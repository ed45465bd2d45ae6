//! The only conversions between generated messages and domain types: parse, don't validate.
//!
//! Into a message is `From`, out of one is `TryFrom` with [`DecodeError`], since every message may
//! come from a stranger. One file a subject.

mod event;
mod gpu;
mod operator;
mod search;
mod trial;
mod view;
mod work;

pub use gpu::MAX_GPUS;
pub use work::{MAX_DESCRIPTION, MAX_SLOTS};

use crate::hyperparameter::ValueError;
use crate::id::IdError;
use crate::space::SpecError;

/// Why a message is not what it should be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A field that must be there is not.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A number that must be finite is not.
    #[error("the field {0} is not a finite number")]
    NotFinite(&'static str),
    /// A number is outside of what the field allows.
    #[error("the field {field} cannot be {value}; it takes {allowed}")]
    Outside {
        /// The field.
        field: &'static str,
        /// The value as it came.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// An enumeration has a number that this version does not know.
    #[error("the field {field} has the unknown value {value}")]
    UnknownEnum {
        /// The field.
        field: &'static str,
        /// The number as it came.
        value: i32,
    },
    /// Bytes that should be a hash or an id have another length.
    #[error("the field {field} has {found} bytes where {needed} are needed")]
    Length {
        /// The field.
        field: &'static str,
        /// The number of bytes that came.
        found: usize,
        /// The number of bytes that it takes.
        needed: usize,
    },
    /// More entries than the field allows.
    #[error("the field {field} has {found} entries; at most {most} are allowed")]
    TooMany {
        /// The field.
        field: &'static str,
        /// The number of entries that came.
        found: usize,
        /// The most that it takes.
        most: usize,
    },
    /// A hyperparameter is not the catalogue's.
    #[error(transparent)]
    Hyperparameter(#[from] ValueError),
    /// A name or an identifier is unusable.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Bytes are not a message at all.
    #[error("the bytes are not a message: {0}")]
    Malformed(String),
    /// A search breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl From<&prost::DecodeError> for DecodeError {
    fn from(error: &prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The bytes of a field that must have exactly `N`.
pub(crate) fn exactly<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Length { field, found: bytes.len(), needed: N })
}

/// The value of a field that must be there.
pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing(field))
}
