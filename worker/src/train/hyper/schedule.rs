//! How learning rates change.

use super::SettingsError;
use super::read::{Reader, unknown};

/// A form of the learning rate over a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Always the same.
    Constant,
    /// Multiplied by `gamma` every so many epochs.
    Step {
        /// How many epochs.
        epochs: u32,
        /// What it is multiplied by.
        gamma: f64,
    },
    /// Multiplied by `gamma` every epoch.
    Exponential {
        /// What it is multiplied by.
        gamma: f64,
    },
    /// Rising in a line, then falling by half a cosine.
    Cosine {
        /// Epochs of the rise.
        warmup_epochs: f64,
        /// Where it falls to, as a part of the learning rate.
        final_factor: f64,
    },
    /// Rising and falling once, by half cosines.
    OneCycle {
        /// The part of all steps in which it rises.
        pct_start: f64,
        /// What the learning rate is divided by at the start.
        div_factor: f64,
        /// What the start is divided by at the end.
        final_div_factor: f64,
    },
    /// Multiplied by `gamma` when the validation loss falls no more.
    ReduceOnPlateau {
        /// What it is multiplied by.
        gamma: f64,
        /// Epochs without a better validation loss that are let pass.
        patience: u32,
    },
}

impl Schedule {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        let gamma = read.number("schedule_gamma")?;
        match read.choice("schedule")? {
            "constant" => Ok(Self::Constant),
            "step" => Ok(Self::Step { epochs: read.integer("schedule_step_epochs")? as u32, gamma }),
            "exponential" => Ok(Self::Exponential { gamma }),
            "cosine" => Ok(Self::Cosine {
                warmup_epochs: read.number("warmup_epochs")?,
                final_factor: read.number("final_factor")?,
            }),
            "one_cycle" => Ok(Self::OneCycle {
                pct_start: read.number("pct_start")?,
                div_factor: read.number("div_factor")?,
                final_div_factor: read.number("final_div_factor")?,
            }),
            "reduce_on_plateau" => {
                Ok(Self::ReduceOnPlateau { gamma, patience: read.integer("schedule_patience")? as u32 })
            }
            other => Err(unknown("schedule", other)),
        }
    }
}
