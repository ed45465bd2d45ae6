//! A simulated worker: slots that ask for work, train, report and complete, each call again until it
//! is answered, as the real agent does.

mod keeper;

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::id::{Attempt, SlotNumber, WorkerId};
use fittingroom_common::trial::{Failure, FailureReason};
use fittingroom_common::work::Outcome;

use crate::message::{Answer, Call, Caller, Given, Line};
use crate::scenario::Chance;
use crate::store::Blob;
use crate::trainer::{Fate, Trainer};
use keeper::Keeping;

/// How long a call waits for its answer before it is made again.
const PATIENCE: u64 = 3_000;
/// How long a slot that got no work waits.
const IDLE: u64 = 2_500;
/// The time between two heartbeats.
pub(crate) const HEARTBEAT: u64 = 2_000;

/// What a slot does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Asking,
    /// Of these, the first is to be gone on from.
    Fetching {
        attempt: Attempt,
        candidates: Vec<Checkpoint>,
    },
    /// Of these, the first cannot be used.
    Losing {
        attempt: Attempt,
        candidates: Vec<Checkpoint>,
    },
    Training {
        attempt: Attempt,
        epoch: u32,
    },
    Reporting {
        attempt: Attempt,
        epoch: u32,
    },
    Uploading {
        attempt: Attempt,
    },
    Evaluating {
        attempt: Attempt,
    },
    Completing {
        attempt: Attempt,
        outcome: Outcome,
    },
    /// The worker drains.
    Idle,
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) step: Step,
    /// Which step it is: a timer of an earlier one is not heard.
    pub(crate) generation: u64,
    /// The call whose answer is waited for.
    call: u64,
    /// The newest epoch of the attempt that the coordinator knows of.
    answered: u32,
    keeping: Option<Keeping>,
}

/// A machine with one agent at a time.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) number: usize,
    /// Which run of the agent it is.
    pub(crate) run: u64,
    pub(crate) is_up: bool,
    pub(crate) drains: bool,
    /// Until when it is stopped, as by SIGSTOP.
    pub(crate) stopped_until: u64,
    /// Until when nothing gets from it to the coordinator, and back.
    pub(crate) cut_there_until: u64,
    pub(crate) cut_back_until: u64,
    pub(crate) slots: Vec<Slot>,
    calls: u64,
}

/// What a slot does next: when its timer is to fire, and the calls that it makes.
pub(crate) struct Next {
    pub(crate) after: u64,
    pub(crate) calls: Vec<Call>,
}

/// What befalls trainers, in a thousand, and how long their longest epoch takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) crash: u64,
    pub(crate) checkpoints: u64,
    pub(crate) refused: u64,
    pub(crate) slowest_epoch: u64,
}

impl Machine {
    pub(crate) fn new(number: usize, slots: u64) -> Self {
        let slot = Slot { step: Step::Asking, generation: 0, call: 0, answered: 0, keeping: None };
        Self {
            number,
            run: 0,
            is_up: false,
            drains: false,
            stopped_until: 0,
            cut_there_until: 0,
            cut_back_until: 0,
            slots: vec![slot; slots as usize],
            calls: 0,
        }
    }

    /// Starts an agent, which knows nothing of the one before.
    pub(crate) fn start(&mut self) {
        self.run += 1;
        (self.is_up, self.drains) = (true, false);
        for slot in &mut self.slots {
            slot.step = Step::Asking;
            slot.keeping = None;
            slot.generation += 1;
        }
    }

    pub(crate) const fn worker(&self) -> WorkerId {
        WorkerId::new((self.number as u128 + 1) << 32 | self.run as u128)
    }

