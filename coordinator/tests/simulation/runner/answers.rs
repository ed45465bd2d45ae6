//! What must be true of each answer of the task of a search when it is heard.

use fittingroom_common::event::Fact;
use fittingroom_common::id::{ArtifactHash, SlotNumber};
use fittingroom_common::work::Outcome;
use fittingroom_coordinator::runner::Refusal;
use fittingroom_coordinator::search::{Rejection, Search};

use super::clients::{Call, Clients, Heard, SEARCH, SLOTS, Step};
use crate::scenario::LEASE;
use crate::trainer::Fate;

impl Clients<'_> {
    /// Takes an answer. What is acknowledged is in the log; what is refused is nobody's who was refused.
    pub(super) fn hear(
        &mut self,
        slot: usize,
        call: Call,
        answer: Result<Heard, Refusal>,
    ) -> Result<(), String> {
        let (worker, number) = (self.worker(slot), SlotNumber::new((slot % SLOTS) as u32));
        let wrong = |what: &str| Err(format!("slot {slot}: {call:?} is answered, and {what}"));
        let heard = match answer {
            Ok(heard) => heard,
            Err(Refusal::NotDurable(_)) => {
                self.tally.not_durable += 1;
                return Ok(());
            }
            Err(Refusal::Stopping) => return wrong("the task has ended"),
            Err(Refusal::Rejected(rejection)) => {
                self.tally.refused += 1;
                return match (&call, rejection) {
                    (Call::Other, Rejection::WrongState { .. }) => Ok(()),
                    (_, Rejection::Superseded { attempt }) => {
                        self.steps[slot] = Step::Idle;
                        match self.log.holder(attempt) == Some((worker, number)) {
                            true => wrong("it is refused to who holds it"),
                            false => Ok(()),
                        }
                    }
                    (_, other) => wrong(&format!("it is refused: {other}")),
                };
            }
        };
        self.tally.answered += 1;
        let trainer = self.template.trainer;
        match (&call, heard) {
            (Call::Lease, Heard::Leased(Some((attempt, resume_from)))) => {
                let wish = |fact: &Fact| match fact {
                    Fact::AttemptStarted { attempt: it, holder }
                    | Fact::EvaluationStarted { attempt: it, holder } => {
                        *it == attempt && (holder.worker, holder.slot) == (worker, number)
                    }
                    _ => false,
                };
                if !self.log.has(wish) {
                    return wrong("the attempt was not given out");
                }
                self.steps[slot] = match resume_from {
                    Some(candidates) => Step::Begun { attempt, candidates },
                    None => {
                        let outcome = Outcome::Evaluated(trainer.test(attempt.trial));
                        Step::Completing { attempt, outcome }
                    }
                };
            }
            (Call::Report(attempt, epoch), Heard::Reported(wants_model)) => {
                let (attempt, epoch) = (*attempt, *epoch);
                let wish = |fact: &Fact| matches!(fact, Fact::EpochReported { attempt: it, report } if *it == attempt && report.epoch == epoch);
                if !self.log.has(wish) {
                    return wrong("the epoch is not in the log");
                }
                self.steps[slot] = if trainer.fate(attempt.trial) == Fate::Trained(epoch) {
                    let model = ArtifactHash::of(&attempt.trial.get().to_le_bytes());
                    let outcome = Outcome::Trained { model: wants_model.then_some(model) };
                    Step::Completing { attempt, outcome }
                } else {
                    Step::Training { attempt, next: epoch + 1 }
                };
            }
            (Call::Complete(attempt, outcome), Heard::Done) => {
                let wish = |fact: &Fact| match (fact, outcome) {
                    (Fact::TrialCompleted { attempt: it, .. }, Outcome::Trained { .. }) => it == attempt,
                    (Fact::BestEvaluated { trial, .. }, Outcome::Evaluated(_)) => *trial == attempt.trial,
                    (Fact::AttemptFailed { attempt: it, .. }, Outcome::Failed(_)) => it == attempt,
                    _ => false,
                };
                if !self.log.has(wish) {
                    return wrong("the outcome is not in the log");
                }
                self.steps[slot] = Step::Idle;
            }
            (Call::Keep(attempt, checkpoint), Heard::Done) => {
                let wish = |fact: &Fact| matches!(fact, Fact::CheckpointKept { attempt: it, checkpoint: kept } if it.trial == attempt.trial && kept.place >= checkpoint.place);
                if trainer.makes_checkpoints && !self.log.has(wish) {
                    return wrong("the checkpoint is not in the log");
                }
            }
            (Call::Lose(attempt), Heard::Remaining(candidates)) => {
                self.steps[slot] = Step::Begun { attempt: *attempt, candidates };
            }
            (Call::Renew(held), Heard::Renewed(renewed)) => {
                for (attempt, _) in held.iter().zip(renewed).filter(|(_, holds)| !holds) {
                    if self.log.holder(*attempt).is_some_and(|(holder, _)| holder == worker) {
                        return wrong("what it holds is taken from it");
                    }
                    let dropped = self.steps.iter_mut().filter(|step| step.attempt() == Some(*attempt));
                    dropped.for_each(|step| *step = Step::Idle);
                }
            }
            (Call::Look, Heard::Seen(version, counts, leases)) => {
                let version = usize::try_from(version).unwrap_or(usize::MAX);
                let then = self.log.events(|events| {
                    let events = events.get(..version)?.iter().cloned();
                    let search = Search::replay(SEARCH, events, LEASE)?;
                    Some((search.summary().counts, search.leases()))
                });
                if then != Some((counts, leases)) {
                    return wrong(&format!(
                        "{counts:?} with {leases} leases is seen, where the log has {then:?}"
                    ));
                }
            }
            (Call::Lease, Heard::Leased(None)) | (Call::Other, Heard::Done) => {}
            (_, heard) => return wrong(&format!("with {heard:?}")),
        }
        Ok(())
    }
}
