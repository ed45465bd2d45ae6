//! The event log: the one place where a search is kept.
//!
//! An append carries the version that its search is expected to have. Whoever is behind fails: the
//! version is the fence. An append is answered when it is durable, never before.

mod copy;
mod metered;
mod snapshots;
mod sqlite;
mod stored;
mod unsynced;
mod writer;

use std::path::PathBuf;

use fittingroom_common::convert::DecodeError;
use fittingroom_common::dataset::Manifest;
use fittingroom_common::event::Event;
use fittingroom_common::id::{Name, SearchId, TrialId};
use fittingroom_common::proto as pb;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub(crate) use metered::MeteredLog;
pub use sqlite::SqliteLog;
pub use stored::{StoredDataset, StoredLog, StoredSearch};

use crate::search::Snapshot;

/// Events to append to a search.
#[derive(Clone, Debug)]
pub struct Append {
    /// The search.
    pub search: SearchId,
    /// How many events it must have before.
    pub expected_version: u64,
    /// The events, in order.
    pub events: Vec<Event>,
    /// What to keep beside them, in the same transaction: the search as these events leave it.
    pub snapshot: Option<Box<Snapshot>>,
}

/// A search as the log lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub id: SearchId,
    /// Its name.
    pub name: Name,
}

/// Whether a log can be written, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// What was last written is durable.
    Writable,
    /// What was last to be written could not be made durable: the disk is full, say, or fails.
    Failing,
}

/// A store of events that outlives the process.
pub trait EventLog: Send + Sync + 'static {
    /// Gives a new search its number and makes its first event durable. Fails if the name is taken.
    fn create(&self, name: Name, first: Event) -> BoxFuture<'_, Result<SearchId, LogError>>;

    /// Makes events durable.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<(), LogError>>;

    /// Every search, in the order of launching.
    fn searches(&self) -> BoxFuture<'_, Result<Vec<Listed>, LogError>>;

    /// Every event of a search, in order.
    fn events(&self, search: SearchId) -> BoxFuture<'_, Result<Vec<Event>, LogError>>;

    /// Up to `most` events of a search, in order, from the one after the first `version`.
    fn events_after(
        &self,
        search: SearchId,
        version: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>>;

    /// The newest snapshot of a search but its trials, if one was kept.
    fn snapshot(&self, search: SearchId) -> BoxFuture<'_, Result<Option<pb::SearchSnapshot>, LogError>>;

    /// Up to `most` trials of the newest snapshot of a search, in order, from this one.
    fn snapshot_trials(
        &self,
        search: SearchId,
        from: TrialId,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<pb::TrialSnapshot>, LogError>>;

    /// The events of one trial, in order.
    fn events_of_trial(
        &self,
        search: SearchId,
        trial: TrialId,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>>;

    /// Keeps a dataset's manifest under its name, in place of what had the name before.
    fn put_dataset(&self, manifest: Manifest) -> BoxFuture<'_, Result<(), LogError>>;

    /// Every dataset, in the order of names.
    fn datasets(&self) -> BoxFuture<'_, Result<Vec<Manifest>, LogError>>;

    /// Writes nothing that counts, in turn with the appends, and answers when it is durable: whether
    /// an append would be, and that appends are answered.
    fn probe(&self) -> BoxFuture<'_, Result<(), LogError>>;

    /// Copies all that is durable at one moment into a new file, which [`SqliteLog`] opens. Appends go on
    /// meanwhile. Given up at `stop`.
    fn copy(&self, to: PathBuf, stop: CancellationToken) -> BoxFuture<'_, Result<(), LogError>>;
}

/// Why the log did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The search has more or fewer events than the writer knows of.
    #[error("search {search} is not at version {expected}: another writer was there")]
    Conflict {
        /// The search.
        search: SearchId,
        /// The version that the writer knows.
        expected: u64,
    },
    /// A search has the name already.
    #[error("there is a search named {name} already; choose another name with --name")]
    NameTaken {
        /// The name.
        name: Name,
    },
    /// The disk is full. What was acknowledged is safe.
    #[error("the disk that holds the data folder is full; free some space, and the search goes on")]
    DiskFull,
    /// The database said no.
    #[error("the event log failed: {0}")]
    Database(rusqlite::Error),
    /// A transaction could not be made durable.
    #[error("the event log cannot be written: {0}")]
    Commit(String),
    /// The disk did not confirm what was written. What can be read may not be on it.
    #[error(
        "the event log cannot be synced to its disk ({0}): what was written last is not acknowledged, and nothing more is written; see to the disk, and start the coordinator again"
    )]
    Unsynced(String),
    /// The SQLite that was linked is too old to be trusted.
    #[error(
        "SQLite {found} is linked, but versions before 3.51.3 can corrupt a log; build with the bundled one"
    )]
    OldSqlite {
        /// The linked version.
        found: &'static str,
    },
    /// The file is not a log, or one of another version of this program.
    #[error("{path:?} is not an event log that this version reads: {problem}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An event cannot be read back.
    #[error("event {version} of search {search} cannot be read: {source}")]
    Undecodable {
        /// The search.
        search: SearchId,
        /// The event's place.
        version: u64,
        /// What is wrong.
        source: DecodeError,
    },
    /// A snapshot is not what was kept.
    #[error("the snapshot of search {search} is damaged at {place}")]
    DamagedSnapshot {
        /// The search.
        search: SearchId,
        /// Which part of it.
        place: String,
    },
    /// A stored dataset cannot be read back.
    #[error("dataset {name:?} cannot be read back: {source}")]
    UndecodableDataset {
        /// Its name.
        name: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The writer has ended.
    #[error("the event log is closed: the coordinator is stopping")]
    Closed,
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            _ if unsynced::is_told_by(&error) => Self::Unsynced(error.to_string()),
            _ => Self::Database(error),
        }
    }
}
