//! The one thread that writes to the log: takes what has queued up, puts it into one transaction, and answers
//! everybody when that is on the disk.

use std::sync::mpsc::Receiver;

use fittingroom_common::dataset::Manifest;
use fittingroom_common::event::Event;
use fittingroom_common::id::{Name, SearchId};
use fittingroom_common::proto as pb;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use super::sqlite::{LAYOUT, stored};
use super::{Append, LogError, snapshots};

/// The most requests of one transaction.
const MOST_PER_COMMIT: usize = 1024;

/// Where the answer to a request goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// A request to write.
pub(super) enum Write {
    Create { name: Name, first: Event, answer: Answer<SearchId> },
    Append { append: Append, answer: Answer<()> },
    PutDataset { manifest: Manifest, answer: Answer<()> },
    Probe { answer: Answer<()> },
}

/// The writer's thread: until every sender is gone. Once a sync has failed it only refuses.
pub(super) fn write_all(
    connection: &mut Connection,
    queue: &Receiver<Write>,
    failed: &watch::Sender<Option<String>>,
) {
    while let Ok(first) = queue.recv() {
        let problem = failed.borrow().clone();
        if let Some(problem) = problem {
            refuse(first, LogError::Unsynced(problem));
            continue;
        }
        let batch: Vec<Write> =
            std::iter::once(first).chain(queue.try_iter().take(MOST_PER_COMMIT - 1)).collect();
        if let Err(LogError::Unsynced(problem)) = commit(connection, batch) {
            // Somebody may look at it only later.
            failed.send_replace(Some(problem));
        }
    }
}

/// What is to be told once the transaction is durable.
type Told = Box<dyn FnOnce(Result<(), LogError>)>;

/// Writes a batch in one transaction. What conflicts is refused alone; what fails on the disk fails all.
fn commit(connection: &mut Connection, batch: Vec<Write>) -> Result<(), LogError> {
    let mut told: Vec<Told> = Vec::with_capacity(batch.len());
    let mut writes = batch.into_iter();
    let outcome = (|| {
        let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for write in writes.by_ref() {
            told.push(perform(&mut transaction, write));
            // A full disk makes SQLite give up the whole transaction. What came after would be
            // written outside of it.
            if transaction.is_autocommit() {
                return Err(LogError::DiskFull);
            }
        }
        Ok(transaction.commit()?)
    })();
    let Err(error) = outcome else {
        told.into_iter().for_each(|tell| tell(Ok(())));
        return Ok(());
    };
    tracing::error!(%error, "nothing of a batch is durable");
    let problem = error.to_string();
    let failure = || match &error {
        LogError::DiskFull => LogError::DiskFull,
        LogError::Unsynced(problem) => LogError::Unsynced(problem.clone()),
        _ => LogError::Commit(problem.clone()),
    };
    told.into_iter().for_each(|tell| tell(Err(failure())));
    writes.for_each(|write| refuse(write, failure()));
    Err(failure())
}

/// Answers a request that was not even tried.
fn refuse(write: Write, error: LogError) {
    // The sender may have gone; then nobody needs to know.
    match write {
        Write::Create { answer, .. } => drop(answer.send(Err(error))),
        Write::Append { answer, .. } | Write::PutDataset { answer, .. } | Write::Probe { answer } => {
            drop(answer.send(Err(error)));
        }
    }
}

/// Writes one request into the transaction, and says how its sender is to be answered.
fn perform(transaction: &mut Transaction<'_>, write: Write) -> Told {
    fn tell<T: 'static>(answer: Answer<T>, result: Result<T, LogError>) -> Told {
        // The sender may have gone; then nobody needs to know.
        Box::new(move |committed| drop(answer.send(committed.and(result))))
    }
    match write {
        Write::Create { name, first, answer } => {
            tell(answer, alone(transaction, |it| create(it, &name, &first)))
        }
        Write::Append { append, answer } => tell(answer, alone(transaction, |it| append_events(it, &append))),
        Write::PutDataset { manifest, answer } => {
            tell(answer, alone(transaction, |it| put_dataset(it, &manifest)))
        }
        // A number in the file's first page is written anew, which makes the transaction one with something
        // to make durable. It stays the same.
        Write::Probe { answer } => {
            tell(answer, alone(transaction, |it| Ok(it.pragma_update(None, "user_version", LAYOUT)?)))
        }
    }
}

/// Does all of a request or nothing, whatever becomes of the others in the transaction.
fn alone<T>(
    transaction: &mut Transaction<'_>,
    request: impl FnOnce(&Connection) -> Result<T, LogError>,
) -> Result<T, LogError> {
    let savepoint = transaction.savepoint()?;
    let done = request(&savepoint)?;
    savepoint.commit()?;
    Ok(done)
}

fn create(transaction: &Connection, name: &Name, first: &Event) -> Result<SearchId, LogError> {
    let taken: Option<i64> = transaction
        .prepare_cached("SELECT id FROM searches WHERE name = ?1")?
        .query_row(params![name.as_str()], |row| row.get(0))
        .optional()?;
    if taken.is_some() {
        return Err(LogError::NameTaken { name: name.clone() });
    }
    transaction
        .prepare_cached("INSERT INTO searches (name, version) VALUES (?1, 0)")?
        .execute(params![name.as_str()])?;
    let search = SearchId::new(transaction.last_insert_rowid().cast_unsigned());
    let append = Append { search, expected_version: 0, events: vec![first.clone()], snapshot: None };
    append_events(transaction, &append)?;
    Ok(search)
}

fn append_events(transaction: &Connection, append: &Append) -> Result<(), LogError> {
    let Append { search, expected_version, events, snapshot } = append;
    let moved = transaction
        .prepare_cached("UPDATE searches SET version = ?3 WHERE id = ?1 AND version = ?2")?
        .execute(params![
            stored(search.get()),
            stored(*expected_version),
            stored(expected_version + events.len() as u64)
        ])?;
    if moved != 1 {
        return Err(LogError::Conflict { search: *search, expected: *expected_version });
    }
    let mut insert = transaction
        .prepare_cached("INSERT INTO events (search, version, trial, payload) VALUES (?1, ?2, ?3, ?4)")?;
    for (event, version) in events.iter().zip(expected_version + 1..) {
        let trial = event.fact.trial().map(|trial| stored(trial.get()));
        insert.execute(params![
            stored(search.get()),
            stored(version),
            trial,
            pb::Event::from(event).encode_to_vec()
        ])?;
    }
    snapshot.iter().try_for_each(|snapshot| snapshots::keep(transaction, *search, snapshot))
}

fn put_dataset(transaction: &Connection, manifest: &Manifest) -> Result<(), LogError> {
    transaction
        .prepare_cached("INSERT INTO datasets (name, manifest) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET manifest = ?2")?
        .execute(params![manifest.name.as_str(), pb::Dataset::from(manifest).encode_to_vec()])?;
    Ok(())
}
