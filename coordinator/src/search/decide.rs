//! What follows from a command, and what follows from the state alone.

use fittingroom_common::event::Fact;
use fittingroom_common::id::{Attempt, AttemptNumber, TrialId, WorkerId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason, Report, Seeds};
use fittingroom_common::work::{Holder, Outcome};

use super::trial::{Evaluation, Lease, Phase, Trial};
use super::{Command, EVALUATION_ATTEMPTS, Rejection, Search, State};
use crate::leaderboard::RankKey;

impl Search {
    /// The facts that follow from a command. Nothing is changed.
    pub fn decide(&self, command: Command, now: Timestamp) -> Result<Vec<Fact>, Rejection> {
        match command {
            Command::Lease { holder } => Ok(self.lease(holder)),
            Command::Report { attempt, worker, report } => self.report(attempt, worker, report),
            Command::Complete { attempt, worker, outcome } => self.complete(attempt, worker, outcome),
            Command::KeepCheckpoint { attempt, worker, checkpoint } => self.keep(attempt, worker, checkpoint),
            Command::LoseCheckpoint { attempt, worker, hash, problem } => {
                self.lose(attempt, worker, hash, problem)
            }
            Command::Tick => Ok(self.tick(now)),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Stop => self.stop(),
            Command::Cancel => self.cancel(),
        }
    }

    /// The facts that follow from the state alone, once a command's facts are part of it.
    pub fn consequences(&self) -> Vec<Fact> {
        match self.state {
            State::Complete { .. } | State::Cancelled { .. } | State::Failed { .. } => return Vec::new(),
            State::Running | State::Paused | State::Stopping { .. } => {}
        }
        if let Some(limit) = self.created.spec.max_failed_trials.filter(|limit| self.faults > *limit) {
            let reason = format!("{} trials failed, where max_failed_trials allows {limit}", self.faults);
            return vec![Fact::SearchFailed { reason }];
        }
        if matches!(self.state, State::Stopping { .. }) && !self.waiting.is_empty() {
            return self.waiting.iter().map(|&trial| Fact::TrialCancelled { trial }).collect();
        }
        let over = self.is_trained_out() && self.awaits_evaluation().is_none();
        if over { vec![Fact::SearchCompleted] } else { Vec::new() }
    }

    /// Whether every trial that will ever run has ended, and only the final evaluation can be left.
    fn is_trained_out(&self) -> bool {
        let drawn = match self.state {
            State::Running | State::Paused => !self.has_undrawn(),
            State::Stopping { .. } => true,
            State::Complete { .. } | State::Cancelled { .. } | State::Failed { .. } => false,
        };
        drawn && self.waiting.is_empty() && self.leased.is_empty()
    }

    fn has_undrawn(&self) -> bool {
        (self.trials.len() as u64) < self.created.spec.trial_count()
    }

    /// The best trial, if its model is still to be evaluated on the test set.
    fn awaits_evaluation(&self) -> Option<TrialId> {
        let tries_left = match self.evaluation {
            Evaluation::Idle { failures } | Evaluation::Running { failures, .. } => {
                failures < EVALUATION_ATTEMPTS
            }
            Evaluation::Done { .. } => false,
        };
        let best = self.board.best()?.trial();
        let trial = self.trial(best)?;
        let is_known = trial.report.is_some_and(|report| report.test.is_some());
        let has_model = matches!(trial.phase, Phase::Complete { model: Some(_), .. });
        (tries_left && has_model && !is_known).then_some(best)
    }

    /// Whether a slot that asks now would get work.
    pub fn has_work(&self) -> bool {
        match self.state {
            State::Running if !self.waiting.is_empty() || self.has_undrawn() => true,
            // An evaluation is no new trial, so a paused search may end.
            State::Running | State::Paused | State::Stopping { .. } => {
                self.is_trained_out()
                    && matches!(self.evaluation, Evaluation::Idle { .. })
                    && self.awaits_evaluation().is_some()
            }
            State::Complete { .. } | State::Cancelled { .. } | State::Failed { .. } => false,
        }
    }

