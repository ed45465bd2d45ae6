//! The rules of attempts and of the outcomes of trials.

use fittingroom_common::id::{Attempt, AttemptNumber, TrialId};
use fittingroom_common::trial::{Failure, FailureReason, Report};
use fittingroom_common::view::SearchState;
use fittingroom_common::work::Holder;

use crate::audit::checkpoints::Continuation;
use crate::audit::{Audit, Phase, Slot, Trial, Violation};
use crate::leaderboard::RankKey;

impl Audit {
    pub(super) fn start(&mut self, attempt: Attempt, holder: &Holder) {
        self.must_be_open();
        self.tally.attempts += 1;
        let Some(trial) = self.trial(attempt.trial) else {
            return self.find(Violation::UnknownTrial { trial: attempt.trial });
        };
        let (phase, is_used_up, newest) = (trial.phase, trial.is_used_up, trial.newest);
        match phase {
            Phase::Waiting => {}
            Phase::Running { .. } => {
                let running = Attempt { number: newest.unwrap_or(AttemptNumber::FIRST), ..attempt };
                self.find(Violation::StillRunning { attempt, running });
            }
            Phase::Complete { .. } | Phase::Failed | Phase::Cancelled => {
                return self.find(Violation::OutcomeTwice { trial: attempt.trial });
            }
        }
        if is_used_up {
            self.find(Violation::TriedTooOften { attempt });
        }
        self.number(attempt);
        let slot = self.take_slot(attempt, holder);
        let next_epoch = self.begin_anew(attempt.trial);
        self.go(attempt.trial, Phase::Running { slot, next_epoch });
    }

    /// Notes an attempt as its trial's newest.
    pub(super) fn number(&mut self, attempt: Attempt) {
        let newest = self.trial(attempt.trial).and_then(|trial| trial.newest);
        let expected = newest.map_or(AttemptNumber::FIRST, AttemptNumber::next);
        if attempt.number != expected {
            self.find(Violation::AttemptNumber { attempt, expected });
        }
        if let Some(trial) = self.trial_mut(attempt.trial) {
            trial.newest = newest.max(Some(attempt.number));
        }
    }

    pub(super) fn take_slot(&mut self, attempt: Attempt, holder: &Holder) -> Slot {
        let slot = (holder.worker, holder.slot);
        if let Some(held) = self.slots.insert(slot, attempt) {
            let (worker, slot) = slot;
            self.find(Violation::SlotTaken { attempt, worker, slot, held });
        }
        slot
    }

    /// Moves a trial to another phase, and counts.
    pub(super) fn go(&mut self, id: TrialId, next: Phase) {
        let Some(trial) = self.trial_mut(id) else { return };
        let before = std::mem::replace(&mut trial.phase, next);
        if let Phase::Running { slot, .. } = before {
            self.slots.remove(&slot);
        }
        if let Phase::Running { slot, .. } = next {
            let number = self.trial(id).and_then(|trial| trial.newest).unwrap_or(AttemptNumber::FIRST);
            self.slots.insert(slot, Attempt { trial: id, number });
        }
        *self.count(before) -= 1;
        *self.count(next) += 1;
        match next {
            Phase::Waiting | Phase::Running { .. } => self.open.insert(id),
            Phase::Complete { .. } | Phase::Failed | Phase::Cancelled => self.open.remove(&id),
        };
        if !self.open.contains(&id)
            && let Some(trial) = self.trial_mut(id)
        {
            trial.continuation = Continuation::default();
        }
    }

