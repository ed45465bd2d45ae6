//! The one task that owns a search: mailbox, decide, append, apply, answer.
//!
//! It takes what has gathered in its mailbox, lets the search decide all of it, makes the events
//! durable in one append, and only then answers anybody. If the append fails, nobody is told that
//! anything happened: the search is thrown away and loaded from the log again. Every so many events a
//! snapshot goes with an append. A search that has ended and that nobody asks for rests: its state is
//! dropped, and loaded when somebody asks.

mod owner;
pub mod restore;

use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::event::Event;
use fittingroom_common::id::{ArtifactHash, Attempt, Name, SearchId, WorkerId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::view::{Progress, SearchState, SearchSummary, TrialCounts};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};

use crate::checkpoints::Checkpoints;
use crate::clock::Clock;
use crate::log::{Append, EventLog, LogError};
use crate::search::{Command, Glance, Rejection, Search, Snapshot};
use owner::{Mind, Owner};

/// The most envelopes that wait in a mailbox. More make their senders wait.
const MAILBOX: usize = 4096;
/// The most envelopes of one append.
const MOST_PER_APPEND: usize = 512;
/// How often leases and budgets are looked at.
const TICK: Duration = Duration::from_millis(250);
/// After how many events a snapshot is taken: the most that a restart reads, and the most trials of one part of it.
const SNAPSHOT_EVERY: usize = 16_384;
/// How long a search that has ended stays in memory after it was asked for.
const REST_AFTER: Duration = Duration::from_secs(300);
/// How long to wait before a log that failed is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a search did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// The search said no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What was decided could not be made durable, so it has not happened.
    #[error(transparent)]
    NotDurable(#[from] Arc<LogError>),
    /// The coordinator is stopping, or a resting search cannot be loaded.
    #[error("the coordinator is stopping, or cannot read the search: its log says which")]
    Stopping,
}

/// What a search shows without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Where it stands.
    pub state: SearchState,
    /// How many trials are in each state.
    pub trials: TrialCounts,
    /// How many attempts are out on workers.
    pub leases: usize,
    /// Whether a slot that asks now would get work.
    pub has_work: bool,
    /// Counts everything that a watcher could see change.
    pub changes: u64,
}

type Deliver = Box<dyn FnOnce(&Search, Result<(), Refusal>) -> Delivery + Send>;
/// Gives the answer, once what it says is durable.
type Delivery = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

enum Envelope {
    Command {
        command: Command,
        deliver: Deliver,
    },
    Renew {
        worker: WorkerId,
        held: Vec<(Attempt, Option<Progress>)>,
        answer: oneshot::Sender<Vec<bool>>,
    },
    Query(Box<dyn FnOnce(&Search) + Send>),
    /// The one question that a resting search answers.
    Glance(oneshot::Sender<Glance>),
}

/// Speaks to the task that owns a search.
#[derive(Clone, Debug)]
pub struct SearchHandle {
    id: SearchId,
    name: Name,
    mailbox: mpsc::Sender<Envelope>,
    pulse: watch::Receiver<Pulse>,
}

impl SearchHandle {
    /// Which search it is.
    pub const fn id(&self) -> SearchId {
        self.id
    }

    /// What people call it.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// What the search shows without being asked.
    pub fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.clone()
    }

    /// What the search shows at this moment.
    pub fn pulse_now(&self) -> Pulse {
        *self.pulse.borrow()
    }

    /// Gives a command, and answers what `look` sees right after it, once that is durable.
    pub async fn command<T: Send + 'static>(
        &self,
        command: Command,
        look: impl FnOnce(&Search) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let deliver: Deliver = Box::new(move |search, decided| {
            let seen = decided.map(|()| look(search));
            // Whoever asked may have gone; what was decided stands all the same.
            Box::new(move |durable| drop(answer.send(durable.and(seen))))
        });
        let envelope = Envelope::Command { command, deliver };
        self.mailbox.send(envelope).await.map_err(|_| Refusal::Stopping)?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Renews the leases that a worker says it holds; answers for each whether it does.
    pub async fn renew(
        &self,
        worker: WorkerId,
        held: Vec<(Attempt, Option<Progress>)>,
    ) -> Result<Vec<bool>, Refusal> {
        let (answer, answered) = oneshot::channel();
        let envelope = Envelope::Renew { worker, held, answer };
        self.mailbox.send(envelope).await.map_err(|_| Refusal::Stopping)?;
        answered.await.map_err(|_| Refusal::Stopping)
    }

    /// The search at a glance.
    pub async fn summary(&self) -> Result<SearchSummary, Refusal> {
        Ok(self.glance().await?.summary)
    }

    /// The best trial's model.
    pub async fn best_model(&self) -> Result<Option<ArtifactHash>, Refusal> {
        Ok(self.glance().await?.best_model)
    }

    async fn glance(&self) -> Result<Glance, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.mailbox.send(Envelope::Glance(answer)).await.map_err(|_| Refusal::Stopping)?;
        answered.await.map_err(|_| Refusal::Stopping)
    }

    /// What `look` sees of the search, of durable facts alone.
    pub async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Search) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone.
        let query = Envelope::Query(Box::new(move |search| drop(answer.send(look(search)))));
        self.mailbox.send(query).await.map_err(|_| Refusal::Stopping)?;
        answered.await.map_err(|_| Refusal::Stopping)
    }
}

