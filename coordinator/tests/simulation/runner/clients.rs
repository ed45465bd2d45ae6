//! Workers and an operator who call the task of a search through its handle, some at once, each again until
//! it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::id::{ArtifactHash, Attempt, Name, SearchId, SlotNumber, WorkerId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason};
use fittingroom_common::view::{SearchState, TrialCounts};
use fittingroom_common::work::{Holder, Outcome, Work};
use fittingroom_coordinator::checkpoints::Checkpoints;
use fittingroom_coordinator::clock::Clock;
use fittingroom_coordinator::runner::{Refusal, SearchHandle, Surroundings, restore, start};
use fittingroom_coordinator::search::{Command, Search};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::log::FaultyLog;
use super::{BOUND, FAULTY, Tally};
use crate::scenario::{Chance, LEASE, Template};
use crate::trainer::Fate;

pub(super) const SEARCH: SearchId = SearchId::new(1);
/// The slots of each worker.
pub(super) const SLOTS: usize = 2;

/// How a process ended.
pub(super) enum Life {
    Died,
    /// The search was over before.
    Ended,
}

/// What a slot holds.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Idle,
    /// Of these, the first is gone on from.
    Begun {
        attempt: Attempt,
        candidates: Vec<Checkpoint>,
    },
    /// That one cannot be used.
    Losing {
        attempt: Attempt,
        hash: ArtifactHash,
    },
    Training {
        attempt: Attempt,
        next: u32,
    },
    Completing {
        attempt: Attempt,
        outcome: Outcome,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Call {
    Lease,
    Report(Attempt, u32),
    Complete(Attempt, Outcome),
    Keep(Attempt, Checkpoint),
    Lose(Attempt),
    Renew(Vec<Attempt>),
    Look,
    /// The time, or an operator.
    Other,
}

#[derive(Debug)]
pub(super) enum Heard {
    Leased(Option<(Attempt, Option<Vec<Checkpoint>>)>),
    Reported(bool),
    Remaining(Vec<Checkpoint>),
    Renewed(Vec<bool>),
    Seen(u64, TrialCounts, usize),
    Done,
}

/// Who called, what, and the answer.
type Answered = (usize, Call, Result<Heard, Refusal>);

/// A clock that stands still until it is told to go on.
#[derive(Default)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

pub(super) struct Clients<'a> {
    pub(super) template: &'a Template,
    pub(super) log: FaultyLog,
    checkpoints: Arc<Checkpoints>,
    clock: Arc<HandClock>,
    chance: Chance,
    pub(super) steps: Vec<Step>,
    /// Which run of its agent each worker is.
    runs: Vec<u64>,
    has_two_owners: bool,
    round: u64,
    pub(super) tally: Tally,
}

impl<'a> Clients<'a> {
    pub(super) fn new(
        template: &'a Template,
        log: FaultyLog,
        checkpoints: Arc<Checkpoints>,
        mut chance: Chance,
    ) -> Self {
        let workers = chance.within(1, 5) as usize;
        let has_two_owners = chance.happens(200);
        Self {
            template,
            log,
            checkpoints,
            clock: Arc::default(),
            chance,
            steps: vec![Step::Idle; workers * SLOTS],
            runs: vec![0; workers],
            has_two_owners,
            round: 0,
            tally: Tally { late_lookers: u64::from(has_two_owners), ..Tally::default() },
        }
    }

    /// Calls a process until it dies or the search is over.
    pub(super) async fn live(&mut self) -> Result<Life, String> {
        let process = self.log.begin();
        self.log.tell(|| "a process begins".to_owned());
        let handle = self.own().await?;
        let earlier = if self.has_two_owners { Some(self.own().await?) } else { None };
        while !self.log.state().is_some_and(SearchState::has_ended) {
            self.round += 1;
            if self.round == FAULTY {
                self.log.heal();
            }
            if self.round > FAULTY + BOUND {
                return Err(format!("the search has not ended {BOUND} rounds after the last fault"));
            }
            let mut calls = self.calls(&handle, earlier.as_ref());
            loop {
                let answered = tokio::select! {
                    biased;
                    () = process.cancelled() => return Ok(Life::Died),
                    answered = calls.next() => answered,
                };
                let Some((slot, call, answer)) = answered else { break };
                self.log.tell(|| format!("slot {slot}: {call:?} -> {answer:?}"));
                self.hear(slot, call, answer)?;
            }
            if let Some(finding) = self.log.finding() {
                return Err(format!("the log breaks a rule: {finding}"));
            }
        }
        Ok(Life::Ended)
    }

