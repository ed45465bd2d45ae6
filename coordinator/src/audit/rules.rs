//! The rules, fact by fact.

use fittingroom_common::event::{Created, Event, Fact};
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{Attempt, AttemptNumber, TrialId};
use fittingroom_common::length::TrainingLength;
use fittingroom_common::trial::{Failure, FailureReason, Report, Seeds};
use fittingroom_common::view::SearchState;
use fittingroom_common::work::Holder;

use super::checkpoints::Continuation;
use super::{Audit, Phase, Searched, Slot, Trial, Violation};
use crate::leaderboard::RankKey;
use crate::method::Plan;
use crate::search::EVALUATION_ATTEMPTS;

impl Audit {
    /// Takes the next event, and finds what is wrong with it.
    pub fn take(&mut self, version: u64, event: &Event) {
        let expected = self.version + 1;
        self.version = version;
        self.tally.events += 1;
        if version != expected {
            self.find(Violation::VersionGap { expected });
        }
        if let Fact::SearchCreated(created) = &event.fact {
            return self.create(created);
        }
        let Some(state) = self.state() else {
            // Said once: nothing can be held against a search of which nothing is known.
            if self.tally.events == 1 {
                self.find(Violation::NotCreated);
            }
            return;
        };
        if state.has_ended() {
            self.find(Violation::AfterTheEnd { state });
        }
        let just_failed = self.just_failed.take();
        match &event.fact {
            Fact::SearchCreated(_) => {}
            Fact::TrialPlanned { trial, replicate, hyperparameters, seeds } => {
                self.plan(*trial, *replicate, hyperparameters, *seeds);
            }
            Fact::AttemptStarted { attempt, holder } => self.start(*attempt, holder),
            Fact::EpochReported { attempt, report } => self.report(*attempt, report),
            Fact::TrialCompleted { attempt, model } => self.complete(*attempt, model.is_some()),
            Fact::AttemptFailed { attempt, failure } => self.fail_attempt(*attempt, failure),
            Fact::AttemptReleased { attempt } => {
                if !self.end_evaluation(*attempt) {
                    self.end_attempt(*attempt);
                }
            }
            Fact::TrialFailed { trial, .. } => self.give_up(*trial, just_failed),
            Fact::TrialCancelled { trial } => self.cancel(*trial),
            Fact::EvaluationStarted { attempt, holder } => self.start_evaluation(*attempt, holder),
            Fact::EvaluationFailed { attempt, .. } => {
                self.evaluation.failures += 1;
                if !self.end_evaluation(*attempt) {
                    self.find(Violation::NotRunning { attempt: *attempt });
                }
            }
            Fact::BestEvaluated { trial, .. } => self.evaluated(*trial),
            Fact::CheckpointKept { attempt, checkpoint } => self.keep(*attempt, *checkpoint),
            Fact::CheckpointLost { attempt, hash, .. } => self.lose(*attempt, *hash),
            Fact::SearchPaused => self.become_from(SearchState::Paused, &[SearchState::Running]),
            Fact::SearchResumed => self.become_from(SearchState::Running, &[SearchState::Paused]),
            Fact::SearchStopping { .. } => {
                self.become_from(SearchState::Stopping, &[SearchState::Running, SearchState::Paused]);
            }
            Fact::SearchCompleted => self.finish(),
            Fact::SearchCancelled => self.cut_off(SearchState::Cancelled),
            Fact::SearchFailed { .. } => self.cut_off(SearchState::Failed),
        }
    }

    fn create(&mut self, created: &Created) {
        if self.search.is_some() {
            return self.find(Violation::CreatedTwice);
        }
        if self.tally.events > 1 {
            self.find(Violation::NotCreated);
        }
        let plan = Plan::new(&created.spec);
        self.search = Some(Searched { created: created.clone(), plan, state: SearchState::Running });
    }