    fn caller(&mut self, slot: usize) -> Caller {
        self.calls += 1;
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.call = self.calls;
        }
        let line = Line::Work;
        Caller { machine: self.number, worker: self.worker(), slot, line, call: self.calls }
    }

    /// What all slots hold.
    fn held(&self) -> Vec<Attempt> {
        self.slots.iter().filter_map(|slot| slot.step.attempt()).collect()
    }

    pub(crate) fn heartbeat(&mut self) -> Call {
        let (held, draining) = (self.held(), self.drains);
        Call::Heartbeat { from: self.caller(usize::MAX), held, draining }
    }

    /// The agent is told to end: it gives back what it holds. Answers the slots to be looked after.
    pub(crate) fn drain(&mut self) -> Vec<usize> {
        self.drains = true;
        let slots = 0..self.slots.len();
        slots
            .filter(|&slot| {
                let step = match self.slots[slot].step.attempt() {
                    Some(attempt) => Step::Completing { attempt, outcome: Outcome::Released },
                    None => Step::Idle,
                };
                self.turn_to(slot, step);
                matches!(self.slots[slot].step, Step::Completing { .. })
            })
            .collect()
    }

    pub(crate) fn has_drained(&self) -> bool {
        self.drains && self.slots.iter().all(|slot| matches!(slot.step, Step::Idle))
    }

    fn turn_to(&mut self, slot: usize, step: Step) {
        let slot = &mut self.slots[slot];
        slot.step = step;
        slot.generation += 1;
    }

    fn free(&mut self, slot: usize) {
        self.slots[slot].keeping = None;
        self.turn_to(slot, if self.drains { Step::Idle } else { Step::Asking });
    }

    /// A slot's timer fires: an epoch is over, or an answer has not come in time.
    pub(crate) fn wake(&mut self, slot: usize, trainer: &Trainer, chance: &mut Chance, rates: Rates) -> Next {
        let mut checkpoint = None;
        match self.slots[slot].step {
            Step::Training { attempt, epoch } => {
                let fate = trainer.fate(attempt.trial);
                if trainer.makes_checkpoints && chance.happens(rates.checkpoints) {
                    // In the middle of the epoch, or at the beginning of the next one.
                    let goes_on = !matches!(fate, Fate::Trained(last) if last == epoch);
                    let done = if goes_on && chance.happens(500) { epoch } else { epoch - 1 };
                    checkpoint = Some(self.bring(slot, attempt, CheckpointPlace { epoch: done, step: 1 }));
                }
                let step = match fate {
                    _ if chance.happens(rates.crash) => failed(attempt, FailureReason::TrainerCrashed),
                    Fate::Diverges(after) if after == epoch - 1 => failed(attempt, FailureReason::Diverged),
                    Fate::Diverges(_) | Fate::Trained(_) => Step::Reporting { attempt, epoch },
                };
                self.turn_to(slot, step);
            }
            Step::Uploading { attempt } => self.complete(slot, attempt, trained(attempt)),
            Step::Evaluating { attempt } if chance.happens(rates.crash) => {
                self.turn_to(slot, failed(attempt, FailureReason::TrainerCrashed));
            }
            Step::Evaluating { attempt } => {
                self.complete(slot, attempt, Outcome::Evaluated(trainer.test(attempt.trial)));
            }
            Step::Asking
            | Step::Fetching { .. }
            | Step::Losing { .. }
            | Step::Reporting { .. }
            | Step::Completing { .. }
            | Step::Idle => {}
        }
        let mut next = self.call(slot, trainer);
        next.calls.extend(checkpoint);
        next
    }

    /// Makes the call that belongs to the slot's step.
    pub(crate) fn call(&mut self, slot: usize, trainer: &Trainer) -> Next {
        let from = self.caller(slot);
        let call = match &self.slots[slot].step {
            Step::Asking => Some(Call::Lease(from, SlotNumber::new(slot as u32))),
            Step::Fetching { attempt, candidates } => {
                candidates.first().map(|newest| Call::Fetch(from, *attempt, newest.hash))
            }
            Step::Losing { attempt, candidates } => {
                candidates.first().map(|newest| Call::Lose(from, *attempt, newest.hash))
            }
            Step::Reporting { attempt, epoch } => {
                Some(Call::Report(from, *attempt, trainer.report(attempt.trial, *epoch)))
            }
            Step::Completing { attempt, outcome } => Some(Call::Complete(from, *attempt, outcome.clone())),
            Step::Training { .. } | Step::Uploading { .. } | Step::Evaluating { .. } | Step::Idle => None,
        };
        Next { after: PATIENCE, calls: call.into_iter().collect() }
    }

    fn complete(&mut self, slot: usize, attempt: Attempt, outcome: Outcome) {
        self.turn_to(slot, Step::Completing { attempt, outcome });
    }

    /// Takes an answer; says what the slot does next, or `None` if nobody waits for the answer.
    pub(crate) fn hear(
        &mut self,
        to: Caller,
        answer: Answer,
        trainer: &Trainer,
        chance: &mut Chance,
        rates: Rates,
    ) -> Option<Next> {
        let slot = to.slot;
        if self.slots.get(slot)?.call != to.call {
            return None;
        }
        let is_refused = chance.happens(rates.refused);
        let mut epoch_time = || chance.within(50, rates.slowest_epoch + 50);
        let mut calls = Vec::new();
        let after = match (self.slots[slot].step.clone(), answer) {
            (Step::Asking, Answer::Leased(Some(Given { attempt, evaluates: true, .. }))) => {
                self.turn_to(slot, Step::Evaluating { attempt });
                epoch_time()
            }
            (Step::Asking, Answer::Leased(Some(Given { attempt, resume_from, .. }))) => {
                if self.go_on_from(slot, attempt, resume_from) {
                    return Some(self.call(slot, trainer));
                }
                epoch_time()
            }
            (Step::Fetching { attempt, candidates }, Answer::Fetched(found)) => {
                let newest = candidates.first()?.place;
                if found != Some(Blob::Good) || is_refused {
                    self.turn_to(slot, Step::Losing { attempt, candidates });
                    return Some(self.call(slot, trainer));
                }
                self.slots[slot].answered = newest.epoch;
                self.turn_to(slot, Step::Training { attempt, epoch: newest.epoch + 1 });
                epoch_time()
            }
            (Step::Losing { attempt, mut candidates }, Answer::Lost) => {
                candidates.remove(0);
                if self.go_on_from(slot, attempt, candidates) {
                    return Some(self.call(slot, trainer));
                }
                epoch_time()
            }
            (Step::Asking, Answer::Leased(None)) => IDLE,
            (Step::Reporting { attempt, epoch }, Answer::Reported(wants_model)) => {
                self.slots[slot].answered = epoch;
                calls.extend(self.name(slot));
                if trainer.fate(attempt.trial) != Fate::Trained(epoch) {
                    self.turn_to(slot, Step::Training { attempt, epoch: epoch + 1 });
                    epoch_time()
                } else if wants_model {
                    self.turn_to(slot, Step::Uploading { attempt });
                    epoch_time()
                } else {
                    self.complete(slot, attempt, Outcome::Trained { model: None });
                    let mut next = self.call(slot, trainer);
                    next.calls.extend(calls);
                    return Some(next);
                }
            }
            (Step::Completing { .. }, Answer::Completed)
            | (
                Step::Fetching { .. }
                | Step::Losing { .. }
                | Step::Reporting { .. }
                | Step::Completing { .. },
                Answer::Rejected(_),
            ) => {
                self.free(slot);
                return Some(self.call(slot, trainer));
            }
            (_, Answer::Unavailable) => 500,
            _ => return None,
        };
        self.slots[slot].generation += 1;
        Some(Next { after, calls })
    }

    /// Begins to train from the first of these checkpoints, or from the beginning; answers whether there
    /// is one to be fetched.
    fn go_on_from(&mut self, slot: usize, attempt: Attempt, candidates: Vec<Checkpoint>) -> bool {
        let is_begun = candidates.is_empty();
        self.slots[slot].answered = 0;
        let step = if is_begun {
            Step::Training { attempt, epoch: 1 }
        } else {
            Step::Fetching { attempt, candidates }
        };
        self.turn_to(slot, step);
        !is_begun
    }

    /// Takes the answer to a heartbeat; answers the slots whose work was dropped.
    pub(crate) fn obey(&mut self, renewed: &[(Attempt, bool)]) -> Vec<usize> {
        let dropped = |slot: &usize| {
            let held = self.slots[*slot].step.attempt();
            renewed.iter().any(|&(attempt, holds)| !holds && held == Some(attempt))
        };
        let slots: Vec<usize> = (0..self.slots.len()).filter(dropped).collect();
        slots.iter().for_each(|&slot| self.free(slot));
        slots
    }
}

impl Step {
    pub(crate) const fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::Asking | Self::Idle => None,
            Self::Fetching { attempt, .. }
            | Self::Losing { attempt, .. }
            | Self::Training { attempt, .. }
            | Self::Reporting { attempt, .. }
            | Self::Uploading { attempt }
            | Self::Evaluating { attempt }
            | Self::Completing { attempt, .. } => Some(*attempt),
        }
    }
}

fn trained(attempt: Attempt) -> Outcome {
    let model = fittingroom_common::id::ArtifactHash::of(&attempt.trial.get().to_le_bytes());
    Outcome::Trained { model: Some(model) }
}

fn failed(attempt: Attempt, reason: FailureReason) -> Step {
    Step::Completing { attempt, outcome: Outcome::Failed(Failure::new(reason, "")) }
}
