//! When `train` writes its checkpoint: every so often, and when it is told to end.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::Device;
use fittingroom_common::record::Recipe;

use super::TrainCommandError;
use super::plan::note_other_machine;
use crate::signals;
use crate::train::checkpoint::cadence::{Cadence, Due};
use crate::train::checkpoint::{self, Checkpoint};
use crate::train::save::{SaveError, remove_parts};
use crate::train::state::State;

/// How often a checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// After so many steps.
    Steps(NonZeroU32),
    /// After so much time, at the next step.
    Time(Duration),
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it takes a number of steps, as 500, or of seconds, as 30s".to_owned();
        match text.strip_suffix('s') {
            Some(seconds) => {
                let seconds: NonZeroU32 = seconds.parse().map_err(|_| wrong())?;
                Ok(Self::Time(Duration::from_secs(seconds.get().into())))
            }
            None => text.parse().map(Self::Steps).map_err(|_| wrong()),
        }
    }
}

impl std::fmt::Display for Every {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Time(time) => write!(f, "{}s", time.as_secs()),
        }
    }
}

/// The checkpoint of a training that runs.
pub(super) struct Checkpoints<'a> {
    path: &'a Path,
    due: Due,
    recipes: &'a [Recipe],
    told_to_end: Arc<AtomicBool>,
}

/// Whether training goes on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    GoOn,
    End,
}

impl<'a> Checkpoints<'a> {
    /// Takes up the checkpoint, if its file is there, and from now on listens for signals to end.
    pub(super) fn open(
        path: &'a Path,
        every: Every,
        recipes: &'a [Recipe],
        device: &Device,
        notes: &mut dyn Write,
    ) -> Result<(Self, Option<Checkpoint>), TrainCommandError> {
        remove_parts(path);
        let there = match path.exists() {
            true => Some(Checkpoint::read(path, recipes)?),
            false => None,
        };
        if let Some(checkpoint) = &there {
            note_other_machine(path, Some(checkpoint.program()), Some(checkpoint.machine()), device, notes)?;
            let (epoch, step) = (checkpoint.epoch(), checkpoint.step());
            writeln!(notes, "going on from {}: epoch {epoch}, after step {step}", path.display())?;
        }
        let told_to_end = Arc::new(AtomicBool::new(false));
        signals::watch(told_to_end.clone())?;
        let cadence = match every {
            Every::Steps(steps) => Cadence { steps: Some(steps), ..Cadence::default() },
            Every::Time(time) => Cadence { time: Some(time), ..Cadence::default() },
        };
        let due = Due::new(cadence, there.as_ref().map_or(1, Checkpoint::epoch));
        Ok((Self { path, due, recipes, told_to_end }, there))
    }

    /// Writes the checkpoint if it is time to, or if training is to end.
    pub(super) fn after_step(&mut self, state: &State) -> Result<Told, SaveError> {
        let is_due = self.due.after_step(state);
        let told = match self.told_to_end.load(Ordering::Relaxed) {
            true => Told::End,
            false => Told::GoOn,
        };
        if is_due || told == Told::End {
            checkpoint::save(self.path, state, self.recipes)?;
            self.due.made(state);
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_is_said_in_steps_or_seconds() {
        for text in ["1", "500", "30s"] {
            assert_eq!(text.parse::<Every>().map(|every| every.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "s", "0", "0s", "-1", "1.5s", "2m"] {
            assert!(text.parse::<Every>().is_err(), "{text:?}");
        }
    }
}
