//! The rules, fact by fact.

mod attempts;
mod evaluation;

use fittingroom_common::event::{Created, Event, Fact};
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::TrialId;
use fittingroom_common::length::TrainingLength;
use fittingroom_common::trial::Seeds;
use fittingroom_common::view::SearchState;

use super::checkpoints::Continuation;
use super::{Audit, Phase, Searched, Trial, Violation};
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
