//! Checkpoints of trials that are not over: which are kept, where an attempt begins, and which are
//! of no more use.
//!
//! An attempt begins at the newest checkpoint that is kept, and reports the epochs after those in
//! it. The newest two are kept, so that there is one to fall back on; when the trial ends, all go.

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::convert::DecodeError;
use fittingroom_common::event::Fact;
use fittingroom_common::id::{ArtifactHash, Attempt, TrialId, WorkerId};
use fittingroom_common::proto as pb;
use fittingroom_common::trial::Report;

use super::{Rejection, Search};

/// How many checkpoints of a trial are kept: the newest, and one to fall back on.
pub const KEPT_CHECKPOINTS: usize = 2;

/// What the next attempt at a trial can go on from.
#[derive(Clone, Debug, Default)]
pub(super) struct Resumption {
    /// At most [`KEPT_CHECKPOINTS`], the newest last.
    kept: Vec<Kept>,
    /// What the running attempt has reported beyond the newest of them: a checkpoint is named some
    /// time after it was made.
    beyond: Vec<Report>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    checkpoint: Checkpoint,
    /// Of the last epoch that is done in it.
    report: Option<Report>,
}

/// Stored checkpoints that are of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// One of a trial, which may have others.
    One {
        /// The trial.
        trial: TrialId,
        /// The checkpoint.
        hash: ArtifactHash,
    },
    /// Whatever a trial has: it is over.
    All {
        /// The trial.
        trial: TrialId,
    },
}

impl Resumption {
    fn newest(&self) -> Option<&Kept> {
        self.kept.last()
    }

    /// Notes the report of the running attempt's next epoch.
    pub(super) fn reported(&mut self, report: Report) {
        self.beyond.push(report);
    }

    /// A new attempt begins; the answer is the report that it begins after.
    pub(super) fn begin(&mut self) -> Option<Report> {
        self.beyond.clear();
        self.newest().and_then(|newest| newest.report)
    }

    fn keep(&mut self, checkpoint: Checkpoint) -> Option<ArtifactHash> {
        let epoch = checkpoint.place.epoch;
        let mut reports = self.kept.iter().filter_map(|kept| kept.report).chain(self.beyond.iter().copied());
        let report = reports.find(|report| report.epoch == epoch);
        self.beyond.retain(|report| report.epoch > epoch);
        self.kept.push(Kept { checkpoint, report });
        (self.kept.len() > KEPT_CHECKPOINTS).then(|| self.kept.remove(0).checkpoint.hash)
    }
}

impl From<&Resumption> for pb::ResumptionSnapshot {
    fn from(Resumption { kept, beyond }: &Resumption) -> Self {
        let kept = kept.iter().map(|Kept { checkpoint, report }| pb::KeptCheckpoint {
            checkpoint: Some((*checkpoint).into()),
            report: report.map(Into::into),
        });
        Self { kept: kept.collect(), beyond: beyond.iter().map(|report| (*report).into()).collect() }
    }
}

impl TryFrom<pb::ResumptionSnapshot> for Resumption {
    type Error = DecodeError;

    fn try_from(snapshot: pb::ResumptionSnapshot) -> Result<Self, DecodeError> {
        let pb::ResumptionSnapshot { kept, beyond } = snapshot;
        let kept = kept.into_iter().map(|pb::KeptCheckpoint { checkpoint, report }| {
            let checkpoint = checkpoint.ok_or(DecodeError::Missing("checkpoint"))?.try_into()?;
            Ok(Kept { checkpoint, report: report.map(Report::try_from).transpose()? })
        });
        let beyond = beyond.into_iter().map(Report::try_from);
        Ok(Self {
            kept: kept.collect::<Result<_, DecodeError>>()?,
            beyond: beyond.collect::<Result<_, _>>()?,
        })
    }
}

impl Search {
    /// Whether this is the attempt that counts, and this worker has it.
    pub fn is_held(&self, attempt: Attempt, worker: WorkerId) -> bool {
        self.running(attempt, worker).is_ok()
    }

