//! PURE: a search to and from a snapshot, so that a restart reads only the events after it.
//!
//! A snapshot holds what has changed since the one before: the search's own numbers, and each trial that
//! a fact has touched. Whoever keeps it puts the trials over those kept earlier, all or none, so that
//! taking one costs as much as has happened, however many trials have ended long ago.
//!
//! What follows from other things is not kept but worked out: counts, ranks, who holds what. Every
//! structure is taken apart by name here, so that a new field that is forgotten does not compile.

use std::time::Duration;

use fittingroom_common::convert::DecodeError;
use fittingroom_common::id::{ArtifactHash, Attempt, AttemptNumber, SlotNumber, TrialId};
use fittingroom_common::proto as pb;
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{FailureReason, Report};
use fittingroom_common::view::{SearchState, SearchSummary};
use fittingroom_common::work::Holder;

use super::checkpoint::Resumption;
use super::trial::{Evaluation, Lease, Phase, Trial};
use super::{Search, State};
use crate::leaderboard::RankKey;

/// The form of a snapshot: one more whenever a field is added, since a snapshot without it would say
/// less than the events do. A snapshot of another form is not read.
const FORM: u32 = 1;

/// What has changed in a search since its last snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// All of the search but its trials. `None`: more trials have changed than are taken at a time, so
    /// that until the rest has followed there is no snapshot.
    pub head: Option<pb::SearchSnapshot>,
    /// The trials that have changed, in the order of their numbers.
    pub trials: Vec<(TrialId, pb::TrialSnapshot)>,
}

/// Why a search cannot be restored from its snapshot. Its events are read instead.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DamagedSnapshot {
    /// It was made by another version of this program.
    #[error("it has form {found}, this version's is {FORM}")]
    Form {
        /// The form that it has.
        found: u32,
    },
    /// A part of it cannot be read.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// Trials are missing or too many.
    #[error("it has {found} trials, where it says {expected}")]
    Trials {
        /// How many there are.
        found: u64,
        /// How many it says there are.
        expected: u64,
    },
}

impl Search {
    /// How many events there have been since the last whole snapshot.
    pub const fn events_since_snapshot(&self) -> u64 {
        self.version - self.snapshotted
    }

    /// What has changed since the last snapshot, `most` trials of it at most. It is to be kept, or the
    /// search to be thrown away: the next snapshot builds on it.
    pub fn take_snapshot(&mut self, most: usize) -> Snapshot {
        let taken: Vec<TrialId> = std::iter::from_fn(|| self.touched.pop_first()).take(most).collect();
        let trials = taken.into_iter().filter_map(|id| Some((id, keep_trial(self.trial(id)?)))).collect();
        let head = self.touched.is_empty().then(|| self.head());
        if head.is_some() {
            self.snapshotted = self.version;
        }
        Snapshot { head, trials }
    }

    fn head(&self) -> pb::SearchSnapshot {
        let Self {
            // From the first event.
            id: _,
            created: _,
            created_at: _,
            plan: _,
            lease: _,
            version,
            state,
            trials: all,
            // From the trials and the evaluation.
            waiting: _,
            leased: _,
            holders: _,
            counts: _,
            faults: _,
            board: _,
            models: _,
            evaluation,
            attempt_time,
            attempts_ended,
            // In memory only.
            discards: _,
            worker_names: _,
            touched: _,
            snapshotted: _,
        } = self;
        let (ended_ms, reason) = match state {
            State::Running | State::Paused => (0, String::new()),
            State::Stopping { reason } => (0, reason.clone()),
            State::Complete { at, reason } | State::Failed { at, reason } => (at.as_millis(), reason.clone()),
            State::Cancelled { at } => (at.as_millis(), String::new()),
        };
        pb::SearchSnapshot {
            form: FORM,
            version: *version,
            trials: all.len() as u64,
            state: pb::SearchState::from(self.state()).into(),
            ended_ms,
            reason,
            evaluation: Some(keep_evaluation(evaluation)),
            attempt_ms: u64::try_from(attempt_time.as_millis()).unwrap_or(u64::MAX),
            attempts_ended: *attempts_ended,
            summary: self.state().has_ended().then(|| self.summary().into()),
            best_model: self.best_model().map(ArtifactHash::to_wire).unwrap_or_default(),
        }
    }
}

/// What can be known of a search that has ended without reading its trials.
#[derive(Clone, Debug, PartialEq)]
pub struct Glance {
    /// What a list shows of it.
    pub summary: SearchSummary,
    /// The best trial's model.
    pub best_model: Option<ArtifactHash>,
}

