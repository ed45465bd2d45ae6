//! What is done to gradients before an update.

use super::SettingsError;
use super::read::Reader;

/// What is done to a lane's gradients, in this order; 0 is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientSettings {
    /// What is added in the direction of a weight's sign.
    pub l1: f64,
    /// The largest size of a gradient's number.
    pub clip_value: f64,
    /// The largest Euclidean norm of all gradients together.
    pub clip_norm: f64,
}

impl GradientSettings {
    /// Gradients stay as they are.
    pub const OFF: Self = Self { l1: 0.0, clip_value: 0.0, clip_norm: 0.0 };

    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        Ok(Self {
            l1: read.number("l1")?,
            clip_value: read.number("clip_value")?,
            clip_norm: read.number("clip_norm")?,
        })
    }
}
