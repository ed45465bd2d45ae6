//! The event log in one SQLite file: write-ahead log, full sync, one writer.
//!
//! All writes go through one thread (see [`super::writer`]), which shares the cost of a sync among all that
//! has queued up (group commit). Reads use a connection of their own and never wait for the writer.

use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fittingroom_common::convert::DecodeError;
use fittingroom_common::dataset::Manifest;
use fittingroom_common::event::Event;
use fittingroom_common::id::{Name, SearchId, TrialId};
use fittingroom_common::proto as pb;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message;
use rusqlite::{Connection, params};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::writer::{Answer, Write, write_all};
use super::{Append, EventLog, Listed, LogError, snapshots, unsynced};

/// "FRlg": marks the file as ours.
pub(super) const APPLICATION_ID: i32 = 0x4652_6c67;
/// The layout of the tables below.
pub(super) const LAYOUT: i32 = 1;
/// The first SQLite without the reset race of the write-ahead log.
const OLDEST_SQLITE: i32 = 3_051_003;
/// The most requests that wait for the writer. More make their senders wait.
const QUEUE: usize = 4096;
/// The write-ahead log is brought into the database after this many pages (of 4 KiB)…
const CHECKPOINT_PAGES: i32 = 4096;
/// … and its file cut to this many bytes, should a long reader have let it grow.
const MOST_WAL_BYTES: i64 = 64 << 20;
/// How long to wait at the end for what is still queued. What is not written by then was never answered.
const LAST_WRITES: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE searches (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        search INTEGER NOT NULL REFERENCES searches (id),
        version INTEGER NOT NULL,
        trial INTEGER,
        payload BLOB NOT NULL,
        PRIMARY KEY (search, version)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX events_of_trial ON events (search, trial, version) WHERE trial IS NOT NULL;
    CREATE TABLE datasets (
        name TEXT PRIMARY KEY,
        manifest BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// The event log in one SQLite file.
#[derive(Debug)]
pub struct SqliteLog {
    path: PathBuf,
    writes: Option<std_mpsc::SyncSender<Write>>,
    reader: Arc<Mutex<Connection>>,
    writer: Option<JoinHandle<()>>,
    /// Hung up by the writer when it has ended.
    ended: Mutex<std_mpsc::Receiver<()>>,
    /// What was wrong when a sync failed.
    unsynced: watch::Receiver<Option<String>>,
}

impl SqliteLog {
    /// Opens the log in this file, and makes it if it is not there.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(LogError::OldSqlite { found: rusqlite::version() });
        }
        let mut connection = connect(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", MOST_WAL_BYTES)?;
        prepare(&mut connection, path)?;
        unsynced::settle(&connection)?;
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true)?;
        let (writes, queue) = std_mpsc::sync_channel(QUEUE);
        let (running, ended) = std_mpsc::channel();
        let (failed, unsynced) = watch::channel(None);
        let writer = std::thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || {
                write_all(&mut connection, &queue, &failed);
                drop(running);
            })
            .map_err(|error| LogError::Foreign { path: path.to_owned(), problem: error.to_string() })?;
        let (path, reader) = (path.to_owned(), Arc::new(Mutex::new(reader)));
        let ended = Mutex::new(ended);
        Ok(Self { path, writes: Some(writes), reader, writer: Some(writer), ended, unsynced })
    }

    /// Waits until nothing more can be written: for the first sync that fails. Whoever has the log is to end then.
    pub async fn failure(&self) -> LogError {
        let mut unsynced = self.unsynced.clone();
        let failed = unsynced.wait_for(Option::is_some).await;
        failed.ok().and_then(|problem| problem.clone()).map_or(LogError::Closed, LogError::Unsynced)
    }

    async fn write<T: Send + 'static>(&self, make: impl FnOnce(Answer<T>) -> Write) -> Result<T, LogError> {
        let (answer, answered) = oneshot::channel();
        let mut write = make(answer);
        let writes = self.writes.as_ref().ok_or(LogError::Closed)?;
        loop {
            match writes.try_send(write) {
                Ok(()) => break,
                Err(std_mpsc::TrySendError::Disconnected(_)) => return Err(LogError::Closed),
                Err(std_mpsc::TrySendError::Full(back)) => write = back,
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        answered.await.unwrap_or(Err(LogError::Closed))
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let reader = Arc::clone(&self.reader);
        let task = tokio::task::spawn_blocking(move || {
            query(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
        task.await.unwrap_or(Err(LogError::Closed))
    }
}

impl Drop for SqliteLog {
    /// Waits until everything that was queued is written, or the disk has had its time.
    fn drop(&mut self) {
        self.writes = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(LAST_WRITES) == Err(std_mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("the log's last writes do not end; they were not acknowledged");
        } else if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

impl EventLog for SqliteLog {
    fn create(&self, name: Name, first: Event) -> BoxFuture<'_, Result<SearchId, LogError>> {
        self.write(|answer| Write::Create { name, first, answer }).boxed()
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<(), LogError>> {
        self.write(|answer| Write::Append { append, answer }).boxed()
    }

    fn searches(&self) -> BoxFuture<'_, Result<Vec<Listed>, LogError>> {
        self.read(|connection| {
            let mut rows = connection.prepare_cached("SELECT id, name FROM searches ORDER BY id")?;
            let rows = rows.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
            rows.map(|row| {
                let (id, name) = row?;
                Ok(Listed { id: SearchId::new(id.cast_unsigned()), name: Name::sanitised(&name) })
            })
            .collect()
        })
        .boxed()
    }

    fn events(&self, search: SearchId) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.read(move |connection| {
            let mut rows = connection
                .prepare_cached("SELECT version, payload FROM events WHERE search = ?1 ORDER BY version")?;
            decoded(search, rows.query(params![stored(search.get())])?)
        })
        .boxed()
    }

    fn events_after(
        &self,
        search: SearchId,
        version: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT version, payload FROM events WHERE search = ?1 AND version > ?2 ORDER BY version LIMIT ?3",
            )?;
            decoded(search, rows.query(params![stored(search.get()), stored(version), stored(most as u64)])?)
        })
        .boxed()
    }

    fn snapshot(&self, search: SearchId) -> BoxFuture<'_, Result<Option<pb::SearchSnapshot>, LogError>> {
        self.read(move |connection| snapshots::head(connection, search)).boxed()
    }

    fn snapshot_trials(
        &self,
        search: SearchId,
        from: TrialId,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<pb::TrialSnapshot>, LogError>> {
        self.read(move |connection| snapshots::trials(connection, search, from, most)).boxed()
    }

    fn events_of_trial(
        &self,
        search: SearchId,
        trial: TrialId,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.read(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT version, payload FROM events WHERE search = ?1 AND trial = ?2 ORDER BY version",
            )?;
            decoded(search, rows.query(params![stored(search.get()), stored(trial.get())])?)
        })
        .boxed()
    }

    fn put_dataset(&self, manifest: Manifest) -> BoxFuture<'_, Result<(), LogError>> {
        self.write(|answer| Write::PutDataset { manifest, answer }).boxed()
    }

    fn datasets(&self) -> BoxFuture<'_, Result<Vec<Manifest>, LogError>> {
        self.read(|connection| {
            let mut rows = connection.prepare_cached("SELECT name, manifest FROM datasets ORDER BY name")?;
            let rows = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
            rows.map(|row| {
                let (name, bytes) = row?;
                pb::Dataset::decode(&*bytes)
                    .map_err(|error| DecodeError::from(&error))
                    .and_then(Manifest::try_from)
                    .map_err(|source| LogError::UndecodableDataset { name, source })
            })
            .collect()
        })
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.write(|answer| Write::Probe { answer }).boxed()
    }

    fn copy(&self, to: PathBuf, stop: CancellationToken) -> BoxFuture<'_, Result<(), LogError>> {
        let from = self.path.clone();
        let copied = tokio::task::spawn_blocking(move || super::copy::copy(&from, &to, &stop));
        async { copied.await.unwrap_or(Err(LogError::Closed)) }.boxed()
    }
}

