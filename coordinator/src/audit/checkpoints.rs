//! The rules of checkpoints: what an attempt begins after, and what may be kept and lost.

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::{ArtifactHash, Attempt, TrialId};
use fittingroom_common::trial::Report;

use super::{Audit, Phase, Violation};
use crate::search::KEPT_CHECKPOINTS;

/// What a trial without an outcome has to go on from.
#[derive(Debug, Default)]
pub(super) struct Continuation {
    /// The newest last.
    kept: Vec<Checkpoint>,
    /// Of each epoch that counts, from the first.
    told: Vec<Report>,
}

impl Continuation {
    fn done(&self) -> u32 {
        self.kept.last().map_or(0, |checkpoint| checkpoint.place.epoch)
    }

    /// Begins at the newest checkpoint; answers the report of the epochs that are done in it.
    fn begin(&mut self) -> Option<Report> {
        self.told.truncate(self.done() as usize);
        self.told.last().copied()
    }

    pub(super) fn tell(&mut self, report: Report) {
        self.told.push(report);
    }
}

impl Audit {
    /// Puts a trial back to its newest checkpoint; answers the epoch that its attempt reports first.
    pub(super) fn begin_anew(&mut self, id: TrialId) -> u32 {
        let Some(trial) = self.trial_mut(id) else { return 1 };
        trial.report = trial.continuation.begin();
        trial.continuation.done() + 1
    }

    pub(super) fn keep(&mut self, attempt: Attempt, checkpoint: Checkpoint) {
        if !self.must_run(attempt) {
            return;
        }
        let Some(trial) = self.trial_mut(attempt.trial) else { return };
        let reported = trial.report.map_or(0, |report| report.epoch);
        let newest = trial.continuation.kept.last().map(|kept| kept.place);
        trial.continuation.kept.push(checkpoint);
        if trial.continuation.kept.len() > KEPT_CHECKPOINTS {
            trial.continuation.kept.remove(0);
        }
        let epoch = checkpoint.place.epoch;
        if epoch > reported {
            self.find(Violation::CheckpointAhead { attempt, epoch, reported });
        }
        if newest.is_some_and(|newest| newest >= checkpoint.place) {
            self.find(Violation::CheckpointOutOfOrder { attempt });
        }
    }

    pub(super) fn lose(&mut self, attempt: Attempt, hash: ArtifactHash) {
        if !self.must_run(attempt) {
            return;
        }
        let Some(trial) = self.trial_mut(attempt.trial) else { return };
        let Phase::Running { next_epoch, .. } = trial.phase else { return };
        let continuation = &mut trial.continuation;
        let is_newest = continuation.kept.last().is_some_and(|kept| kept.hash == hash);
        if !is_newest || next_epoch != continuation.done() + 1 {
            return self.find(Violation::LostNotBegunAt { attempt });
        }
        continuation.kept.pop();
        let first = self.begin_anew(attempt.trial);
        if let Some(trial) = self.trial_mut(attempt.trial)
            && let Phase::Running { next_epoch, .. } = &mut trial.phase
        {
            *next_epoch = first;
        }
    }
}
