//! How a fact becomes part of the state. It cannot fail: a fact has happened.

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{Attempt, Name, TrialId, WorkerId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason};
use fittingroom_common::view::Progress;
use fittingroom_common::work::Holder;

use super::trial::{Evaluation, Lease, Phase, Trial};
use super::{Search, State};
use crate::leaderboard::RankKey;

impl Search {
    /// Makes an event part of the state.
    pub fn apply(&mut self, event: &Event) {
        self.version += 1;
        let at = event.at;
        match &event.fact {
            // The first event made this search; see `new`.
            Fact::SearchCreated(_) => {}
            Fact::TrialPlanned { trial: _, replicate, hyperparameters, seeds } => {
                let drawn = TrialId::new(self.trials.len() as u64);
                self.touched.insert(drawn);
                self.trials.push(Trial {
                    replicate: *replicate,
                    hyperparameters: hyperparameters.clone(),
                    seeds: *seeds,
                    newest: None,
                    tries: 0,
                    failures: 0,
                    place: None,
                    report: None,
                    resumption: None,
                    phase: Phase::Waiting,
                });
                self.waiting.insert(drawn);
                self.counts.waiting += 1;
            }
            Fact::AttemptStarted { attempt, holder } => self.start(*attempt, holder, at),
            Fact::EpochReported { attempt, report } => {
                let expires = at.after(self.lease);
                let makes_checkpoints = self.created.spec.checkpoint.makes_some();
                if let Some(trial) = self.trial_mut(attempt.trial) {
                    trial.report = Some(*report);
                    if makes_checkpoints {
                        trial.resumption.get_or_insert_default().reported(*report);
                    }
                    if let Some(lease) = trial.lease_mut() {
                        lease.expires = lease.expires.max(expires);
                    }
                }
            }
            Fact::TrialCompleted { attempt, model } => {
                let metric = self.created.spec.metric;
                self.models.extend(model.map(|hash| (attempt.trial, hash)));
                let model = model.map(Box::new);
                self.end_attempt(*attempt, Phase::Complete { attempt: attempt.number, model }, at);
                self.counts.complete += 1;
                self.forget_checkpoints(attempt.trial);
                let key = self
                    .trial(attempt.trial)
                    .and_then(|trial| trial.report)
                    .map(|report| RankKey::complete(metric, &report, attempt.trial));
                key.into_iter().for_each(|key| self.board.insert(key));
            }
            Fact::AttemptFailed { attempt, .. } => {
                if let Some(trial) = self.trial_mut(attempt.trial) {
                    trial.failures += 1;
                }
                self.requeue(*attempt, at);
            }
            Fact::AttemptReleased { attempt } => self.release(*attempt, at),
            Fact::TrialFailed { trial, failure } => self.fail_trial(*trial, failure),
            Fact::TrialCancelled { trial } => self.cancel_trial(*trial),
            Fact::EvaluationStarted { attempt, holder } => {
                let failures = self.evaluation_failures();
                if let Some(trial) = self.trial_mut(attempt.trial) {
                    trial.newest = Some(attempt.number);
                }
                self.holders.insert((holder.worker, holder.slot), *attempt);
                let lease = self.new_lease(holder, at);
                self.evaluation = Evaluation::Running { attempt: *attempt, lease, failures };
            }
            Fact::EvaluationFailed { .. } => {
                self.end_evaluation(Evaluation::Idle { failures: self.evaluation_failures() + 1 });
            }
            Fact::BestEvaluated { trial, test } => {
                self.end_evaluation(Evaluation::Done { trial: *trial, test: *test });
            }
            Fact::CheckpointKept { attempt, checkpoint } => self.apply_kept(*attempt, *checkpoint),
            Fact::CheckpointLost { attempt, hash, .. } => self.apply_lost(*attempt, *hash),
            Fact::SearchPaused => self.state = State::Paused,
            Fact::SearchResumed => self.state = State::Running,
            Fact::SearchStopping { reason } => self.state = State::Stopping { reason: reason.clone() },
            Fact::SearchCancelled => {
                self.cancel_all();
                self.state = State::Cancelled { at };
            }
            Fact::SearchCompleted => {
                let reason = match &self.state {
                    State::Stopping { reason } => reason.clone(),
                    State::Running
                    | State::Paused
                    | State::Complete { .. }
                    | State::Cancelled { .. }
                    | State::Failed { .. } => String::new(),
                };
                self.state = State::Complete { at, reason };
            }
            Fact::SearchFailed { reason } => {
                self.cancel_all();
                self.state = State::Failed { at, reason: reason.clone() };
            }
        }
    }

    pub(super) fn new_lease(&mut self, holder: &Holder, at: Timestamp) -> Lease {
        let holder = Holder { name: self.shared(&holder.name), ..holder.clone() };
        Lease { holder, started: at, expires: at.after(self.lease), progress: None }
    }

    /// A copy of a worker's name that shares its text with all other copies in this search.
    pub(super) fn shared(&mut self, name: &Name) -> Name {
        if let Some(known) = self.worker_names.get(name) {
            return known.clone();
        }
        self.worker_names.insert(name.clone());
        name.clone()
    }

    fn start(&mut self, attempt: Attempt, holder: &Holder, at: Timestamp) {
        let lease = Box::new(self.new_lease(holder, at));
        let Some(trial) = self.trial_mut(attempt.trial) else {
            return;
        };
        trial.newest = Some(attempt.number);
        trial.tries += 1;
        trial.report = trial.resumption.as_mut().and_then(|it| it.begin());
        trial.place = Some((lease.holder.name.clone(), holder.slot));
        trial.phase = Phase::Running(lease);
        self.waiting.remove(&attempt.trial);
        self.leased.insert(attempt.trial);
        self.holders.insert((holder.worker, holder.slot), attempt);
        self.counts.waiting = self.counts.waiting.saturating_sub(1);
        self.counts.running += 1;
    }