/// A number as SQLite keeps it. It has no unsigned ones; the largest of ours come back as they went.
pub(super) const fn stored(number: u64) -> i64 {
    number.cast_signed()
}

fn connect(path: &Path) -> Result<Connection, LogError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Makes the tables, or checks that they are those of this version.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), LogError> {
    let foreign = |problem: String| LogError::Foreign { path: path.to_owned(), problem };
    let number =
        |connection: &Connection, name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, layout) = (number(connection, "application_id")?, number(connection, "user_version")?);
    match (application, layout) {
        (0, 0) => {
            let tables: i64 =
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables > 0 {
                return Err(foreign("it holds tables of another program".to_owned()));
            }
            let transaction = connection.transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.execute_batch(snapshots::TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", LAYOUT)?;
            transaction.commit()?;
            Ok(())
        }
        // A log from before there were snapshots gets their tables. To a version that knows of none
        // they mean nothing, and the log stays one that it reads.
        (APPLICATION_ID, LAYOUT) => Ok(connection.execute_batch(snapshots::TABLES)?),
        (APPLICATION_ID, other) => Err(foreign(format!("its layout is {other}, this version's is {LAYOUT}"))),
        (other, _) => Err(foreign(format!("it is marked as another program's ({other:#x})"))),
    }
}

