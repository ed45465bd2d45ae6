//! Snapshots: those of a search come back as they were, and damaged ones break nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fittingroom_common::event::Created;
use fittingroom_common::id::{ArtifactHash, SlotNumber, TrialId, WorkerId};
use fittingroom_common::proto as pb;
use fittingroom_common::space::SearchSpec;
use fittingroom_common::time::Timestamp;
use fittingroom_common::view::{SearchSummary, TrialRow};
use prost::Message;

use super::{LEASE, SEARCH, created};
use crate::search::{Command, DamagedSnapshot, Glance, Restoration, Search, Snapshot};

static SMALL: LazyLock<Created> = LazyLock::new(|| {
    let file = "method: grid\nepochs: 2\nparameters: {learning_rate: {values: [0.1, 0.01]}}";
    created(SearchSpec::parse("search.yaml", file).expect("parses").spec)
});

/// What a log keeps of snapshots.
#[derive(Default)]
pub(super) struct Kept {
    head: Option<pb::SearchSnapshot>,
    trials: BTreeMap<TrialId, pb::TrialSnapshot>,
}

impl Kept {
    pub(super) fn keep(&mut self, snapshot: Snapshot) {
        self.head = snapshot.head;
        self.trials.extend(snapshot.trials);
    }

    /// The search as it was at the last whole snapshot, if there is one.
    pub(super) fn restored(&self, new: Search) -> Option<Search> {
        let mut restoration = Restoration::begin(new, self.head.clone()?).expect("a head of its own");
        for trial in self.trials.values() {
            restoration.push(trial.clone()).expect("a trial of its own");
        }
        Some(restoration.finish().expect("it is whole"))
    }
}

type Shown = (SearchSummary, Vec<TrialRow>, Vec<(TrialId, ArtifactHash)>, u64, usize, bool);

/// All that a search shows, but for what is in memory only.
pub(super) fn shown(search: &Search) -> Shown {
    (
        search.summary(),
        search.ranked().chain(search.unranked()).collect(),
        search.checkpoints().collect(),
        search.version(),
        search.leases(),
        search.has_work(),
    )
}

/// Asks a search for everything that it shows, and gives it the commands that any search gets.
pub(super) fn use_up(mut search: Search) {
    let _ = (shown(&search), search.glance(), search.superseded_models(), search.listing(9, 3));
    let _ = (search.best(), search.best_model());
    for worker in [0, 1].map(WorkerId::new) {
        for attempt in search.held_by(worker) {
            search.wants_model(attempt);
            search.renew(attempt, worker, None, Timestamp::from_millis(i64::MAX));
        }
        search.assignment(worker, SlotNumber::new(0));
    }
    search.take_snapshot(2);
    search.grant_grace(Timestamp::from_millis(0));
    for now in [0, 1 << 40, i64::MAX] {
        let _ = search.handle(Command::Tick, Timestamp::from_millis(now));
    }
    let _ = search.handle(Command::Cancel, Timestamp::from_millis(0));
    search.take_discards();
}

/// A snapshot's head and its trials, each with its length before it. They have checksums in the log's
/// file; what a wrong program wrote has one too.
pub fn snapshot(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(head) = pb::SearchSnapshot::decode_length_delimited(&mut rest) else { return };
    let _ = Glance::of(head.clone());
    let new = Search::new(SEARCH, SMALL.clone(), Timestamp::from_millis(1_000), LEASE);
    let restored = || -> Result<Search, DamagedSnapshot> {
        let mut restoration = Restoration::begin(new, head)?;
        while let (false, Ok(trial)) =
            (rest.is_empty(), pb::TrialSnapshot::decode_length_delimited(&mut rest))
        {
            restoration.push(trial)?;
        }
        restoration.finish()
    };
    if let Ok(search) = restored() {
        use_up(search);
    }
}
