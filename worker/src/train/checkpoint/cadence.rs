//! When the next checkpoint is due.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::train::state::State;

/// After how much training a checkpoint is due: as soon as one of these has passed since the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cadence {
    /// Steps.
    pub steps: Option<NonZeroU32>,
    /// Epochs that were finished.
    pub epochs: Option<NonZeroU32>,
    /// Time.
    pub time: Option<Duration>,
}

/// How much training has passed since the last checkpoint, or since it began.
#[derive(Debug)]
pub struct Due {
    cadence: Cadence,
    steps: u32,
    epoch: u32,
    since: Instant,
}

impl Due {
    /// Training begins in this epoch, from 1.
    pub fn new(cadence: Cadence, epoch: u32) -> Self {
        Self { cadence, steps: 0, epoch, since: Instant::now() }
    }

    /// Counts a step; whether a checkpoint is due now.
    pub fn after_step(&mut self, state: &State) -> bool {
        self.steps += 1;
        let Cadence { steps, epochs, time } = self.cadence;
        steps.is_some_and(|steps| self.steps >= steps.get())
            || epochs.is_some_and(|epochs| state.epoch >= self.epoch.saturating_add(epochs.get()))
            || time.is_some_and(|time| self.since.elapsed() >= time)
    }

    /// A checkpoint was made.
    pub fn made(&mut self, state: &State) {
        (self.steps, self.epoch, self.since) = (0, state.epoch, Instant::now());
    }
}
