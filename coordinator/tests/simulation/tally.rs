//! What happened in all simulations together: so that a fault that never struck is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::trial::FailureReason;
use fittingroom_coordinator::audit;

use crate::scenario::Blow;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) searches: u64,
    /// Searches that ran to the end that an undisturbed one has.
    pub(crate) whole: u64,
    /// Things that happened.
    pub(crate) steps: u64,
    pub(crate) events: u64,
    pub(crate) attempts: u64,
    pub(crate) repeated_epochs: u64,
    pub(crate) lost_workers: u64,
    pub(crate) released: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Calls of workers that did not hold what they thought.
    pub(crate) refused: u64,
    pub(crate) stalls: u64,
    pub(crate) failed_appends: u64,
    pub(crate) coordinator_crashes: u64,
    /// Searches that were loaded from a snapshot.
    pub(crate) restored: u64,
    pub(crate) damaged_snapshots: u64,
    pub(crate) checkpoints: u64,
    /// Attempts that began at a checkpoint.
    pub(crate) resumed: u64,
    pub(crate) lost_checkpoints: u64,
    pub(crate) harmed_checkpoints: u64,
    pub(crate) blows: BTreeMap<Blow, u64>,
}

impl Tally {
    pub(crate) fn blow(&mut self, blow: Blow) {
        *self.blows.entry(blow).or_default() += 1;
    }

    /// Counts what a log says.
    pub(crate) fn count(&mut self, audited: audit::Tally, log: &[Event]) {
        self.events += audited.events;
        self.attempts += audited.attempts;
        self.repeated_epochs += audited.repeated_epochs;
        let mut epochs = BTreeSet::new();
        for event in log {
            match &event.fact {
                Fact::AttemptFailed { failure, .. } if failure.reason == FailureReason::WorkerLost => {
                    self.lost_workers += 1;
                }
                Fact::AttemptReleased { .. } => self.released += 1,
                Fact::CheckpointKept { .. } => self.checkpoints += 1,
                Fact::CheckpointLost { .. } => self.lost_checkpoints += 1,
                Fact::EpochReported { attempt, report } if epochs.insert(*attempt) && report.epoch > 1 => {
                    self.resumed += 1;
                }
                _ => {}
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.numbers().into_iter().zip(other.clone().numbers()) {
            *mine.1 += *theirs.1;
        }
        for (blow, count) in &other.blows {
            *self.blows.entry(*blow).or_default() += count;
        }
    }

    fn numbers(&mut self) -> [(&'static str, &mut u64); 20] {
        [
            ("searches", &mut self.searches),
            ("whole", &mut self.whole),
            ("steps", &mut self.steps),
            ("events", &mut self.events),
            ("attempts", &mut self.attempts),
            ("repeated epochs", &mut self.repeated_epochs),
            ("lost workers", &mut self.lost_workers),
            ("attempts given back", &mut self.released),
            ("messages lost", &mut self.lost),
            ("calls doubled", &mut self.doubled),
            ("calls refused", &mut self.refused),
            ("stalls", &mut self.stalls),
            ("appends that failed", &mut self.failed_appends),
            ("coordinator crashes", &mut self.coordinator_crashes),
            ("starts from snapshots", &mut self.restored),
            ("snapshots damaged", &mut self.damaged_snapshots),
            ("checkpoints kept", &mut self.checkpoints),
            ("attempts from checkpoints", &mut self.resumed),
            ("checkpoints lost", &mut self.lost_checkpoints),
            ("checkpoints harmed in the store", &mut self.harmed_checkpoints),
        ]
    }

    /// What never happened, although it should have.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut mine = self.clone();
        let numbers = mine.numbers().into_iter().filter(|(_, number)| **number == 0);
        let numbers = numbers.map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        let blows = Blow::ALL.iter().filter(|blow| !self.blows.contains_key(blow));
        numbers.into_iter().chain(blows.map(|blow| format!("{blow:?}"))).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mine = self.clone();
        let numbers = mine.numbers().map(|(name, number)| format!("{number} {name}"));
        let blows = self.blows.iter().map(|(blow, count)| format!("{count} {blow:?}"));
        write!(f, "{}; {}", numbers.join(", "), blows.collect::<Vec<_>>().join(", "))
    }
}
