//! Where weights begin.

use super::SettingsError;
use super::read::{Reader, unknown};

/// A distribution of initial weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialization {
    /// Normal around 0.
    Normal {
        /// Its standard deviation.
        deviation: f64,
    },
    /// Glorot and Bengio's, normal.
    XavierNormal,
    /// Glorot and Bengio's, uniform.
    XavierUniform,
    /// He's, normal.
    KaimingNormal,
    /// He's, uniform.
    KaimingUniform,
}

impl Initialization {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("initialization")? {
            "normal" => Ok(Self::Normal { deviation: read.number("initialization_std")? }),
            "xavier_normal" => Ok(Self::XavierNormal),
            "xavier_uniform" => Ok(Self::XavierUniform),
            "kaiming_normal" => Ok(Self::KaimingNormal),
            "kaiming_uniform" => Ok(Self::KaimingUniform),
            other => Err(unknown("initialization", other)),
        }
    }
}