    /// Goes to another state. From an ended one it has been said already that nothing follows.
    fn become_from(&mut self, to: SearchState, allowed: &[SearchState]) {
        let Some(from) = self.state() else { return };
        if !from.has_ended() && !allowed.contains(&from) {
            self.find(Violation::WrongTransition { from, to });
        }
        if let Some(search) = &mut self.search {
            search.state = to;
        }
    }

    fn plan(&mut self, id: TrialId, replicate: u32, hyperparameters: &Hyperparameters, seeds: Seeds) {
        let expected = TrialId::new(self.trials.len() as u64);
        if id != expected {
            self.find(Violation::DrawnOutOfOrder { trial: id, expected });
        }
        self.must_be_open();
        let Some(search) = &self.search else { return };
        // Every trial being what its number says, no point is drawn twice.
        let is_given = search.plan.replicate(id).is_some_and(|given| given.number == replicate)
            && search.plan.hyperparameters(id).as_ref() == Some(hyperparameters)
            && Seeds::derive(search.created.spec.seed, replicate, id) == seeds;
        let defaults = &search.created.defaults;
        let length = TrainingLength::read(|parameter| {
            hyperparameters.get(parameter).or_else(|| defaults.get(parameter))
        });
        if !is_given {
            self.find(Violation::NotWhatTheMethodGives { trial: id });
        }
        if id == expected {
            self.trials.push(Trial {
                length,
                newest: None,
                failures: 0,
                is_used_up: false,
                report: None,
                continuation: Continuation::default(),
                highest_epoch: 0,
                phase: Phase::Waiting,
            });
            self.open.insert(id);
            self.counts.waiting += 1;
        }
    }

    fn must_be_open(&mut self) {
        match self.state() {
            Some(state @ (SearchState::Paused | SearchState::Stopping)) => {
                self.find(Violation::StartedWhileClosed { state });
            }
            // Of an ended search it has been said already.
            Some(
                SearchState::Running | SearchState::Complete | SearchState::Cancelled | SearchState::Failed,
            )
            | None => {}
        }
    }

