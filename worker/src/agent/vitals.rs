//! Tells the service manager that this worker works, for as long as it does.
//!
//! The heartbeats prove it. A sign of life follows when they have made another round and nobody sits
//! on the table of what is held. A coordinator that does not answer is no fault of this worker's, and
//! nothing that a restart of it would mend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fittingroom_common::process::ServiceManager;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::connection::Connection;
use super::held::HeldTable;

/// How often it is looked whether there is something new to say to people.
const NEWS_EVERY: Duration = Duration::from_secs(1);

/// How many rounds the heartbeats have made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Arc<AtomicU64>);

impl Rounds {
    /// Notes another round.
    pub(crate) fn made(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether there is a reason for another sign of life.
#[derive(Debug)]
struct Proof {
    /// The round that the last one was given for.
    seen: u64,
}

impl Proof {
    fn is_given(&mut self, rounds: u64, is_answered: bool) -> bool {
        rounds != std::mem::replace(&mut self.seen, rounds) || !is_answered
    }
}

/// Ticks from one period on; what is late does not come in a rush.
fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What a worker's life is told by.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) service_manager: ServiceManager,
    pub(crate) connection: Connection,
    pub(crate) table: HeldTable,
    pub(crate) rounds: Rounds,
    pub(crate) slots: u32,
}

impl Vitals {
    /// Watches for ever. The worker is ready at once: it waits for its coordinator as for work.
    pub(crate) async fn watch(self) {
        let mut told = self.status();
        self.service_manager.ready(&told);
        let mut proof = Proof { seen: self.rounds.count() };
        let mut proofs = ticks(self.service_manager.interval());
        let mut news = ticks(NEWS_EVERY);
        loop {
            tokio::select! {
                _ = proofs.tick() => {
                    if proof.is_given(self.rounds.count(), self.connection.is_answered()) {
                        self.service_manager.alive();
                    }
                }
                _ = news.tick() => {
                    let status = self.status();
                    if status != told {
                        self.service_manager.status(&status);
                        told = status;
                    }
                }
            }
        }
    }

    fn status(&self) -> String {
        let busy = self.table.snapshot().len();
        let state = match (self.rounds.count(), self.connection.is_answered()) {
            (0, _) => "joining the coordinator",
            (_, true) => "joined",
            (_, false) => "the coordinator does not answer",
        };
        format!("{state}; {busy} of {} slots busy", self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_that_stand_still_prove_nothing_unless_it_is_the_coordinator_that_does_not_answer() {
        let mut proof = Proof { seen: 0 };
        for (row, rounds, is_answered, expected) in [
            ("joining, no answer yet", 0, true, false),
            ("there is nobody", 0, false, true),
            ("a first round", 1, true, true),
            ("none since", 1, true, false),
            ("many since", 9, true, true),
            ("the coordinator is gone", 9, false, true),
            ("it is back, and heartbeats are not", 9, true, false),
        ] {
            assert_eq!(proof.is_given(rounds, is_answered), expected, "{row}");
        }
    }
}