    fn lease(&self, holder: Holder) -> Vec<Fact> {
        if self.holders.contains_key(&(holder.worker, holder.slot)) || !self.has_work() {
            return Vec::new();
        }
        if matches!(self.state, State::Running) {
            if let Some((&id, trial)) = self.waiting.first().and_then(|id| Some((id, self.trial(*id)?))) {
                let attempt = Attempt { trial: id, number: trial.next_attempt() };
                return vec![Fact::AttemptStarted { attempt, holder }];
            }
            if self.has_undrawn() {
                return self.draw(holder).unwrap_or_default();
            }
        }
        let Some((best, trial)) = self.awaits_evaluation().and_then(|best| Some((best, self.trial(best)?)))
        else {
            return Vec::new();
        };
        vec![Fact::EvaluationStarted {
            attempt: Attempt { trial: best, number: trial.next_attempt() },
            holder,
        }]
    }

    fn draw(&self, holder: Holder) -> Option<Vec<Fact>> {
        let spec = &self.created.spec;
        let trial = TrialId::new(self.trials.len() as u64);
        let replicate = self.plan.replicate(trial)?.number;
        let planned = Fact::TrialPlanned {
            trial,
            replicate,
            hyperparameters: self.plan.hyperparameters(trial)?,
            seeds: Seeds::derive(spec.seed, replicate, trial),
        };
        let attempt = Attempt { trial, number: AttemptNumber::FIRST };
        Some(vec![planned, Fact::AttemptStarted { attempt, holder }])
    }

    /// The trial and the lease that an attempt runs under, if it is the one that counts.
    pub(super) fn running(&self, attempt: Attempt, worker: WorkerId) -> Result<(&Trial, &Lease), Rejection> {
        let trial = self.trial(attempt.trial).ok_or(Rejection::UnknownTrial { trial: attempt.trial })?;
        match trial.lease() {
            Some(lease) if trial.newest == Some(attempt.number) && lease.holder.worker == worker => {
                Ok((trial, lease))
            }
            _ => Err(Rejection::Superseded { attempt }),
        }
    }

    fn report(&self, attempt: Attempt, worker: WorkerId, report: Report) -> Result<Vec<Fact>, Rejection> {
        let (trial, _) = self.running(attempt, worker)?;
        let reported = trial.report.map_or(0, |report| report.epoch);
        if report.epoch <= reported {
            return Ok(Vec::new());
        }
        if report.epoch != reported + 1 || report.epoch > self.length(trial).epochs {
            return Err(Rejection::EpochGap { attempt, found: report.epoch, expected: reported + 1 });
        }
        Ok(vec![Fact::EpochReported { attempt, report }])
    }

    /// Whether an attempt that may have reported its last epoch would be the best, so that its model is needed.
    pub fn wants_model(&self, attempt: Attempt) -> bool {
        self.trial(attempt.trial).is_some_and(|trial| {
            let length = self.length(trial);
            let Some(report) = trial.report.filter(|report| length.may_end_after(report.epoch)) else {
                return false;
            };
            let key = RankKey::complete(self.created.spec.metric, &report, attempt.trial);
            trial.lease().is_some() && self.board.best().is_none_or(|best| key < best)
        })
    }

    fn complete(&self, attempt: Attempt, worker: WorkerId, outcome: Outcome) -> Result<Vec<Fact>, Rejection> {
        if let Evaluation::Running { attempt: evaluating, lease, .. } = &self.evaluation
            && *evaluating == attempt
            && lease.holder.worker == worker
        {
            return end_evaluation(attempt, outcome);
        }
        if self.has_ended_like(attempt, &outcome) {
            return Ok(Vec::new());
        }
        let (trial, _) = self.running(attempt, worker)?;
        match outcome {
            Outcome::Trained { model } => {
                let length = self.length(trial);
                if !trial.report.is_some_and(|report| length.may_end_after(report.epoch)) {
                    return Err(Rejection::WrongOutcome { attempt, problem: "it has epochs left to report" });
                }
                if model.is_none() && self.wants_model(attempt) {
                    return Err(Rejection::WrongOutcome {
                        attempt,
                        problem: "it is the best so far, so its model is needed",
                    });
                }
                Ok(vec![Fact::TrialCompleted { attempt, model }])
            }
            Outcome::Evaluated(_) => {
                Err(Rejection::WrongOutcome { attempt, problem: "it trains; it does not evaluate" })
            }
            Outcome::Failed(failure) => Ok(self.fail(attempt, trial, failure)),
            Outcome::Released => Ok(vec![Fact::AttemptReleased { attempt }]),
        }
    }

