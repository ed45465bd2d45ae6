//! The attempts that this worker holds, shared between the slots that run them and the heartbeats
//! that keep their leases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fittingroom_common::id::SlotNumber;
use fittingroom_common::view::Progress;
use fittingroom_common::work::{Directive, Held, SearchAttempt};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Entry {
    held: Held,
    dropped: CancellationToken,
}

/// What each slot holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldTable(Arc<Mutex<BTreeMap<SlotNumber, Entry>>>);

impl HeldTable {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<SlotNumber, Entry>> {
        // Every change is a single insertion, removal or assignment, so a panic leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an attempt until the answer is dropped.
    pub(crate) fn hold(&self, slot: SlotNumber, id: SearchAttempt) -> Hold {
        let dropped = CancellationToken::new();
        let entry = Entry { held: Held { id, progress: None }, dropped: dropped.clone() };
        self.entries().insert(slot, entry);
        Hold { table: self.clone(), slot, id, dropped }
    }

    /// What is held now.
    pub(crate) fn snapshot(&self) -> Vec<Held> {
        self.entries().values().map(|entry| entry.held).collect()
    }

    /// Has the work dropped where the answer to a heartbeat says so. What was taken up since the
    /// heartbeat was sent is not touched.
    pub(crate) fn obey(&self, sent: &[Held], directives: &[Directive]) {
        let entries = self.entries();
        for (held, directive) in sent.iter().zip(directives) {
            match directive {
                Directive::Continue => {}
                Directive::Drop => entries
                    .values()
                    .filter(|entry| entry.held.id == held.id)
                    .for_each(|entry| entry.dropped.cancel()),
            }
        }
    }
}

/// An attempt that a slot holds, until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    table: HeldTable,
    slot: SlotNumber,
    /// What is held.
    pub(crate) id: SearchAttempt,
    dropped: CancellationToken,
}

impl Hold {
    /// Notes how far it is, for the next heartbeat.
    pub(crate) fn progress(&self, progress: Progress) {
        if let Some(entry) = self.table.entries().get_mut(&self.slot) {
            entry.held.progress = Some(progress);
        }
    }

    /// Waits until a heartbeat's answer says that the work is to be dropped.
    pub(crate) async fn dropped(&self) {
        self.dropped.cancelled().await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.table.entries().remove(&self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fittingroom_common::id::{Attempt, AttemptNumber, SearchId, TrialId};

    fn attempt(trial: u64) -> SearchAttempt {
        SearchAttempt {
            search: SearchId::new(1),
            attempt: Attempt { trial: TrialId::new(trial), number: AttemptNumber::FIRST },
        }
    }

    #[test]
    fn an_attempt_is_held_until_its_hold_ends() {
        let table = HeldTable::default();
        let hold = table.hold(SlotNumber::new(0), attempt(7));
        let progress = Progress { epoch: 1, step: 2, steps: 3 };
        hold.progress(progress);
        let expected = Held { id: attempt(7), progress: Some(progress) };
        assert_eq!(table.snapshot(), [expected]);
        drop(hold);
        assert_eq!(table.snapshot(), []);
    }

    #[test]
    fn only_the_attempt_that_was_named_is_dropped() {
        let table = HeldTable::default();
        let kept = table.hold(SlotNumber::new(0), attempt(1));
        let ended = table.hold(SlotNumber::new(1), attempt(2));
        let sent = table.snapshot();
        drop(ended);
        let newer = table.hold(SlotNumber::new(1), attempt(3));
        let dropped = table.hold(SlotNumber::new(2), attempt(2));
        table.obey(&sent, &[Directive::Continue, Directive::Drop]);
        assert!(!kept.dropped.is_cancelled());
        assert!(!newer.dropped.is_cancelled());
        assert!(dropped.dropped.is_cancelled());
    }
}
