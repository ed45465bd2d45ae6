//! How a simulated worker brings checkpoints to the coordinator, beside its training: one at a time, the
//! newest, and without trying again.

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::id::{ArtifactHash, Attempt};

use super::Machine;
use crate::message::{Answer, Call, Caller, Line};

/// A checkpoint on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    attempt: Attempt,
    checkpoint: Checkpoint,
    is_stored: bool,
    call: u64,
}

impl Machine {
    /// The trainer has written a checkpoint, which takes the place of one on its way.
    pub(super) fn bring(&mut self, slot: usize, attempt: Attempt, place: CheckpointPlace) -> Call {
        let hash = ArtifactHash::of(format!("{attempt} {place:?}").as_bytes());
        let checkpoint = Checkpoint { place, hash };
        let from = self.keeper(slot);
        self.slots[slot].keeping = Some(Keeping { attempt, checkpoint, is_stored: false, call: from.call });
        Call::Upload(from, attempt, checkpoint)
    }

    /// Names a checkpoint that is stored, once the epochs in it are known.
    pub(super) fn name(&mut self, slot: usize) -> Option<Call> {
        let answered = self.slots[slot].answered;
        let is_due = |it: &mut Keeping| it.is_stored && it.checkpoint.place.epoch <= answered;
        let Keeping { attempt, checkpoint, .. } = self.slots[slot].keeping.take_if(is_due)?;
        Some(Call::Keep(self.keeper(slot), attempt, checkpoint))
    }

    /// Takes an answer about a checkpoint.
    pub(crate) fn hear_of_checkpoint(&mut self, to: Caller, answer: &Answer) -> Option<Call> {
        let keeping = &mut self.slots.get_mut(to.slot)?.keeping;
        let waits = keeping.as_mut().filter(|keeping| keeping.call == to.call)?;
        if matches!(answer, Answer::Uploaded) {
            waits.is_stored = true;
            return self.name(to.slot);
        }
        *keeping = None;
        None
    }

    fn keeper(&mut self, slot: usize) -> Caller {
        self.calls += 1;
        let line = Line::Checkpoints;
        Caller { machine: self.number, worker: self.worker(), slot, line, call: self.calls }
    }
}