impl Glance {
    /// What the head of a snapshot says; `None` if the search goes on.
    pub fn of(head: pb::SearchSnapshot) -> Result<Option<Self>, DamagedSnapshot> {
        if head.form != FORM {
            return Err(DamagedSnapshot::Form { found: head.form });
        }
        let best_model = ArtifactHash::from_wire_optional(&head.best_model)?;
        let summary = head.summary.map(SearchSummary::try_from).transpose()?;
        Ok(summary.map(|summary| Self { summary, best_model }))
    }
}

/// A search that is being restored, trial by trial.
#[derive(Debug)]
pub struct Restoration {
    search: Search,
    expected: u64,
}

impl Restoration {
    /// Begins with all but the trials, from a search that has just been created.
    pub fn begin(created: Search, head: pb::SearchSnapshot) -> Result<Self, DamagedSnapshot> {
        let mut search = created;
        let state = head.state();
        let pb::SearchSnapshot {
            form,
            version,
            trials: expected,
            state: _,
            ended_ms,
            reason,
            evaluation,
            attempt_ms,
            attempts_ended,
            // For those who do not read the trials; see `Glance`.
            summary: _,
            best_model: _,
        } = head;
        if form != FORM {
            return Err(DamagedSnapshot::Form { found: form });
        }
        let at = Timestamp::from_millis(ended_ms);
        (search.version, search.snapshotted) = (version, version);
        search.state = match SearchState::try_from(state)? {
            SearchState::Running => State::Running,
            SearchState::Paused => State::Paused,
            SearchState::Stopping => State::Stopping { reason },
            SearchState::Complete => State::Complete { at, reason },
            SearchState::Cancelled => State::Cancelled { at },
            SearchState::Failed => State::Failed { at, reason },
        };
        search.attempt_time = Duration::from_millis(attempt_ms);
        search.attempts_ended = attempts_ended;
        search.restore_evaluation(evaluation.ok_or(DecodeError::Missing("evaluation"))?)?;
        Ok(Self { search, expected })
    }

    /// The number of the trial that comes next.
    pub fn next(&self) -> TrialId {
        TrialId::new(self.search.trials.len() as u64)
    }

    /// Takes the next trial.
    pub fn push(&mut self, kept: pb::TrialSnapshot) -> Result<(), DamagedSnapshot> {
        let id = self.next();
        let trial = self.search.restored_trial(kept)?;
        self.search.account(id, &trial);
        self.search.trials.push(trial);
        Ok(())
    }

    /// The search, if every trial was there.
    pub fn finish(self) -> Result<Search, DamagedSnapshot> {
        let found = self.search.trials.len() as u64;
        if found != self.expected {
            return Err(DamagedSnapshot::Trials { found, expected: self.expected });
        }
        Ok(self.search)
    }
}

impl Search {
    fn restored_trial(&mut self, kept: pb::TrialSnapshot) -> Result<Trial, DecodeError> {
        use pb::trial_snapshot::Phase as Kept;
        let pb::TrialSnapshot {
            replicate,
            hyperparameters,
            seeds,
            newest,
            tries,
            failures,
            worker,
            slot,
            report,
            phase,
            resumption,
        } = kept;
        let place = match worker.as_str() {
            "" => None,
            name => Some((self.shared(&name.parse()?), SlotNumber::new(slot))),
        };
        let phase = match phase {
            None => Phase::Waiting,
            Some(Kept::Running(lease)) => Phase::Running(Box::new(self.restored_lease(lease)?)),
            Some(Kept::Complete(pb::TrialCompleted { attempt, model_hash })) => Phase::Complete {
                attempt: Attempt::try_from(attempt.ok_or(DecodeError::Missing("attempt"))?)?.number,
                model: ArtifactHash::from_wire_optional(&model_hash)?.map(Box::new),
            },
            Some(Kept::Failed(failure)) => Phase::Failed(Box::new(failure.try_into()?)),
            Some(Kept::Cancelled(pb::CancelledSnapshot {})) => Phase::Cancelled,
        };
        Ok(Trial {
            replicate,
            hyperparameters: hyperparameters.ok_or(DecodeError::Missing("hyperparameters"))?.try_into()?,
            seeds: seeds.ok_or(DecodeError::Missing("seeds"))?.into(),
            newest: (newest != 0).then(|| AttemptNumber::new(newest)),
            tries,
            failures,
            place,
            report: report.map(Report::try_from).transpose()?,
            resumption: resumption.map(Resumption::try_from).transpose()?.map(Box::new),
            phase,
        })
    }

    fn restored_lease(&mut self, kept: pb::LeaseSnapshot) -> Result<Lease, DecodeError> {
        let pb::LeaseSnapshot { holder, started_ms } = kept;
        let holder = Holder::try_from(holder.ok_or(DecodeError::Missing("holder"))?)?;
        Ok(self.new_lease(&holder, Timestamp::from_millis(started_ms)))
    }

