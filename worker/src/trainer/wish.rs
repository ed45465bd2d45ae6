//! What the agent wishes of a job while it runs.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the agent wishes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// That it goes on.
    GoOn,
    /// That it ends after a last checkpoint.
    Suspend,
    /// That it ends.
    Stop,
}

/// The wish of the moment, between the thread that reads commands and the one that carries them out.
#[derive(Debug, Default)]
pub(super) struct Wishes(AtomicU8);

impl Wishes {
    /// Wishes this, unless more was wished already.
    pub(super) fn set(&self, wish: Wish) {
        self.0.fetch_max(wish as u8, Ordering::Relaxed);
    }

    /// What is wished now.
    pub(super) fn now(&self) -> Wish {
        match self.0.load(Ordering::Relaxed) {
            0 => Wish::GoOn,
            1 => Wish::Suspend,
            _ => Wish::Stop,
        }
    }
}
