//! What a search shows of itself.

use fittingroom_common::id::{ArtifactHash, Attempt, AttemptNumber, SlotNumber, TrialId, WorkerId};
use fittingroom_common::trial::Seeds;
use fittingroom_common::view::{Best, SearchSummary, TrialRow};
use fittingroom_common::work::{Assignment, SearchAttempt, Work};

use super::trial::{Phase, Trial};
use super::{Glance, Search, State};
use crate::leaderboard::RankKey;

/// A leaderboard as it was at one moment.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The search at a glance.
    pub summary: SearchSummary,
    /// The first rows.
    pub first: Vec<TrialRow>,
    /// What comes after them.
    pub rest: Vec<Listed>,
}

/// One trial of a [`Listing`].
#[derive(Clone, Debug)]
pub enum Listed {
    /// A trial that was open, so that its row is of that moment.
    Row(Box<TrialRow>),
    /// A trial that had ended, so that its row can wait.
    Later(Later),
}

impl Listed {
    fn row(row: TrialRow) -> Self {
        Self::Row(Box::new(row))
    }
}

/// An ended trial whose row can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    /// The trial.
    pub trial: TrialId,
    /// The rank that it had.
    pub rank: Option<u64>,
}

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
                Phase::Failed(failure) => Some(failure.as_ref().clone()),
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
        let open = self.leased.iter().chain(&self.waiting).copied();
        open.chain(self.fruitless()).filter_map(|id| Some(self.ranked_row(id, self.trial(id)?, None)))
    }

    /// The trials that ended without a result.
    fn fruitless(&self) -> impl Iterator<Item = TrialId> {
        let trials = self.trials.iter().zip(0..).map(|(trial, number)| (TrialId::new(number), trial));
        let over = trials.filter(|(_, trial)| matches!(trial.phase, Phase::Failed(_) | Phase::Cancelled));
        over.filter(|(id, trial)| self.key(*id, trial).is_none()).map(|(id, _)| id)
    }

    /// The first `top` trials in the order of the leaderboard, with the rows of the first `page` of
    /// them. The rest can be asked for later: of trials that have ended it takes the numbers alone.
    pub fn listing(&self, top: usize, page: usize) -> Listing {
        let ranked = self.board.iter().zip(1..).map(|(trial, rank)| Later { trial, rank: Some(rank) });
        let open = self.leased.iter().chain(&self.waiting).copied();
        let first: Vec<TrialRow> = self.ranked().chain(self.unranked()).take(top.min(page)).collect();
        let rest = (ranked.map(Listed::Later))
            .chain(open.filter_map(|id| Some(self.ranked_row(id, self.trial(id)?, None))).map(Listed::row))
            .chain(self.fruitless().map(|trial| Listed::Later(Later { trial, rank: None })))
            .take(top)
            .skip(first.len());
        Listing { summary: self.summary(), rest: rest.collect(), first }
    }

    /// The row of a trial that was listed earlier.
    pub fn listed_row(&self, later: Later) -> Option<TrialRow> {
        Some(self.ranked_row(later.trial, self.trial(later.trial)?, later.rank))
    }

    /// The first `most` trials that run now.
    pub fn running_rows(&self, most: usize) -> Vec<TrialRow> {
        let running = self.leased.iter().take(most);
        running.filter_map(|id| Some(self.ranked_row(*id, self.trial(*id)?, None))).collect()
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
        let Phase::Complete { attempt, model: Some(model) } = &trial.phase else {
            return None;
        };
        Some(Best {
            row: self.row(id)?,
            seeds: trial.seeds,
            attempt: *attempt,
            hyperparameters: self.complete_hyperparameters(trial),
            model: **model,
            dataset: self.created.dataset.clone(),
            search: self.summary(),
        })
    }

    /// The search as it shows itself once it has ended.
    pub fn glance(&self) -> Glance {
        Glance { summary: self.summary(), best_model: self.best_model() }
    }

    /// The best trial's model.
    pub fn best_model(&self) -> Option<ArtifactHash> {
        self.models.get(&self.board.best()?.trial()).copied()
    }

    /// The models of trials that are not the best, and so never will be.
    pub fn superseded_models(&self) -> Vec<ArtifactHash> {
        let best = self.board.best().map(|key| key.trial());
        self.models.iter().filter(|(trial, _)| Some(**trial) != best).map(|(_, hash)| *hash).collect()
    }

    /// Every attempt that a worker holds.
    pub fn held_by(&self, worker: WorkerId) -> Vec<Attempt> {
        let slots = (worker, SlotNumber::new(0))..=(worker, SlotNumber::new(u32::MAX));
        self.holders.range(slots).map(|(_, attempt)| *attempt).collect()
    }

    /// What a slot holds, as the lease says it.
    pub fn assignment(&self, worker: WorkerId, slot: SlotNumber) -> Option<Assignment> {
        let attempt = *self.holders.get(&(worker, slot))?;
        let trial = self.trial(attempt.trial)?;
        let work = match &trial.phase {
            Phase::Complete { model, .. } => Work::Evaluate { model: **model.as_ref()? },
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