    /// Every checkpoint that is kept.
    pub fn checkpoints(&self) -> impl Iterator<Item = (TrialId, ArtifactHash)> {
        self.trials.iter().zip(0..).flat_map(|(trial, number)| {
            let kept = trial.resumption.iter().flat_map(|it| &it.kept);
            kept.map(move |kept| (TrialId::new(number), kept.checkpoint.hash))
        })
    }

    /// Whether a trial may go on from this checkpoint.
    pub fn keeps_checkpoint(&self, trial: TrialId, hash: ArtifactHash) -> bool {
        self.resume_from(trial).iter().any(|kept| kept.hash == hash)
    }

    /// What an attempt at a trial may go on from, the newest first.
    pub(super) fn resume_from(&self, trial: TrialId) -> Vec<Checkpoint> {
        let resumption = self.trial(trial).and_then(|trial| trial.resumption.as_deref());
        resumption.map_or_else(Vec::new, |it| it.kept.iter().rev().map(|kept| kept.checkpoint).collect())
    }

    /// Checkpoints that the events since the last call have made useless; they may be deleted as
    /// soon as those events are durable.
    pub fn take_discards(&mut self) -> Vec<Discard> {
        std::mem::take(&mut self.discards)
    }

    pub(super) fn keep(
        &self,
        attempt: Attempt,
        worker: WorkerId,
        checkpoint: Checkpoint,
    ) -> Result<Vec<Fact>, Rejection> {
        let (trial, _) = self.running(attempt, worker)?;
        let reported = trial.report.map_or(0, |report| report.epoch);
        let CheckpointPlace { epoch, .. } = checkpoint.place;
        if epoch > reported {
            return Err(Rejection::CheckpointAhead { attempt, epoch, reported });
        }
        let is_known = |kept: &Checkpoint| kept.place >= checkpoint.place || kept.hash == checkpoint.hash;
        if !self.created.spec.checkpoint.makes_some() || self.resume_from(attempt.trial).iter().any(is_known)
        {
            return Ok(Vec::new());
        }
        Ok(vec![Fact::CheckpointKept { attempt, checkpoint }])
    }

    pub(super) fn lose(
        &self,
        attempt: Attempt,
        worker: WorkerId,
        hash: ArtifactHash,
        problem: String,
    ) -> Result<Vec<Fact>, Rejection> {
        let (trial, _) = self.running(attempt, worker)?;
        let Some(resumption) = &trial.resumption else {
            return Ok(Vec::new());
        };
        if resumption.newest().is_none_or(|newest| newest.checkpoint.hash != hash) {
            return Ok(Vec::new());
        }
        if !resumption.beyond.is_empty() {
            return Err(Rejection::WrongOutcome { attempt, problem: "it has gone on from its checkpoint" });
        }
        Ok(vec![Fact::CheckpointLost { attempt, hash, problem }])
    }

    pub(super) fn apply_kept(&mut self, attempt: Attempt, checkpoint: Checkpoint) {
        let Some(trial) = self.trial_mut(attempt.trial) else { return };
        let useless = trial.resumption.get_or_insert_default().keep(checkpoint);
        self.discards.extend(useless.map(|hash| Discard::One { trial: attempt.trial, hash }));
    }

    pub(super) fn apply_lost(&mut self, attempt: Attempt, hash: ArtifactHash) {
        let Some(trial) = self.trial_mut(attempt.trial) else { return };
        if let Some(resumption) = &mut trial.resumption {
            resumption.kept.retain(|kept| kept.checkpoint.hash != hash);
            trial.report = resumption.begin();
        }
        self.discards.push(Discard::One { trial: attempt.trial, hash });
    }

    /// A trial is over.
    pub(super) fn forget_checkpoints(&mut self, id: TrialId) {
        if let Some(trial) = self.trial_mut(id) {
            trial.resumption = None;
        }
        self.discards.push(Discard::All { trial: id });
    }
}