    /// A task that owns the search as the log has it.
    async fn own(&self) -> Result<SearchHandle, String> {
        let surroundings = Surroundings {
            log: Arc::new(self.log.clone()),
            clock: self.clock.clone(),
            checkpoints: Arc::clone(&self.checkpoints),
            lease: LEASE,
            work: watch::channel(0).0,
            shutdown: CancellationToken::new(),
        };
        let loaded = restore::load(&self.log, SEARCH, LEASE).await.map_err(|error| error.to_string())?;
        let mut search = loaded.ok_or("the log has no search")?.search;
        search.grant_grace(self.clock.now());
        let handle = start(search, surroundings);
        // Its first look at the leases is over with this.
        handle.query(|_| ()).await.map_err(|error| error.to_string())?;
        Ok(handle)
    }

    fn is_healed(&self) -> bool {
        self.round >= FAULTY
    }

    pub(super) fn worker(&self, slot: usize) -> WorkerId {
        let worker = slot / SLOTS;
        WorkerId::new((worker as u128 + 1) << 32 | u128::from(self.runs[worker]))
    }

    /// What everybody asks in a round. An earlier owner is told the time alone, and acts on it.
    fn calls(
        &mut self,
        handle: &SearchHandle,
        earlier: Option<&SearchHandle>,
    ) -> FuturesUnordered<BoxFuture<'static, Answered>> {
        let jump = self.chance.one_of(&[0, 0, 100, 2_000, 8_000]);
        self.clock.0.fetch_add(jump, Ordering::Relaxed);
        let calls = FuturesUnordered::new();
        for worker in 0..self.runs.len() {
            let slots = worker * SLOTS..(worker + 1) * SLOTS;
            if !self.is_healed() && self.chance.happens(20) {
                self.log.tell(|| format!("the agent of worker {worker} dies"));
                self.runs[worker] += 1;
                slots.clone().for_each(|slot| self.steps[slot] = Step::Idle);
            }
            if self.is_healed() || self.chance.happens(500) {
                calls.push(self.renew(slots.start, handle));
            }
        }
        for slot in 0..self.steps.len() {
            if self.chance.happens(700) {
                calls.push(self.call(slot, handle));
            }
        }
        if self.chance.happens(300) {
            let look =
                |search: &Search| Heard::Seen(search.version(), search.summary().counts, search.leases());
            let (handle, pause) = (handle.clone(), self.pause());
            let looked = async move {
                give_way(pause).await;
                (0, Call::Look, handle.query(look).await)
            };
            calls.push(looked.boxed());
        }
        if self.is_healed() || self.chance.happens(500) {
            calls.push(self.ask(0, Call::Other, Command::Tick, handle, |_| Heard::Done));
        }
        if let Some(earlier) = earlier
            && !self.is_healed()
            && self.chance.happens(500)
        {
            calls.push(self.ask(0, Call::Other, Command::Tick, earlier, |_| Heard::Done));
        }
        let is_paused = self.log.state() == Some(SearchState::Paused);
        if !self.is_healed() && self.chance.happens(40) {
            let command = if is_paused { Command::Resume } else { Command::Pause };
            calls.push(self.ask(0, Call::Other, command, handle, |_| Heard::Done));
        }
        if self.is_healed() && is_paused {
            calls.push(self.ask(0, Call::Other, Command::Resume, handle, |_| Heard::Done));
        }
        calls
    }

    fn pause(&mut self) -> u64 {
        if self.chance.happens(500) { 0 } else { self.chance.within(0, 50) }
    }

    fn ask(
        &mut self,
        slot: usize,
        call: Call,
        command: Command,
        handle: &SearchHandle,
        look: impl FnOnce(&Search) -> Heard + Send + 'static,
    ) -> BoxFuture<'static, Answered> {
        let (handle, pause) = (handle.clone(), self.pause());
        async move {
            give_way(pause).await;
            (slot, call, handle.command(command, look).await)
        }
        .boxed()
    }

    fn renew(&mut self, first: usize, handle: &SearchHandle) -> BoxFuture<'static, Answered> {
        let held: Vec<Attempt> = self.steps[first..first + SLOTS].iter().filter_map(Step::attempt).collect();
        let (handle, pause, worker) = (handle.clone(), self.pause(), self.worker(first));
        async move {
            give_way(pause).await;
            let named = held.iter().map(|attempt| (*attempt, None)).collect();
            let renewed = handle.renew(worker, named).await;
            (first, Call::Renew(held), renewed.map(Heard::Renewed))
        }
        .boxed()
    }

    /// What a slot asks for next.
    fn call(&mut self, slot: usize, handle: &SearchHandle) -> BoxFuture<'static, Answered> {
        let (worker, number) = (self.worker(slot), SlotNumber::new((slot % SLOTS) as u32));
        let trainer = self.template.trainer;
        if let Step::Begun { attempt, candidates } = &self.steps[slot] {
            let attempt = *attempt;
            self.steps[slot] = match candidates.first().copied() {
                Some(Checkpoint { hash, .. }) if self.chance.happens(250) => Step::Losing { attempt, hash },
                newest => Step::Training { attempt, next: newest.map_or(1, |newest| newest.place.epoch + 1) },
            };
        }
        if let Step::Training { attempt, next } = self.steps[slot] {
            let diverges = trainer.fate(attempt.trial) == Fate::Diverges(next - 1);
            let crashes = !self.is_healed() && self.chance.happens(20);
            if diverges || crashes {
                let reason = if diverges { FailureReason::Diverged } else { FailureReason::TrainerCrashed };
                let outcome = Outcome::Failed(Failure::new(reason, ""));
                self.steps[slot] = Step::Completing { attempt, outcome };
            }
        }
        match self.steps[slot].clone() {
            Step::Idle | Step::Begun { .. } => {
                let name = Name::sanitised("worker");
                let command = Command::Lease { holder: Holder { worker, name, slot: number } };
                let look = move |search: &Search| {
                    let given = search.assignment(worker, number);
                    Heard::Leased(given.map(|it| (it.id.attempt, resume_from(it.work))))
                };
                self.ask(slot, Call::Lease, command, handle, look)
            }
            Step::Losing { attempt, hash } => {
                let problem = String::new();
                let command = Command::LoseCheckpoint { attempt, worker, hash, problem };
                let look = move |search: &Search| {
                    let work = search.assignment(worker, number).map(|it| it.work);
                    Heard::Remaining(work.and_then(resume_from).unwrap_or_default())
                };
                self.ask(slot, Call::Lose(attempt), command, handle, look)
            }
            Step::Training { attempt, next } if next > 1 && self.chance.happens(250) => {
                let place = CheckpointPlace { epoch: next - 1, step: 1 };
                let hash = ArtifactHash::of(format!("{attempt} {place:?}").as_bytes());
                let checkpoint = Checkpoint { place, hash };
                let command = Command::KeepCheckpoint { attempt, worker, checkpoint };
                self.ask(slot, Call::Keep(attempt, checkpoint), command, handle, |_| Heard::Done)
            }
            Step::Training { attempt, next } => {
                let report = trainer.report(attempt.trial, next);
                let command = Command::Report { attempt, worker, report };
                let look = move |search: &Search| Heard::Reported(search.wants_model(attempt));
                self.ask(slot, Call::Report(attempt, next), command, handle, look)
            }
            Step::Completing { attempt, outcome } => {
                let command = Command::Complete { attempt, worker, outcome: outcome.clone() };
                self.ask(slot, Call::Complete(attempt, outcome), command, handle, |_| Heard::Done)
            }
        }
    }
}

impl Step {
    pub(super) fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::Idle => None,
            Self::Begun { attempt, .. }
            | Self::Losing { attempt, .. }
            | Self::Training { attempt, .. }
            | Self::Completing { attempt, .. } => Some(*attempt),
        }
    }
}

/// What training begins after; `None` of an evaluation.
fn resume_from(work: Work) -> Option<Vec<Checkpoint>> {
    match work {
        Work::Train { resume_from, .. } => Some(resume_from),
        Work::Evaluate { .. } => None,
    }
}

async fn give_way(times: u64) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}
