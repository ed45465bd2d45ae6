//! PURE: whether the log of a search keeps its promises.
//!
//! The audit is a second, simpler account of a search, made from its events alone and from what its
//! method gives. It shares no code with the state machine that wrote the events, so that a
//! mistake there is not repeated here. It takes any log, however damaged, goes on after
//! what it finds, and says all of it.

mod checkpoints;
mod rules;
mod violation;

use std::collections::{BTreeMap, BTreeSet};

use fittingroom_common::event::{Created, Event};
use fittingroom_common::id::{Attempt, AttemptNumber, SlotNumber, TrialId, WorkerId};
use fittingroom_common::length::TrainingLength;
use fittingroom_common::trial::Report;
use fittingroom_common::view::{SearchState, TrialCounts};

use checkpoints::Continuation;
pub use violation::{Finding, Violation};

use crate::leaderboard::RankKey;
use crate::method::Plan;

/// The most findings that are kept. A log that is damaged all over need not fill the memory.
pub const MOST_FINDINGS: usize = 1_000;

/// The account of one search, event by event.
#[derive(Debug, Default)]
pub struct Audit {
    search: Option<Searched>,
    /// Of the newest event.
    version: u64,
    trials: Vec<Trial>,
    /// Trials without an outcome.
    open: BTreeSet<TrialId>,
    /// What each slot holds, evaluations included.
    slots: BTreeMap<Slot, Attempt>,
    best: Option<RankKey>,
    evaluation: Evaluation,
    /// The trial whose attempt the event before ended with a failure: it may be given up now.
    just_failed: Option<TrialId>,
    counts: TrialCounts,
    tally: Tally,
    findings: Vec<Finding>,
}

type Slot = (WorkerId, SlotNumber);

#[derive(Debug)]
struct Searched {
    created: Created,
    plan: Plan,
    state: SearchState,
}

#[derive(Debug)]
struct Trial {
    length: TrainingLength,
    newest: Option<AttemptNumber>,
    failures: u32,
    /// Failed in a way that is a result, or as often as it may.
    is_used_up: bool,
    /// Of the newest attempt, and of the epochs that it began after.
    report: Option<Report>,
    continuation: Continuation,
    /// The highest epoch that any attempt reported.
    highest_epoch: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running { slot: Slot, next_epoch: u32 },
    Complete { test_is_known: bool },
    Failed,
    Cancelled,
}

#[derive(Debug, Default)]
struct Evaluation {
    running: Option<(Attempt, Slot)>,
    failures: u32,
    is_done: bool,
}

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events.
    pub events: u64,
    /// Training attempts that began.
    pub attempts: u64,
    /// Epochs that were reported, by whichever attempt.
    pub epochs: u64,
    /// Those of them that an earlier attempt at the trial had reported too.
    pub repeated_epochs: u64,
}

impl Audit {
    /// The findings of a whole log, whose events are numbered from 1.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut audit = Self::default();
        events.into_iter().zip(1..).for_each(|(event, version)| audit.take(version, event));
        audit
    }

    /// What is wrong, in the order of the events; at most [`MOST_FINDINGS`].
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What was counted.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// How many trials are in each state.
    pub const fn counts(&self) -> TrialCounts {
        self.counts
    }

    /// Where the search stands; `None` before it is created.
    pub fn state(&self) -> Option<SearchState> {
        self.search.as_ref().map(|search| search.state)
    }

    /// How many attempts are out on workers, evaluations included.
    pub fn leases(&self) -> usize {
        self.slots.len()
    }

    /// The best complete trial.
    pub fn best(&self) -> Option<TrialId> {
        self.best.map(|key| key.trial())
    }

    /// The slot that an attempt is out on, if it is.
    pub fn holder(&self, attempt: Attempt) -> Option<(WorkerId, SlotNumber)> {
        match self.evaluation.running {
            Some((evaluating, slot)) if evaluating == attempt => return Some(slot),
            _ => {}
        }
        let trial = self.trial(attempt.trial).filter(|trial| trial.newest == Some(attempt.number))?;
        match trial.phase {
            Phase::Running { slot, .. } => Some(slot),
            Phase::Waiting | Phase::Complete { .. } | Phase::Failed | Phase::Cancelled => None,
        }
    }

    fn trial(&self, id: TrialId) -> Option<&Trial> {
        self.trials.get(usize::try_from(id.get()).ok()?)
    }

    fn trial_mut(&mut self, id: TrialId) -> Option<&mut Trial> {
        self.trials.get_mut(usize::try_from(id.get()).ok()?)
    }

    fn find(&mut self, violation: Violation) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(Finding { version: self.version, violation });
        }
    }
}

#[cfg(test)]
mod tests;
