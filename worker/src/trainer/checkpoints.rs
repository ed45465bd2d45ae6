//! The checkpoints of a trial that a trainer trains: each in a file of its own, which is the agent's
//! from when it is told.

use std::path::PathBuf;
use std::time::Duration;

use fittingroom_common::record::Recipe;

use super::protocol::{self, Event, ResumeFrom};
use crate::train::checkpoint::cadence::{Cadence, Due};
use crate::train::checkpoint::{self, Checkpoint};
use crate::train::state::State;

/// Makes the checkpoints of one trial.
pub(super) struct Checkpoints<'a> {
    folder: &'a PathBuf,
    due: Due,
    recipes: &'a [Recipe],
}

impl<'a> Checkpoints<'a> {
    /// Training begins, in this epoch, from 1.
    pub(super) fn new(command: &'a protocol::Checkpoints, recipes: &'a [Recipe], epoch: u32) -> Self {
        let time = command.every_seconds.map(|seconds| Duration::from_secs(seconds.get().into()));
        let cadence = Cadence { steps: None, epochs: command.every_epochs, time };
        Self { folder: &command.folder, due: Due::new(cadence, epoch), recipes }
    }

    /// Counts a step; whether a checkpoint is due now.
    pub(super) fn is_due(&mut self, state: &State) -> bool {
        self.due.after_step(state)
    }

    /// Writes a checkpoint; the event that tells of it. One that cannot be written is no reason to
    /// give up a training that goes well, but people are to know.
    pub(super) fn write(&mut self, id: &str, state: &State) -> Option<Event> {
        self.due.made(state);
        let (epoch, step) = (state.epoch - 1, u32::try_from(state.step).ok()?);
        let file = self.folder.join(format!("checkpoint-{epoch}-{step}"));
        match checkpoint::save(&file, state, self.recipes) {
            Ok(()) => Some(Event::Checkpoint { id: id.to_owned(), file, epoch, step }),
            Err(error) => {
                let problem = format!("no checkpoint of epoch {epoch}, step {step}: {error}");
                Some(Event::Warned { id: id.to_owned(), problem })
            }
        }
    }
}

/// The checkpoint to go on from; or what is wrong with it.
pub(super) fn read(from: &ResumeFrom, recipes: &[Recipe]) -> Result<Checkpoint, String> {
    let checkpoint = Checkpoint::read(&from.file, recipes).map_err(|error| error.to_string())?;
    let (epoch, step) = (u64::from(checkpoint.epoch()), checkpoint.step() as u64);
    if (epoch, step) != (u64::from(from.epoch) + 1, u64::from(from.step)) {
        let (wanted, found) = ((from.epoch, from.step), (epoch.saturating_sub(1), step));
        return Err(format!("it is at (epoch, step) {found:?}, but is said to be at {wanted:?}"));
    }
    Ok(checkpoint)
}