    /// Ends the running attempt of a trial, which goes on in another phase. The caller counts that one.
    fn end_attempt(&mut self, attempt: Attempt, phase: Phase, at: Timestamp) {
        let Some(trial) = self.trial_mut(attempt.trial) else {
            return;
        };
        let Phase::Running(lease) = std::mem::replace(&mut trial.phase, phase) else {
            return;
        };
        self.leased.remove(&attempt.trial);
        self.holders.remove(&(lease.holder.worker, lease.holder.slot));
        self.counts.running = self.counts.running.saturating_sub(1);
        self.attempt_time += at.since(lease.started);
        self.attempts_ended += 1;
    }

    fn requeue(&mut self, attempt: Attempt, at: Timestamp) {
        // What waits must exist: a search that stops goes on until nothing waits.
        if self.trial(attempt.trial).is_some() {
            self.end_attempt(attempt, Phase::Waiting, at);
            self.waiting.insert(attempt.trial);
            self.counts.waiting += 1;
        }
    }

    fn release(&mut self, attempt: Attempt, at: Timestamp) {
        match self.evaluation {
            Evaluation::Running { attempt: evaluating, failures, .. } if evaluating == attempt => {
                self.end_evaluation(Evaluation::Idle { failures });
            }
            Evaluation::Running { .. } | Evaluation::Idle { .. } | Evaluation::Done { .. } => {
                self.requeue(attempt, at)
            }
        }
    }

    fn fail_trial(&mut self, id: TrialId, failure: &Failure) {
        let Some(trial) = self.trial_mut(id) else { return };
        trial.phase = Phase::Failed(Box::new(failure.clone()));
        self.waiting.remove(&id);
        self.counts.waiting = self.counts.waiting.saturating_sub(1);
        self.counts.failed += 1;
        if failure.reason == FailureReason::Diverged {
            self.board.insert(RankKey::Diverged { trial: id });
        } else {
            self.faults += 1;
        }
        self.forget_checkpoints(id);
    }

    fn cancel_trial(&mut self, id: TrialId) {
        let Some(trial) = self.trial_mut(id) else { return };
        trial.phase = Phase::Cancelled;
        self.counts.cancelled += 1;
        if self.waiting.remove(&id) {
            self.counts.waiting = self.counts.waiting.saturating_sub(1);
        }
        if self.leased.remove(&id) {
            self.counts.running = self.counts.running.saturating_sub(1);
        }
        self.forget_checkpoints(id);
    }

    fn cancel_all(&mut self) {
        let open: Vec<TrialId> = self.waiting.iter().chain(&self.leased).copied().collect();
        open.into_iter().for_each(|id| self.cancel_trial(id));
        if let Evaluation::Running { failures, .. } = self.evaluation {
            self.evaluation = Evaluation::Idle { failures };
        }
        self.holders.clear();
    }

    const fn evaluation_failures(&self) -> u32 {
        match self.evaluation {
            Evaluation::Idle { failures } | Evaluation::Running { failures, .. } => failures,
            Evaluation::Done { .. } => 0,
        }
    }

    fn end_evaluation(&mut self, next: Evaluation) {
        if let Some(holder) = self.evaluation.lease().map(|lease| (lease.holder.worker, lease.holder.slot)) {
            self.holders.remove(&holder);
        }
        self.evaluation = next;
    }

    /// Renews the lease of an attempt that a worker says it holds, and notes how far it is. Answers
    /// whether the worker still holds it. Not a fact: it is in memory only.
    pub fn renew(
        &mut self,
        attempt: Attempt,
        worker: WorkerId,
        progress: Option<Progress>,
        now: Timestamp,
    ) -> bool {
        let expires = now.after(self.lease);
        let evaluating = match &mut self.evaluation {
            Evaluation::Running { attempt: evaluating, lease, .. } if *evaluating == attempt => Some(lease),
            Evaluation::Running { .. } | Evaluation::Idle { .. } | Evaluation::Done { .. } => None,
        };
        let index = usize::try_from(attempt.trial.get()).unwrap_or(usize::MAX);
        let training = self
            .trials
            .get_mut(index)
            .filter(|trial| trial.newest == Some(attempt.number))
            .and_then(Trial::lease_mut);
        match evaluating.or(training).filter(|lease| lease.holder.worker == worker) {
            Some(lease) => {
                lease.expires = expires;
                lease.progress = progress.or(lease.progress);
                true
            }
            None => false,
        }
    }

    /// A slot asks for work although it holds some: it has not heard the answer, and hears it only now.
    pub(super) fn renew_unheard(&mut self, holder: &Holder, now: Timestamp) {
        if let Some(&attempt) = self.holders.get(&(holder.worker, holder.slot)) {
            self.renew(attempt, holder.worker, None, now);
        }
    }

    /// Gives every lease its full length from now: after a restart, the heartbeats of the time
    /// before are not known.
    pub fn grant_grace(&mut self, now: Timestamp) {
        let expires = now.after(self.lease);
        if let Evaluation::Running { lease, .. } = &mut self.evaluation {
            lease.expires = expires;
        }
        for id in &self.leased {
            let index = usize::try_from(id.get()).unwrap_or(usize::MAX);
            if let Some(lease) = self.trials.get_mut(index).and_then(Trial::lease_mut) {
                lease.expires = expires;
            }
        }
    }
}
