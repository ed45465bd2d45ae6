//! What must be true of what a simulated coordinator decides, answers and keeps, beside what the audit of
//! its log finds.

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{Attempt, WorkerId};
use fittingroom_common::trial::{Failure, FailureReason};
use fittingroom_coordinator::search::{Rejection, Search};

use super::Coordinator;
use crate::message::{Answer, Caller};
use crate::scenario::LEASE_MS;
use crate::store::Key;

impl Coordinator {
    /// A worker is lost only if nothing was heard of it for a whole lease in which somebody listened.
    pub(super) fn must_have_been_silent(
        &self,
        attempt: Attempt,
        failure: &Failure,
        now: u64,
    ) -> Result<(), String> {
        let heard = self.heard.get(&attempt).copied().unwrap_or(0).max(self.listening_since);
        if failure.reason == FailureReason::WorkerLost && now - heard < LEASE_MS {
            return Err(format!("attempt {attempt} is lost {} ms after it was heard of", now - heard));
        }
        Ok(())
    }

    /// What the holder of an attempt is answered: that it is accepted, with the events that follow, or why not.
    pub(super) fn answer(
        &self,
        decided: Result<Vec<Event>, Rejection>,
        (attempt, worker): (Attempt, WorkerId),
        events: &mut Vec<Event>,
        accepted: impl FnOnce() -> Answer,
    ) -> Result<Answer, String> {
        let new = match decided {
            Ok(new) => new,
            Err(rejection) => return Ok(Answer::Rejected(rejection)),
        };
        self.must_be_its_holder(&new, attempt, worker)?;
        events.extend(new);
        Ok(accepted())
    }

    pub(super) fn must_be_its_holder(
        &self,
        new: &[Event],
        attempt: Attempt,
        worker: WorkerId,
    ) -> Result<(), String> {
        let holder = self.given.get(&attempt).map(|(worker, _)| *worker);
        if !new.is_empty() && holder != Some(worker) {
            return Err(format!(
                "a call of {worker} about attempt {attempt} is accepted, which {holder:?} holds"
            ));
        }
        Ok(())
    }

    /// Nothing that the next attempt would go on from is deleted.
    pub(super) fn must_store_what_is_kept(&self, search: &Search) -> Result<(), String> {
        let is_gone = |key: &Key| self.store.get(*key).is_none() && !self.store.lost.contains(key);
        match search.checkpoints().find(is_gone) {
            Some((trial, hash)) => Err(format!("checkpoint {hash} of trial {trial} is kept and not stored")),
            None => Ok(()),
        }
    }

    /// What is acknowledged is in the log; what is refused is not.
    pub(super) fn check_answer(
        &self,
        from: Caller,
        answer: &Answer,
        said: Option<(Attempt, Said)>,
    ) -> Result<(), String> {
        let is_logged =
            |wish: &dyn Fn(&Fact) -> bool| self.disk.log.iter().rev().any(|event| wish(&event.fact));
        if let (Answer::Rejected(rejection), Some((attempt, _))) = (answer, said) {
            let holds = self.audit.holder(attempt).is_some_and(|(worker, _)| worker == from.worker);
            if holds || !matches!(rejection, Rejection::Superseded { .. }) {
                return Err(format!("{from:?} is refused: {rejection}"));
            }
        }
        match (answer, said) {
            (Answer::Leased(Some(given)), _) => {
                let wish = |fact: &Fact| match fact {
                    Fact::AttemptStarted { attempt, holder }
                    | Fact::EvaluationStarted { attempt, holder } => {
                        *attempt == given.attempt
                            && holder.worker == from.worker
                            && usize::try_from(holder.slot.get()) == Ok(from.slot)
                    }
                    _ => false,
                };
                if !is_logged(&wish) {
                    return Err(format!("{given:?} is given to {from:?}, and not in the log"));
                }
            }
            (Answer::Reported(_), Some((attempt, Said::Epoch(epoch)))) => {
                let wish = |fact: &Fact| matches!(fact, Fact::EpochReported { attempt: it, report } if *it == attempt && report.epoch == epoch);
                if !is_logged(&wish) {
                    return Err(format!(
                        "epoch {epoch} of attempt {attempt} is acknowledged and not in the log"
                    ));
                }
            }
            (Answer::Kept, Some((attempt, Said::Checkpoint(checkpoint)))) => {
                let wish = |fact: &Fact| matches!(fact, Fact::CheckpointKept { attempt: it, checkpoint: kept } if it.trial == attempt.trial && kept.place >= checkpoint.place);
                if !is_logged(&wish) {
                    return Err(format!(
                        "{checkpoint:?} of attempt {attempt} is acknowledged and not in the log"
                    ));
                }
            }
            (Answer::Completed | Answer::Rejected(_), Some((attempt, Said::Trained))) => {
                let wish =
                    |fact: &Fact| matches!(fact, Fact::TrialCompleted { attempt: it, .. } if *it == attempt);
                if is_logged(&wish) != matches!(answer, Answer::Completed) {
                    return Err(format!(
                        "the completion of attempt {attempt} is answered {answer:?}, and the log says otherwise"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a worker said about an attempt, as far as the answer is checked against the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Epoch(u32),
    Checkpoint(Checkpoint),
    Trained,
    Other,
}

pub(super) fn tell(fact: &Fact) -> String {
    match fact {
        Fact::TrialPlanned { trial, .. } => format!("trial {trial} planned"),
        Fact::AttemptStarted { attempt, holder } => {
            format!("attempt {attempt} started on {:x}/{}", holder.worker.bits(), holder.slot)
        }
        Fact::EpochReported { attempt, report } => format!("attempt {attempt} epoch {}", report.epoch),
        Fact::EvaluationStarted { attempt, holder } => {
            format!("evaluation {attempt} started on {:x}/{}", holder.worker.bits(), holder.slot)
        }
        other => format!("{other:?}"),
    }
}