    fn restore_evaluation(&mut self, kept: pb::EvaluationSnapshot) -> Result<(), DecodeError> {
        let pb::EvaluationSnapshot { failures, attempt, lease, done } = kept;
        self.evaluation = match (attempt, lease, done) {
            (_, _, Some(pb::BestEvaluated { trial, test })) => {
                let test = test.ok_or(DecodeError::Missing("test"))?.try_into()?;
                Evaluation::Done { trial: TrialId::new(trial), test }
            }
            (Some(attempt), Some(lease), None) => {
                let (attempt, lease) = (Attempt::try_from(attempt)?, self.restored_lease(lease)?);
                self.holders.insert((lease.holder.worker, lease.holder.slot), attempt);
                Evaluation::Running { attempt, lease, failures }
            }
            (_, _, None) => Evaluation::Idle { failures },
        };
        Ok(())
    }

    /// Enters a restored trial wherever the state of a trial counts.
    fn account(&mut self, id: TrialId, trial: &Trial) {
        match &trial.phase {
            Phase::Waiting => {
                self.waiting.insert(id);
                self.counts.waiting += 1;
            }
            Phase::Running(lease) => {
                self.leased.insert(id);
                self.counts.running += 1;
                if let Some(number) = trial.newest {
                    let attempt = Attempt { trial: id, number };
                    self.holders.insert((lease.holder.worker, lease.holder.slot), attempt);
                }
            }
            Phase::Complete { model, .. } => {
                self.models.extend(model.as_ref().map(|hash| (id, **hash)));
                self.counts.complete += 1;
                if let Some(report) = &trial.report {
                    self.board.insert(RankKey::complete(self.created.spec.metric, report, id));
                }
            }
            Phase::Failed(failure) => {
                self.counts.failed += 1;
                if failure.reason == FailureReason::Diverged {
                    self.board.insert(RankKey::Diverged { trial: id });
                } else {
                    self.faults += 1;
                }
            }
            Phase::Cancelled => self.counts.cancelled += 1,
        }
    }
}

fn keep_trial(trial: &Trial) -> pb::TrialSnapshot {
    use pb::trial_snapshot::Phase as Kept;
    let Trial {
        replicate,
        hyperparameters,
        seeds,
        newest,
        tries,
        failures,
        place,
        report,
        resumption,
        phase,
    } = trial;
    let (worker, slot) = match place {
        Some((name, slot)) => (name.to_string(), slot.get()),
        None => (String::new(), 0),
    };
    let phase = match phase {
        Phase::Waiting => None,
        Phase::Running(lease) => Some(Kept::Running(keep_lease(lease))),
        Phase::Complete { attempt, model } => Some(Kept::Complete(pb::TrialCompleted {
            // Its trial is the one that this is kept under.
            attempt: Some(pb::Attempt { trial: 0, number: attempt.get() }),
            model_hash: model.as_ref().map(|hash| hash.to_wire()).unwrap_or_default(),
        })),
        Phase::Failed(failure) => Some(Kept::Failed((&**failure).into())),
        Phase::Cancelled => Some(Kept::Cancelled(pb::CancelledSnapshot {})),
    };
    pb::TrialSnapshot {
        replicate: *replicate,
        hyperparameters: Some(hyperparameters.into()),
        seeds: Some((*seeds).into()),
        newest: newest.map_or(0, AttemptNumber::get),
        tries: *tries,
        failures: *failures,
        worker,
        slot,
        report: report.map(Into::into),
        phase,
        resumption: resumption.as_deref().map(Into::into),
    }
}

fn keep_lease(lease: &Lease) -> pb::LeaseSnapshot {
    // How long it lasts and how far the epoch is are in memory only.
    let Lease { holder, started, expires: _, progress: _ } = lease;
    pb::LeaseSnapshot { holder: Some(holder.into()), started_ms: started.as_millis() }
}

fn keep_evaluation(evaluation: &Evaluation) -> pb::EvaluationSnapshot {
    match evaluation {
        Evaluation::Idle { failures } => {
            pb::EvaluationSnapshot { failures: *failures, ..pb::EvaluationSnapshot::default() }
        }
        Evaluation::Running { attempt, lease, failures } => pb::EvaluationSnapshot {
            failures: *failures,
            attempt: Some((*attempt).into()),
            lease: Some(keep_lease(lease)),
            done: None,
        },
        Evaluation::Done { trial, test } => pb::EvaluationSnapshot {
            done: Some(pb::BestEvaluated { trial: trial.get(), test: Some((*test).into()) }),
            ..pb::EvaluationSnapshot::default()
        },
    }
}