/// What a runner needs from its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// Where events are made durable.
    pub log: Arc<dyn EventLog>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Told which checkpoints are of no more use.
    pub checkpoints: Arc<Checkpoints>,
    /// How long a lease lasts without a heartbeat.
    pub lease: Duration,
    /// Counted up when a search comes to have work, so that waiting slots ask again.
    pub work: watch::Sender<u64>,
    /// When to stop.
    pub shutdown: CancellationToken,
}

struct Runner<'a> {
    search: Search,
    surroundings: &'a Surroundings,
    pulse: &'a watch::Sender<Pulse>,
    /// When the mailbox was last looked into.
    looked: Timestamp,
}

/// Starts the task that owns this search.
pub fn start(search: Search, surroundings: Surroundings) -> SearchHandle {
    let (id, name, pulse) = (search.id(), search.created().name.clone(), pulse_of(&search, 0));
    spawn(id, name, pulse, Mind::Awake(Box::new(search)), surroundings, REST_AFTER)
}

/// Starts the task that owns a search that has ended, without loading it before somebody asks.
pub fn start_resting(id: SearchId, glance: Glance, surroundings: Surroundings) -> SearchHandle {
    let SearchSummary { state, counts, .. } = &glance.summary;
    let pulse = Pulse { state: *state, trials: *counts, leases: 0, has_work: false, changes: 0 };
    spawn(id, glance.summary.name.clone(), pulse, Mind::Resting(Box::new(glance)), surroundings, REST_AFTER)
}

fn spawn(
    id: SearchId,
    name: Name,
    pulse: Pulse,
    mind: Mind,
    surroundings: Surroundings,
    rest_after: Duration,
) -> SearchHandle {
    let (mailbox, envelopes) = mpsc::channel(MAILBOX);
    let (pulse, seen) = watch::channel(pulse);
    let owner = Owner { id, surroundings, pulse, envelopes, rest_after };
    tokio::spawn(owner.own(mind).instrument(crate::chronicle::span(&name)));
    SearchHandle { id, name, mailbox, pulse: seen }
}

fn pulse_of(search: &Search, changes: u64) -> Pulse {
    let (leases, has_work) = (search.leases(), search.has_work());
    Pulse { state: search.state(), trials: search.counts(), leases, has_work, changes }
}

