//! How many there are of everything, without asking any search: for monitoring, which must not wait for one.

use fittingroom_common::view::{SearchState, TrialCounts, TrialState};

use super::Cluster;
use crate::workers::WorkerTotals;

/// How many there are of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    searches: [u64; SearchState::ALL.len()],
    trials: TrialCounts,
    /// Attempts that are out on workers.
    pub leases: u64,
    /// The connected workers.
    pub workers: WorkerTotals,
}

impl Tally {
    /// The searches in a state.
    pub const fn searches(&self, state: SearchState) -> u64 {
        self.searches[state as usize]
    }

    /// The trials in a state, of all searches. Those not yet drawn are in none.
    pub const fn trials(&self, state: TrialState) -> u64 {
        match state {
            TrialState::Waiting => self.trials.waiting,
            TrialState::Running => self.trials.running,
            TrialState::Complete => self.trials.complete,
            TrialState::Pruned => self.trials.pruned,
            TrialState::Failed => self.trials.failed,
            TrialState::Cancelled => self.trials.cancelled,
        }
    }
}

impl Cluster {
    /// Counts what searches show of themselves at this moment, and the workers.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally { workers: self.workers.totals(self.now()), ..Tally::default() };
        for search in self.searches() {
            let pulse = search.pulse_now();
            tally.searches[pulse.state as usize] += 1;
            tally.leases += pulse.leases as u64;
            let TrialCounts { waiting, running, complete, pruned, failed, cancelled } = pulse.trials;
            tally.trials.waiting += waiting;
            tally.trials.running += running;
            tally.trials.complete += complete;
            tally.trials.pruned += pruned;
            tally.trials.failed += failed;
            tally.trials.cancelled += cancelled;
        }
        tally
    }
}
