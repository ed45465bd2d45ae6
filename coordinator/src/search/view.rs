//! What a search shows of itself.

use fittingroom_common::id::{Attempt, AttemptNumber, SlotNumber, TrialId, WorkerId};
use fittingroom_common::trial::Seeds;
use fittingroom_common::view::{Best, SearchSummary, TrialRow, TrialState};
use fittingroom_common::work::{Assignment, SearchAttempt, Work};

use super::trial::{Phase, Trial};
use super::{Search, State};
use crate::leaderboard::RankKey;

impl Search {
    /// The search at a glance.
    pub fn summary(&self) -> SearchSummary {
        let (ended, reason) = match &self.state {
            State::Running | State::Paused => (None, String::new()),
            State::Stopping { reason } => (None, reason.clone()),
            State::Complete { at, reason } | State::Failed { at, reason } => (Some(*at), reason.clone()),
            State::Cancelled { at } => (Some(*at), String::new()),
        };
        SearchSummary {
            name: self.created.name.clone(),
            state: self.state(),
            metric: self.created.spec.metric,
            method: self.created.spec.method,
            dataset: self.created.dataset.name.clone(),
            trial_count: self.created.spec.trial_count(),
            counts: self.counts,
            created: self.created_at,
            ended,
            best: self.board.best().and_then(|key| self.row(key.trial())),
            reason,
            attempt_time: self.attempt_time,
            attempts_ended: self.attempts_ended,
        }
    }

    /// One trial, with its rank.
    pub fn row(&self, id: TrialId) -> Option<TrialRow> {
        let trial = self.trial(id)?;
        Some(self.ranked_row(id, trial, self.key(id, trial).map(|key| self.board.rank(&key))))
    }

    fn key(&self, id: TrialId, trial: &Trial) -> Option<RankKey> {
        match trial.phase {
            Phase::Complete { .. } => Some(RankKey::complete(self.created.spec.metric, &trial.report?, id)),
            Phase::Failed(_) => Some(RankKey::Diverged { trial: id }).filter(|key| self.board.contains(key)),
            Phase::Waiting | Phase::Running(_) | Phase::Cancelled => None,
        }
    }

    fn ranked_row(&self, id: TrialId, trial: &Trial, rank: Option<u64>) -> TrialRow {
        let tracked = trial.report.and_then(|report| report.test);
        TrialRow {
            trial: id,
            rank,
            state: trial.state(),
            attempts: trial.tries,
            place: trial.place.clone(),
            hyperparameters: trial.hyperparameters.clone(),
            report: trial.report,
            failure: match &trial.phase {
                Phase::Failed(failure) => Some(failure.clone()),
                Phase::Waiting | Phase::Running(_) | Phase::Complete { .. } | Phase::Cancelled => None,
            },
            test: self.evaluated(id).or(tracked),
            epochs: self.length(trial).epochs,
            progress: trial.lease().and_then(|lease| lease.progress),
        }
    }

    /// The ranked trials, the best one first.
    pub fn ranked(&self) -> impl Iterator<Item = TrialRow> {
        self.board
            .iter()
            .zip(1..)
            .filter_map(|(id, rank)| Some(self.ranked_row(id, self.trial(id)?, Some(rank))))
    }

    /// The trials that have no rank: those that run, then those that wait, then those that failed or
    /// were cancelled, each in the order of their numbers.
    pub fn unranked(&self) -> impl Iterator<Item = TrialRow> {
        let in_states = |states: &'static [TrialState]| {
            let trials = self.trials.iter().zip(0..).map(|(trial, number)| (TrialId::new(number), trial));
            trials
                .filter(|(_, trial)| states.contains(&trial.state()))
                .filter(|(id, trial)| self.key(*id, trial).is_none())
                .map(|(id, trial)| self.ranked_row(id, trial, None))
        };
        in_states(&[TrialState::Running])
            .chain(in_states(&[TrialState::Waiting]))
            .chain(in_states(&[TrialState::Failed, TrialState::Cancelled]))
    }

    /// The trials that run now.
    pub fn running_rows(&self) -> Vec<TrialRow> {
        self.leased.iter().filter_map(|id| Some(self.ranked_row(*id, self.trial(*id)?, None))).collect()
    }

    /// Which repetition of its point a trial is, and its random streams.
    pub fn origin(&self, id: TrialId) -> Option<(u32, Seeds)> {
        self.trial(id).map(|trial| (trial.replicate, trial.seeds))
    }

    /// The attempt that counts for a trial, if one has been made.
    pub fn counted_attempt(&self, id: TrialId) -> Option<AttemptNumber> {
        let trial = self.trial(id)?;
        match trial.phase {
            Phase::Complete { attempt, .. } => Some(attempt),
            Phase::Waiting | Phase::Running(_) | Phase::Failed(_) | Phase::Cancelled => trial.newest,
        }
    }

    /// The best complete trial, and what its model is made from.
    pub fn best(&self) -> Option<Best> {
        let id = self.board.best()?.trial();
        let trial = self.trial(id)?;
        let Phase::Complete { attempt, model: Some(model) } = trial.phase else {
            return None;
        };
        Some(Best {
            row: self.row(id)?,
            seeds: trial.seeds,
            attempt,
            hyperparameters: self.complete_hyperparameters(trial),
            model,
            dataset: self.created.dataset.clone(),
            search: self.summary(),
        })
    }

    /// Every attempt that a worker holds.
    pub fn held_by(&self, worker: WorkerId) -> Vec<Attempt> {
        self.holders
            .iter()
            .filter(|((holder, _), _)| *holder == worker)
            .map(|(_, attempt)| *attempt)
            .collect()
    }

    /// What a slot holds, as the lease says it.
    pub fn assignment(&self, worker: WorkerId, slot: SlotNumber) -> Option<Assignment> {
        let attempt = *self.holders.get(&(worker, slot))?;
        let trial = self.trial(attempt.trial)?;
        let work = match trial.phase {
            Phase::Complete { model, .. } => Work::Evaluate { model: model? },
            Phase::Waiting | Phase::Running(_) | Phase::Failed(_) | Phase::Cancelled => Work::Train {
                hyperparameters: self.complete_hyperparameters(trial),
                seeds: trial.seeds,
                track_test: self.created.spec.track_test,
                checkpoint: self.created.spec.checkpoint,
                resume_from: self.resume_from(attempt.trial),
            },
        };
        Some(Assignment {
            id: SearchAttempt { search: self.id, attempt },
            search_name: self.created.name.clone(),
            dataset: self.created.dataset.clone(),
            work,
        })
    }
}