impl Runner<'_> {
    /// Runs the search, until the coordinator stops, or until the search has ended and nobody has asked
    /// for it for a while: then the answer is what it shows while it rests.
    async fn run(
        &mut self,
        envelopes: &mut mpsc::Receiver<Envelope>,
        rest_after: Duration,
    ) -> Option<Glance> {
        self.surroundings.work.send_modify(|count| *count += 1);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let shutdown = self.surroundings.shutdown.clone();
        let mut rest_at = Instant::now() + rest_after;
        loop {
            let is_settled = self.search.state().has_ended() && self.search.events_since_snapshot() == 0;
            tokio::select! {
                () = shutdown.cancelled() => return None,
                _ = tick.tick(), if !is_settled => batch.push(silent_tick()),
                count = envelopes.recv_many(&mut batch, MOST_PER_APPEND) => if count == 0 { return None },
                () = tokio::time::sleep_until(rest_at), if is_settled => return Some(self.search.glance()),
            }
            if batch.iter().any(|envelope| !matches!(envelope, Envelope::Glance(_))) {
                rest_at = Instant::now() + rest_after;
            }
            self.take(std::mem::take(&mut batch)).await;
        }
    }

    /// Takes a batch: decides all, appends once, answers all.
    async fn take(&mut self, batch: Vec<Envelope>) {
        let now = self.surroundings.clock.now();
        if now.since(self.looked) > self.surroundings.lease / 2 {
            // It was this process that was silent, stopped or waiting for the disk: the heartbeats
            // of that time are still to be read.
            self.search.grant_grace(now);
        }
        self.looked = now;
        let expected_version = self.search.version();
        let mut events = Vec::new();
        let (mut deliveries, mut renewals, mut queries) = (Vec::new(), Vec::new(), Vec::new());
        let mut has_new_work = false;
        for envelope in batch {
            match envelope {
                Envelope::Command { command, deliver } => {
                    let had_work = self.search.has_work();
                    let decided = self.search.handle(command, now).map(|new| events.extend(new));
                    has_new_work |= !had_work && self.search.has_work();
                    deliveries.push(deliver(&self.search, decided.map_err(Refusal::from)));
                }
                // What a heartbeat or a query is answered must be durable: after the append.
                Envelope::Renew { worker, held, answer } => renewals.push((worker, held, answer)),
                Envelope::Query(query) => queries.push(query),
                // Whoever asked may have gone.
                Envelope::Glance(answer) => {
                    queries.push(Box::new(move |search| drop(answer.send(search.glance()))));
                }
            }
        }
        let changed = !renewals.is_empty() || !events.is_empty();
        let durable = self.append(expected_version, events).await;
        for deliver in deliveries {
            deliver(durable.clone().map_err(Refusal::from));
        }
        if durable.is_err() {
            self.reload().await;
        }
        for discard in self.search.take_discards() {
            self.surroundings.checkpoints.discard(self.search.id(), discard);
        }
        for (worker, held, answer) in renewals {
            let renew = |(attempt, progress)| self.search.renew(attempt, worker, progress, now);
            // The worker may have gone.
            let _ = answer.send(held.into_iter().map(renew).collect());
        }
        for query in queries {
            query(&self.search);
        }
        if changed {
            self.publish();
        }
        if has_new_work {
            self.surroundings.work.send_modify(|count| *count += 1);
        }
    }

    /// A snapshot, if enough has happened since the last one, or the search has ended.
    fn due_snapshot(&mut self) -> Option<Box<Snapshot>> {
        let since = self.search.events_since_snapshot();
        let is_due = since >= SNAPSHOT_EVERY as u64 || (since > 0 && self.search.state().has_ended());
        is_due.then(|| Box::new(self.search.take_snapshot(SNAPSHOT_EVERY)))
    }

    async fn append(&mut self, expected_version: u64, events: Vec<Event>) -> Result<(), Arc<LogError>> {
        let snapshot = self.due_snapshot();
        if events.is_empty() && snapshot.is_none() {
            return Ok(());
        }
        events.iter().for_each(crate::chronicle::tell);
        let search = self.search.id();
        let append = Append { search, expected_version, events, snapshot };
        self.surroundings.log.append(append).await.map_err(|error| {
            error!(%error, "events are not durable, so they did not happen");
            Arc::new(error)
        })
    }

    /// Goes back to what the log has.
    async fn reload(&mut self) {
        let id = self.search.id();
        loop {
            let Surroundings { log, lease, .. } = self.surroundings;
            match restore::load(log.as_ref(), id, *lease).await {
                Ok(Some(restore::Loaded { mut search, .. })) => {
                    search.grant_grace(self.surroundings.clock.now());
                    self.search = search;
                    info!("loaded from the log again");
                    return;
                }
                Ok(None) => warn!("the log has no such search"),
                Err(error) => warn!(%error, "the log cannot be read"),
            }
            tokio::select! {
                () = self.surroundings.shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    fn publish(&self) {
        let before = *self.pulse.borrow();
        let after = pulse_of(&self.search, before.changes + 1);
        self.pulse.send_replace(after);
    }
}

fn silent_tick() -> Envelope {
    Envelope::Command { command: Command::Tick, deliver: Box::new(|_, _| Box::new(|_| ())) }
}

#[cfg(test)]
mod tests;