fn decoded(search: SearchId, mut rows: rusqlite::Rows<'_>) -> Result<Vec<Event>, LogError> {
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let version = row.get::<_, i64>(0)?.cast_unsigned();
        let payload = row.get_ref(1)?.as_blob().map_err(|_| {
            let source = DecodeError::Missing("payload");
            LogError::Undecodable { search, version, source }
        })?;
        let event = pb::Event::decode(payload)
            .map_err(|error| DecodeError::from(&error))
            .and_then(Event::try_from)
            .map_err(|source| LogError::Undecodable { search, version, source })?;
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fittingroom_common::event::Fact;
    use fittingroom_common::time::Timestamp;

    fn paused() -> Event {
        Event { at: Timestamp::from_millis(1), fact: Fact::SearchPaused }
    }

    fn name(text: &str) -> Name {
        text.parse().expect("usable")
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_reopening() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("log.sqlite");
        let log = SqliteLog::open(&path).expect("opens");
        let search = log.create(name("a"), paused()).await.expect("creates");
        log.append(Append { search, expected_version: 1, events: vec![paused(); 3], snapshot: None })
            .await
            .expect("appends");
        drop(log);
        let log = SqliteLog::open(&path).expect("reopens");
        assert_eq!(log.events(search).await.expect("reads"), vec![paused(); 4]);
        assert_eq!(log.searches().await.expect("reads"), [Listed { id: search, name: name("a") }]);
    }

    #[tokio::test]
    async fn a_writer_that_is_behind_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let log = SqliteLog::open(&folder.path().join("log.sqlite")).expect("opens");
        let search = log.create(name("a"), paused()).await.expect("creates");
        let append = |expected_version| {
            log.append(Append { search, expected_version, events: vec![paused()], snapshot: None })
        };
        let (first, second) = tokio::join!(append(1), append(1));
        assert!(first.is_ok());
        assert!(matches!(second, Err(LogError::Conflict { expected: 1, .. })), "{second:?}");
        assert!(matches!(append(7).await, Err(LogError::Conflict { .. })));
        assert_eq!(log.events(search).await.expect("reads").len(), 2);
    }

    #[tokio::test]
    async fn a_name_belongs_to_one_search() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let log = SqliteLog::open(&folder.path().join("log.sqlite")).expect("opens");
        log.create(name("a"), paused()).await.expect("creates");
        assert!(matches!(log.create(name("a"), paused()).await, Err(LogError::NameTaken { .. })));
    }

    #[tokio::test]
    async fn another_programs_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("log.sqlite");
        Connection::open(&path).and_then(|it| it.execute_batch("CREATE TABLE t (x)")).expect("makes");
        assert!(matches!(SqliteLog::open(&path), Err(LogError::Foreign { .. })));
        std::fs::write(&path, "this is no database at all, whatever its name may say").expect("writes");
        assert!(SqliteLog::open(&path).is_err());
    }
}
