//! What a simulated coordinator has on its disk: the events of its search, and snapshots of it. A crash
//! takes nothing from it.

use std::collections::{BTreeMap, BTreeSet};

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{ArtifactHash, SearchId, TrialId};
use fittingroom_common::proto as pb;
use fittingroom_common::view::{SearchSummary, TrialRow};
use fittingroom_coordinator::search::{Restoration, Search, Snapshot};

use crate::scenario::LEASE;

const SEARCH: SearchId = SearchId::new(1);

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) log: Vec<Event>,
    head: Option<pb::SearchSnapshot>,
    trials: BTreeMap<TrialId, pb::TrialSnapshot>,
    /// Rows of the snapshot whose checksums are wrong; `None` is the head.
    damaged: BTreeSet<Option<TrialId>>,
}

impl Disk {
    /// Puts a snapshot over the last.
    pub(crate) fn keep(&mut self, Snapshot { head, trials }: Snapshot) {
        self.damaged.remove(&None);
        self.head = head;
        for (id, trial) in trials {
            self.damaged.remove(&Some(id));
            self.trials.insert(id, trial);
        }
    }

    pub(crate) fn head(&self) -> Option<pb::SearchSnapshot> {
        self.head.clone()
    }

    pub(crate) fn trials(&self, from: TrialId, most: usize) -> Vec<pb::TrialSnapshot> {
        self.trials.range(from..).map(|(_, trial)| trial.clone()).take(most).collect()
    }

    /// Bits of the snapshot's head or of one of its trials are no more what they were. Answers whether
    /// there was one.
    pub(crate) fn damage(&mut self, drawn: u64) -> bool {
        let rows = self.trials.len() as u64 + u64::from(self.head.is_some());
        let Some(row) = drawn.checked_rem(rows) else { return false };
        self.damaged.insert(self.trials.keys().nth(row as usize).copied())
    }

    /// The search as a starting coordinator loads it: from its snapshot and the events after it, or from
    /// all events. The other says whether a snapshot was used. Both ways must lead to the same search.
    pub(crate) fn load(&self) -> Result<(Search, bool), String> {
        let replayed =
            Search::replay(SEARCH, self.log.iter().cloned(), LEASE).ok_or("the log has no search")?;
        let Some(mut restored) = self.restored()? else { return Ok((replayed, false)) };
        let version = usize::try_from(restored.version()).map_err(|error| error.to_string())?;
        for event in self.log.get(version..).ok_or("a snapshot is ahead of the log")? {
            restored.apply(event);
        }
        restored.take_discards();
        if shown(&restored) != shown(&replayed) {
            return Err(format!(
                "from its snapshot the search is {:?}, from its events {:?}",
                shown(&restored),
                shown(&replayed)
            ));
        }
        Ok((restored, true))
    }

    fn restored(&self) -> Result<Option<Search>, String> {
        let (Some(head), Some(Event { at, fact: Fact::SearchCreated(created) })) =
            (&self.head, self.log.first())
        else {
            return Ok(None);
        };
        // A damaged row is found by its checksum, and nothing of the snapshot is used.
        if !self.damaged.is_empty() {
            return Ok(None);
        }
        let new = Search::new(SEARCH, (**created).clone(), *at, LEASE);
        let restore = || {
            let mut restoration = Restoration::begin(new, head.clone())?;
            self.trials.values().try_for_each(|trial| restoration.push(trial.clone()))?;
            restoration.finish()
        };
        restore().map(Some).map_err(|error| format!("a snapshot is not what was kept: {error}"))
    }
}

/// All that a search shows.
type Shown = (SearchSummary, Vec<TrialRow>, Vec<(TrialId, ArtifactHash)>, u64, usize);

fn shown(search: &Search) -> Shown {
    let rows = search.ranked().chain(search.unranked()).collect();
    (search.summary(), rows, search.checkpoints().collect(), search.version(), search.leases())
}