    fn start(&mut self, attempt: Attempt, holder: &Holder) {
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
    fn number(&mut self, attempt: Attempt) {
        let newest = self.trial(attempt.trial).and_then(|trial| trial.newest);
        let expected = newest.map_or(AttemptNumber::FIRST, AttemptNumber::next);
        if attempt.number != expected {
            self.find(Violation::AttemptNumber { attempt, expected });
        }
        if let Some(trial) = self.trial_mut(attempt.trial) {
            trial.newest = newest.max(Some(attempt.number));
        }
    }

    fn take_slot(&mut self, attempt: Attempt, holder: &Holder) -> Slot {
        let slot = (holder.worker, holder.slot);
        if let Some(held) = self.slots.insert(slot, attempt) {
            let (worker, slot) = slot;
            self.find(Violation::SlotTaken { attempt, worker, slot, held });
        }
        slot
    }

    /// Moves a trial to another phase, and counts.
    fn go(&mut self, id: TrialId, next: Phase) {
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

    const fn count(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Waiting => &mut self.counts.waiting,
            Phase::Running { .. } => &mut self.counts.running,
            Phase::Complete { .. } => &mut self.counts.complete,
            Phase::Failed => &mut self.counts.failed,
            Phase::Cancelled => &mut self.counts.cancelled,
        }
    }

    /// Whether an attempt is the one that counts, and out.
    pub(super) fn must_run(&mut self, attempt: Attempt) -> bool {
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

    fn report(&mut self, attempt: Attempt, report: &Report) {
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

    fn complete(&mut self, attempt: Attempt, has_model: bool) {
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

    fn has_outcome(&self, id: TrialId) -> bool {
        self.trial(id).is_some() && !self.open.contains(&id)
    }

    /// Ends an attempt whose trial waits again; answers whether it was out.
    fn end_attempt(&mut self, attempt: Attempt) -> bool {
        let was_out = self.must_run(attempt);
        if was_out {
            self.go(attempt.trial, Phase::Waiting);
        }
        was_out
    }

    fn fail_attempt(&mut self, attempt: Attempt, failure: &Failure) {
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

    fn give_up(&mut self, id: TrialId, just_failed: Option<TrialId>) {
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

    fn cancel(&mut self, id: TrialId) {
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

    fn start_evaluation(&mut self, attempt: Attempt, holder: &Holder) {
        let id = attempt.trial;
        if self.trial(id).is_none() {
            return self.find(Violation::UnknownTrial { trial: id });
        }
        if self.best() != Some(id) {
            self.find(Violation::EvaluatedNotBest { trial: id });
        }
        if !self.open.is_empty() || !self.is_all_drawn() {
            self.find(Violation::EvaluatedEarly { trial: id });
        }
        if self.evaluation.is_done {
            self.find(Violation::EvaluatedTwice { trial: id });
        }
        if let Some((running, _)) = self.evaluation.running {
            self.find(Violation::StillRunning { attempt, running });
        }
        self.number(attempt);
        let slot = self.take_slot(attempt, holder);
        self.evaluation.running = Some((attempt, slot));
    }

    /// Ends an evaluation; answers whether this attempt was one.
    fn end_evaluation(&mut self, attempt: Attempt) -> bool {
        match self.evaluation.running {
            Some((evaluating, slot)) if evaluating == attempt => {
                self.slots.remove(&slot);
                self.evaluation.running = None;
                true
            }
            _ => false,
        }
    }

    fn evaluated(&mut self, id: TrialId) {
        if self.evaluation.is_done {
            self.find(Violation::EvaluatedTwice { trial: id });
        }
        if self.best() != Some(id) {
            self.find(Violation::EvaluatedNotBest { trial: id });
        }
        match self.evaluation.running {
            Some((attempt, _)) if attempt.trial == id => drop(self.end_evaluation(attempt)),
            _ => {
                let number = self.trial(id).and_then(|trial| trial.newest).unwrap_or(AttemptNumber::FIRST);
                self.find(Violation::NotRunning { attempt: Attempt { trial: id, number } });
            }
        }
        self.evaluation.is_done = true;
    }

    /// Whether the search has drawn every trial that it will draw.
    fn is_all_drawn(&self) -> bool {
        self.search.as_ref().is_none_or(|search| {
            search.state == SearchState::Stopping
                || self.trials.len() as u64 >= search.created.spec.trial_count()
        })
    }

    fn finish(&mut self) {
        let open: Vec<TrialId> = self.open.iter().copied().collect();
        open.into_iter().for_each(|trial| self.find(Violation::NoOutcome { trial }));
        if !self.is_all_drawn() {
            let expected = self.search.as_ref().map_or(0, |search| search.created.spec.trial_count());
            self.find(Violation::MissingTrials { drawn: self.trials.len() as u64, expected });
        }
        if let Some(trial) = self.best()
            && !self.evaluation.is_done
            && self.evaluation.failures < EVALUATION_ATTEMPTS
            && self.trial(trial).is_some_and(|best| best.phase == Phase::Complete { test_is_known: false })
        {
            self.find(Violation::NotEvaluated { trial });
        }
        self.become_from(
            SearchState::Complete,
            &[SearchState::Running, SearchState::Paused, SearchState::Stopping],
        );
    }

    /// Ends the search at once: what has no outcome is cancelled with it.
    fn cut_off(&mut self, state: SearchState) {
        let open: Vec<TrialId> = self.open.iter().copied().collect();
        open.into_iter().for_each(|id| self.go(id, Phase::Cancelled));
        if let Some((attempt, _)) = self.evaluation.running {
            self.end_evaluation(attempt);
        }
        self.become_from(state, &[SearchState::Running, SearchState::Paused, SearchState::Stopping]);
    }
}
