//! Loads a search from the log: its newest snapshot, and the events after it. If the snapshot is
//! damaged or of another form, or there is none, all events.

use std::time::Duration;

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::SearchId;
use tracing::warn;

use crate::log::{EventLog, LogError};
use crate::search::{DamagedSnapshot, Glance, Restoration, Search};

/// How many events or trials are read at a time.
const PAGE: usize = 4096;

/// A search out of the log.
#[derive(Debug)]
pub struct Loaded {
    /// The search. Its leases are as old as they are: give them grace.
    pub search: Search,
    /// How many events its snapshot stood for; 0 if there was none.
    pub snapshot: u64,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Damaged(#[from] DamagedSnapshot),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The search of this number; `None` if its log does not begin with its creation.
pub async fn load(log: &dyn EventLog, id: SearchId, lease: Duration) -> Result<Option<Loaded>, LogError> {
    let first = log.events_after(id, 0, 1).await?.into_iter().next();
    let Some(Event { at, fact: Fact::SearchCreated(created) }) = first else {
        return Ok(None);
    };
    let new = || Search::new(id, (*created).clone(), at, lease);
    let mut search = match restored(log, new()).await {
        Ok(Some(search)) => search,
        Ok(None) => new(),
        Err(error) => {
            warn!(%error, "the snapshot is of no use: all events are read");
            new()
        }
    };
    let snapshot = search.version() - search.events_since_snapshot();
    loop {
        let events = log.events_after(id, search.version(), PAGE).await?;
        events.iter().for_each(|event| search.apply(event));
        // What was of no more use then was deleted then, or is found at the start.
        search.take_discards();
        if events.len() < PAGE {
            return Ok(Some(Loaded { search, snapshot }));
        }
    }
}

/// What a resting search shows, if the search of this number has ended and its snapshot says so.
pub async fn glance(log: &dyn EventLog, id: SearchId) -> Option<Glance> {
    let head = log.snapshot(id).await;
    let head = head.inspect_err(|error| warn!(%error, "a snapshot cannot be read")).ok()??;
    Glance::of(head).inspect_err(|error| warn!(%error, "a snapshot is of no use")).ok()?
}

/// A search that has just been created, as its snapshot has it; `None` if there is no snapshot.
async fn restored(log: &dyn EventLog, created: Search) -> Result<Option<Search>, Unusable> {
    let id = created.id();
    let Some(head) = log.snapshot(id).await? else {
        return Ok(None);
    };
    let mut restoration = Restoration::begin(created, head)?;
    loop {
        let trials = log.snapshot_trials(id, restoration.next(), PAGE).await?;
        let is_last = trials.len() < PAGE;
        for trial in trials {
            restoration.push(trial)?;
        }
        if is_last {
            return Ok(Some(restoration.finish()?));
        }
    }
}

#[cfg(test)]
mod tests;