    /// Whether this outcome of this attempt is known already, so that the call is a repetition.
    fn has_ended_like(&self, attempt: Attempt, outcome: &Outcome) -> bool {
        let Some(trial) = self.trial(attempt.trial) else {
            return false;
        };
        match outcome {
            Outcome::Trained { .. } => {
                matches!(&trial.phase, Phase::Complete { attempt: number, .. } if *number == attempt.number)
            }
            Outcome::Evaluated(_) => {
                matches!(self.evaluation, Evaluation::Done { trial, .. } if trial == attempt.trial)
            }
            Outcome::Failed(_) | Outcome::Released => {
                trial.newest == Some(attempt.number)
                    && matches!(trial.phase, Phase::Waiting | Phase::Failed(_))
            }
        }
    }

    fn fail(&self, attempt: Attempt, trial: &Trial, failure: Failure) -> Vec<Fact> {
        let is_last = failure.reason == FailureReason::Diverged
            || trial.failures.saturating_add(1) >= self.created.spec.max_attempts;
        let mut facts = vec![Fact::AttemptFailed { attempt, failure: failure.clone() }];
        if is_last {
            facts.push(Fact::TrialFailed { trial: attempt.trial, failure });
        }
        facts
    }

    fn tick(&self, now: Timestamp) -> Vec<Fact> {
        let mut facts = Vec::new();
        for &id in &self.leased {
            let Some((trial, lease, number)) =
                self.trial(id).and_then(|it| Some((it, it.lease()?, it.newest?)))
            else {
                continue;
            };
            if lease.expires <= now {
                facts.extend(self.fail(Attempt { trial: id, number }, trial, lost(lease)));
            }
        }
        if let Evaluation::Running { attempt, lease, .. } = &self.evaluation
            && lease.expires <= now
        {
            facts.push(Fact::EvaluationFailed { attempt: *attempt, failure: lost(lease) });
        }
        if self.budget_end().is_some_and(|end| end <= now) {
            facts.push(Fact::SearchStopping { reason: "its budget of time is used up".to_owned() });
        }
        facts
    }

    fn pause(&self) -> Result<Vec<Fact>, Rejection> {
        match self.state {
            State::Running => Ok(vec![Fact::SearchPaused]),
            State::Paused => Ok(Vec::new()),
            State::Stopping { .. }
            | State::Complete { .. }
            | State::Cancelled { .. }
            | State::Failed { .. } => Err(Rejection::WrongState { state: self.state(), wish: "paused" }),
        }
    }

    fn resume(&self) -> Result<Vec<Fact>, Rejection> {
        match self.state {
            State::Running => Ok(Vec::new()),
            State::Paused => Ok(vec![Fact::SearchResumed]),
            State::Stopping { .. }
            | State::Complete { .. }
            | State::Cancelled { .. }
            | State::Failed { .. } => Err(Rejection::WrongState { state: self.state(), wish: "resumed" }),
        }
    }

    fn stop(&self) -> Result<Vec<Fact>, Rejection> {
        match self.state {
            State::Running | State::Paused => {
                Ok(vec![Fact::SearchStopping { reason: "stopped by the operator".to_owned() }])
            }
            State::Stopping { .. } | State::Complete { .. } => Ok(Vec::new()),
            State::Cancelled { .. } | State::Failed { .. } => {
                Err(Rejection::WrongState { state: self.state(), wish: "stopped" })
            }
        }
    }

    fn cancel(&self) -> Result<Vec<Fact>, Rejection> {
        match self.state {
            State::Running | State::Paused | State::Stopping { .. } => Ok(vec![Fact::SearchCancelled]),
            State::Cancelled { .. } => Ok(Vec::new()),
            State::Complete { .. } | State::Failed { .. } => {
                Err(Rejection::WrongState { state: self.state(), wish: "cancelled" })
            }
        }
    }
}

fn lost(lease: &Lease) -> Failure {
    Failure::new(FailureReason::WorkerLost, format!("worker {} was silent past its lease", lease.holder.name))
}

fn end_evaluation(attempt: Attempt, outcome: Outcome) -> Result<Vec<Fact>, Rejection> {
    match outcome {
        Outcome::Evaluated(test) => Ok(vec![Fact::BestEvaluated { trial: attempt.trial, test }]),
        Outcome::Failed(failure) => Ok(vec![Fact::EvaluationFailed { attempt, failure }]),
        Outcome::Released => Ok(vec![Fact::AttemptReleased { attempt }]),
        Outcome::Trained { .. } => {
            Err(Rejection::WrongOutcome { attempt, problem: "it evaluates; it does not train" })
        }
    }
}
