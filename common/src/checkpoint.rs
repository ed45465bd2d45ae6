//! Checkpoints of running trials: what they are to a search, and when they are made.

use std::num::NonZeroU32;

use crate::id::ArtifactHash;

/// The state of a trial's training, as a stored file from which any worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How far training had come.
    pub place: CheckpointPlace,
    /// The stored file.
    pub hash: ArtifactHash,
}

/// How far training had come when a checkpoint was made. The order is that of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointPlace {
    /// Epochs done.
    pub epoch: u32,
    /// Steps done in the epoch after those.
    pub step: u32,
}

/// When a checkpoint is due: as soon as one of these has passed since the last one, or since the attempt began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRule {
    /// Epochs that were finished.
    pub every_epochs: Option<NonZeroU32>,
    /// Seconds of training.
    pub every_seconds: Option<NonZeroU32>,
}

impl CheckpointRule {
    /// No checkpoints.
    pub const NEVER: Self = Self { every_epochs: None, every_seconds: None };

    /// Whether there are checkpoints at all.
    pub const fn makes_some(&self) -> bool {
        self.every_epochs.is_some() || self.every_seconds.is_some()
    }
}

impl Default for CheckpointRule {
    /// Every 60 seconds.
    fn default() -> Self {
        Self { every_epochs: None, every_seconds: NonZeroU32::new(60) }
    }
}