    pub(super) const fn count(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Waiting => &mut self.counts.waiting,
            Phase::Running { .. } => &mut self.counts.running,
            Phase::Complete { .. } => &mut self.counts.complete,
            Phase::Failed => &mut self.counts.failed,
            Phase::Cancelled => &mut self.counts.cancelled,
        }
    }

    /// Whether an attempt is the one that counts, and out.
    pub(in crate::audit) fn must_run(&mut self, attempt: Attempt) -> bool {
        let violation = match self.trial(attempt.trial) {
            None => Violation::UnknownTrial { trial: attempt.trial },
            Some(trial) if trial.newest.is_some_and(|newest| attempt.number < newest) => {
                Violation::Superseded { attempt }
            }
            Some(Trial { newest, phase: Phase::Running { .. }, .. }) if *newest == Some(attempt.number) => {
                return true;
            }
            Some(_) => Violation::NotRunning { attempt },
        };
        self.find(violation);
        false
    }

    pub(super) fn report(&mut self, attempt: Attempt, report: &Report) {
        if !self.must_run(attempt) {
            return;
        }
        let Some(trial) = self.trial_mut(attempt.trial) else { return };
        let Phase::Running { next_epoch, .. } = &mut trial.phase else { return };
        let (found, expected, epochs) = (report.epoch, *next_epoch, trial.length.epochs);
        *next_epoch = found.saturating_add(1);
        trial.report = Some(*report);
        trial.continuation.tell(*report);
        let is_repeated = found <= trial.highest_epoch;
        trial.highest_epoch = trial.highest_epoch.max(found);
        self.tally.epochs += 1;
        self.tally.repeated_epochs += u64::from(is_repeated);
        if found != expected {
            self.find(Violation::EpochGap { attempt, found, expected });
        }
        if found > epochs {
            self.find(Violation::BeyondLastEpoch { attempt, found, epochs });
        }
    }

    pub(super) fn complete(&mut self, attempt: Attempt, has_model: bool) {
        if self.has_outcome(attempt.trial) {
            return self.find(Violation::OutcomeTwice { trial: attempt.trial });
        }
        if !self.must_run(attempt) {
            return;
        }
        let (Some(search), Some(trial)) = (&self.search, self.trial(attempt.trial)) else { return };
        let (metric, report) = (search.created.spec.metric, trial.report);
        let epochs = report.map_or(0, |report| report.epoch);
        if !trial.length.may_end_after(epochs) {
            self.find(Violation::EndedEarly { attempt, epochs });
        }
        let key = report.map(|report| RankKey::complete(metric, &report, attempt.trial));
        if let Some(key) = key.filter(|key| self.best.is_none_or(|best| *key < best)) {
            if !has_model {
                self.find(Violation::BestWithoutModel { trial: attempt.trial });
            }
            self.best = Some(key);
        }
        let test_is_known = report.is_some_and(|report| report.test.is_some());
        self.go(attempt.trial, Phase::Complete { test_is_known });
    }

    pub(super) fn has_outcome(&self, id: TrialId) -> bool {
        self.trial(id).is_some() && !self.open.contains(&id)
    }

    /// Ends an attempt whose trial waits again; answers whether it was out.
    pub(super) fn end_attempt(&mut self, attempt: Attempt) -> bool {
        let was_out = self.must_run(attempt);
        if was_out {
            self.go(attempt.trial, Phase::Waiting);
        }
        was_out
    }

    pub(super) fn fail_attempt(&mut self, attempt: Attempt, failure: &Failure) {
        if !self.end_attempt(attempt) {
            return;
        }
        let most = self.search.as_ref().map_or(0, |search| search.created.spec.max_attempts);
        if let Some(trial) = self.trial_mut(attempt.trial) {
            trial.failures += 1;
            trial.is_used_up = failure.reason == FailureReason::Diverged || trial.failures >= most;
        }
        self.just_failed = Some(attempt.trial);
    }

    pub(super) fn give_up(&mut self, id: TrialId, just_failed: Option<TrialId>) {
        let Some(trial) = self.trial(id) else {
            return self.find(Violation::UnknownTrial { trial: id });
        };
        let is_due = trial.is_used_up && just_failed == Some(id);
        if self.has_outcome(id) {
            return self.find(Violation::OutcomeTwice { trial: id });
        }
        if !is_due {
            self.find(Violation::GivenUpEarly { trial: id });
        }
        self.go(id, Phase::Failed);
    }

    pub(super) fn cancel(&mut self, id: TrialId) {
        let Some(trial) = self.trial(id) else {
            return self.find(Violation::UnknownTrial { trial: id });
        };
        let is_due = trial.phase == Phase::Waiting && self.state() == Some(SearchState::Stopping);
        if self.has_outcome(id) {
            return self.find(Violation::OutcomeTwice { trial: id });
        }
        if !is_due {
            self.find(Violation::CancelledWithoutCause { trial: id });
        }
        self.go(id, Phase::Cancelled);
    }
}
