//! PURE: the state machine of one search.
//!
//! ```text
//!                    ┌────── released, lost, crashed (tries left) ──────┐
//!                    ▼                                                  │
//!  (not drawn) ──► WAITING ──lease──► RUNNING ──every epoch trained──► COMPLETE
//!                    │                   ├── diverged, or no tries left ► FAILED
//!                    └── stop, cancel ───┴── cancel ──► CANCELLED
//! ```
//!
//! [`Search::decide`] answers a [`Command`] with the facts that follow from it, [`Search::apply`]
//! makes a fact part of the state and cannot fail, and [`Search::consequences`] says what follows
//! from the state alone. There is no clock, channel, database or random generator in here: the time
//! is an argument, and what a method draws is a pure function. Lease renewals are not facts; they
//! live in memory, and after a restart every lease gets one grace period.

mod apply;
mod checkpoint;
mod command;
mod decide;
mod snapshot;
mod trial;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fittingroom_common::event::{Created, Event, Fact};
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{ArtifactHash, Attempt, Name, SearchId, SlotNumber, TrialId, WorkerId};
use fittingroom_common::length::TrainingLength;
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::Score;
use fittingroom_common::view::{SearchState, TrialCounts};

pub use checkpoint::{Discard, KEPT_CHECKPOINTS};
pub use command::{Command, Rejection};
pub use snapshot::{DamagedSnapshot, Glance, Restoration, Snapshot};
use trial::{Evaluation, Trial};
pub use view::{Later, Listed, Listing};

use crate::leaderboard::Leaderboard;
use crate::method::Plan;

/// How many times the final evaluation is tried before the search ends without it.
pub const EVALUATION_ATTEMPTS: u32 = 5;

/// One search: what was launched, and everything that has happened since.
#[derive(Debug)]
pub struct Search {
    id: SearchId,
    created: Created,
    created_at: Timestamp,
    plan: Plan,
    lease: Duration,
    /// How many events made this state. The log's fence.
    version: u64,
    state: State,
    trials: Vec<Trial>,
    /// Drawn trials that no worker has. Running ones are in `leased`.
    waiting: BTreeSet<TrialId>,
    leased: BTreeSet<TrialId>,
    /// Who holds what, evaluations included: so that a slot that asks twice gets the same answer.
    holders: BTreeMap<(WorkerId, SlotNumber), Attempt>,
    counts: TrialCounts,
    /// Failed trials that count against the limit: diverging is a result, not a fault.
    faults: u32,
    board: Leaderboard,
    /// The models of complete trials, as far as they were kept.
    models: BTreeMap<TrialId, ArtifactHash>,
    evaluation: Evaluation,
    attempt_time: Duration,
    attempts_ended: u64,
    /// In memory only: a restart looks for what is left.
    discards: Vec<Discard>,
    /// Every worker's name in this search, once. In memory only.
    worker_names: BTreeSet<Name>,
    /// The trials that facts have changed since the last snapshot. In memory only.
    touched: BTreeSet<TrialId>,
    /// How many events the last snapshot is made of. In memory only.
    snapshotted: u64,
}

/// Where the search stands, with what belongs to that alone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Stopping { reason: String },
    Complete { at: Timestamp, reason: String },
    Cancelled { at: Timestamp },
    Failed { at: Timestamp, reason: String },
}

impl Search {
    /// A search as its first event makes it. `lease` is how long a lease lasts without a heartbeat.
    pub fn new(id: SearchId, created: Created, at: Timestamp, lease: Duration) -> Self {
        let plan = Plan::new(&created.spec);
        Self {
            id,
            created,
            created_at: at,
            plan,
            lease,
            version: 1,
            state: State::Running,
            trials: Vec::new(),
            waiting: BTreeSet::new(),
            leased: BTreeSet::new(),
            holders: BTreeMap::new(),
            counts: TrialCounts::default(),
            faults: 0,
            board: Leaderboard::default(),
            models: BTreeMap::new(),
            evaluation: Evaluation::Idle { failures: 0 },
            attempt_time: Duration::ZERO,
            attempts_ended: 0,
            discards: Vec::new(),
            worker_names: BTreeSet::new(),
            touched: BTreeSet::new(),
            snapshotted: 0,
        }
    }

    /// The search that these events made; `None` if they do not begin with its creation.
    pub fn replay(id: SearchId, events: impl IntoIterator<Item = Event>, lease: Duration) -> Option<Self> {
        let mut events = events.into_iter();
        let Event { at, fact: Fact::SearchCreated(created) } = events.next()? else {
            return None;
        };
        let mut search = Self::new(id, *created, at, lease);
        for event in events {
            search.apply(&event);
            // What was of no more use then was deleted then.
            search.discards.clear();
        }
        Some(search)
    }

    /// Takes a command: decides it, applies what follows, and what follows from that. The events
    /// must be durable before anybody hears of them; if they cannot be made so, this search is to
    /// be thrown away and replayed from the log.
    pub fn handle(&mut self, command: Command, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        let mut events = Vec::new();
        if let Command::Lease { holder } = &command {
            self.renew_unheard(holder, now);
        }
        let mut facts = self.decide(command, now)?;
        while !facts.is_empty() {
            for fact in facts {
                let event = Event { at: now, fact };
                self.apply(&event);
                events.push(event);
            }
            facts = self.consequences();
        }
        Ok(events)
    }

    /// Which search it is.
    pub const fn id(&self) -> SearchId {
        self.id
    }

    /// How many events made this state.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What was launched.
    pub const fn created(&self) -> &Created {
        &self.created
    }

    /// Where it stands, in a word.
    pub const fn state(&self) -> SearchState {
        match self.state {
            State::Running => SearchState::Running,
            State::Paused => SearchState::Paused,
            State::Stopping { .. } => SearchState::Stopping,
            State::Complete { .. } => SearchState::Complete,
            State::Cancelled { .. } => SearchState::Cancelled,
            State::Failed { .. } => SearchState::Failed,
        }
    }

    /// How many trials are in each state.
    pub const fn counts(&self) -> TrialCounts {
        self.counts
    }

    /// How many attempts are out on workers, the final evaluation included.
    pub fn leases(&self) -> usize {
        self.holders.len()
    }

    fn budget_end(&self) -> Option<Timestamp> {
        match self.state {
            State::Running | State::Paused => Some(self.created_at.after(self.created.spec.budget?)),
            State::Stopping { .. }
            | State::Complete { .. }
            | State::Cancelled { .. }
            | State::Failed { .. } => None,
        }
    }

    fn trial(&self, id: TrialId) -> Option<&Trial> {
        self.trials.get(usize::try_from(id.get()).ok()?)
    }

    /// A trial that a fact changes.
    fn trial_mut(&mut self, id: TrialId) -> Option<&mut Trial> {
        let trial = self.trials.get_mut(usize::try_from(id.get()).ok()?)?;
        self.touched.insert(id);
        Some(trial)
    }

    /// Every hyperparameter of a trial: what the search names over what it leaves at its default.
    fn complete_hyperparameters(&self, trial: &Trial) -> Hyperparameters {
        self.created.defaults.overlaid(&trial.hyperparameters)
    }

    /// How long a trial trains.
    fn length(&self, trial: &Trial) -> TrainingLength {
        TrainingLength::read(|parameter| {
            trial.hyperparameters.get(parameter).or_else(|| self.created.defaults.get(parameter))
        })
    }

    /// What the final evaluation found, if it is done.
    fn evaluated(&self, trial: TrialId) -> Option<Score> {
        match self.evaluation {
            Evaluation::Done { trial: evaluated, test } if evaluated == trial => Some(test),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
