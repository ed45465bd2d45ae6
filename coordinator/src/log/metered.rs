//! The event log, watched from outside: how long appends take, what they hold, and whether they fail.

use std::path::PathBuf;
use std::time::Instant;

use fittingroom_common::dataset::Manifest;
use fittingroom_common::event::Event;
use fittingroom_common::id::{Name, SearchId, TrialId};
use fittingroom_common::proto as pb;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Append, EventLog, Listed, LogError, LogState};
use crate::metrics::{Appended, Metrics};

/// A log that is watched.
pub(crate) struct MeteredLog<L> {
    log: L,
    metrics: Metrics,
    state: watch::Sender<LogState>,
}

impl<L: EventLog> MeteredLog<L> {
    /// Watches a log that could just be opened, and so is writable.
    pub(crate) fn new(log: L, metrics: Metrics) -> Self {
        Self { log, metrics, state: watch::Sender::new(LogState::Writable) }
    }

    /// The log that is watched.
    pub(crate) fn inner(&self) -> &L {
        &self.log
    }

    /// Whether it can be written, now and whenever that changes.
    pub(crate) fn state(&self) -> watch::Receiver<LogState> {
        self.state.subscribe()
    }

    /// Learns from how a write ended.
    fn note<T>(&self, written: &Result<T, LogError>) {
        let now = match written {
            Ok(_) => LogState::Writable,
            // These are answers to what was asked for.
            Err(LogError::Conflict { .. } | LogError::NameTaken { .. }) => LogState::Writable,
            // The coordinator is stopping.
            Err(LogError::Closed) => return,
            Err(_) => {
                self.metrics.append_failed();
                LogState::Failing
            }
        };
        self.state.send_if_modified(|state| std::mem::replace(state, now) != now);
    }

    async fn timed<T>(
        &self,
        counted: Appended,
        write: impl Future<Output = Result<T, LogError>>,
    ) -> Result<T, LogError> {
        let begun = Instant::now();
        let written = write.await;
        if written.is_ok() {
            self.metrics.appended(begun.elapsed().as_secs_f64(), &counted);
        }
        self.note(&written);
        written
    }
}

impl<L: EventLog> EventLog for MeteredLog<L> {
    fn create(&self, name: Name, first: Event) -> BoxFuture<'_, Result<SearchId, LogError>> {
        let counted = Appended::count(std::slice::from_ref(&first));
        self.timed(counted, self.log.create(name, first)).boxed()
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<(), LogError>> {
        let counted = Appended::count(&append.events);
        self.timed(counted, self.log.append(append)).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), LogError>> {
        async {
            let written = self.log.probe().await;
            self.note(&written);
            written
        }
        .boxed()
    }

    fn put_dataset(&self, manifest: Manifest) -> BoxFuture<'_, Result<(), LogError>> {
        async {
            let written = self.log.put_dataset(manifest).await;
            self.note(&written);
            written
        }
        .boxed()
    }

    fn searches(&self) -> BoxFuture<'_, Result<Vec<Listed>, LogError>> {
        self.log.searches()
    }

    fn events(&self, search: SearchId) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.log.events(search)
    }

    fn events_after(
        &self,
        search: SearchId,
        version: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.log.events_after(search, version, most)
    }

    fn snapshot(&self, search: SearchId) -> BoxFuture<'_, Result<Option<pb::SearchSnapshot>, LogError>> {
        self.log.snapshot(search)
    }

    fn snapshot_trials(
        &self,
        search: SearchId,
        from: TrialId,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<pb::TrialSnapshot>, LogError>> {
        self.log.snapshot_trials(search, from, most)
    }

    fn events_of_trial(
        &self,
        search: SearchId,
        trial: TrialId,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.log.events_of_trial(search, trial)
    }

    fn datasets(&self) -> BoxFuture<'_, Result<Vec<Manifest>, LogError>> {
        self.log.datasets()
    }

    fn copy(&self, to: PathBuf, stop: CancellationToken) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.copy(to, stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SqliteLog;

    #[tokio::test]
    async fn a_log_is_what_its_last_write_came_to() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("log.sqlite");
        let log = MeteredLog::new(SqliteLog::open(&path).expect("opens"), Metrics::new([]));
        let state = log.state();
        let (search, expected) = (SearchId::new(1), 7);
        for (row, written, expected) in [
            ("a full disk", Err(LogError::DiskFull), LogState::Failing),
            ("a stop", Err(LogError::Closed), LogState::Failing),
            ("a durable write", Ok(()), LogState::Writable),
            ("a stop", Err(LogError::Closed), LogState::Writable),
            ("a failing disk", Err(LogError::Commit("disk I/O error".to_owned())), LogState::Failing),
            ("a refusal", Err(LogError::Conflict { search, expected }), LogState::Writable),
        ] {
            log.note(&written);
            assert_eq!(*state.borrow(), expected, "{row}");
        }
    }

    #[tokio::test]
    async fn a_probe_is_a_write_that_must_be_made_durable() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("log.sqlite");
        let log = MeteredLog::new(SqliteLog::open(&path).expect("opens"), Metrics::new([]));
        let written = || std::fs::read(folder.path().join("log.sqlite-wal")).expect("is there");
        let before = written();
        log.probe().await.expect("writable");
        assert_ne!(written(), before, "nothing was written");
        log.note(&Err::<(), _>(LogError::DiskFull));
        log.probe().await.expect("writable");
        assert_eq!(*log.state().borrow(), LogState::Writable);
    }
}
