//! How images become what a model takes.

use super::SettingsError;
use super::read::{Reader, unknown};

/// What grey values are standardised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputStandardization {
    /// The mean and deviation of all images trained on.
    Dataset,
    /// Nothing: they are brought to 0 to 1.
    Unit,
    /// The mean and deviation of each image itself.
    PerImage,
}

impl InputStandardization {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("input_standardization")? {
            "dataset" => Ok(Self::Dataset),
            "unit" => Ok(Self::Unit),
            "per_image" => Ok(Self::PerImage),
            other => Err(unknown("input_standardization", other)),
        }
    }
}
