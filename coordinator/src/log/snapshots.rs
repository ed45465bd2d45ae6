//! The snapshots in the event log's file: a row for a search, and one for each of its trials.
//!
//! A snapshot's rows are put over those of the one before, in the transaction of the events that it
//! follows from. Each row carries a checksum. One that is wrong costs a replay of all events, never more.

use fittingroom_common::id::{SearchId, TrialId};
use fittingroom_common::proto as pb;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::LogError;
use super::sqlite::stored;
use crate::search::Snapshot;

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS snapshots (
        search INTEGER PRIMARY KEY REFERENCES searches (id),
        payload BLOB NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS snapshot_trials (
        search INTEGER NOT NULL,
        trial INTEGER NOT NULL,
        payload BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        PRIMARY KEY (search, trial)
    ) STRICT, WITHOUT ROWID;
";

/// Puts a snapshot over the search's last.
pub(super) fn keep(transaction: &Connection, search: SearchId, snapshot: &Snapshot) -> Result<(), LogError> {
    let Snapshot { head, trials } = snapshot;
    let mut replace = transaction.prepare_cached(
        "INSERT OR REPLACE INTO snapshot_trials (search, trial, payload, checksum) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (trial, kept) in trials {
        let payload = kept.encode_to_vec();
        let checksum = checksum(search, Some(*trial), &payload);
        replace.execute(params![stored(search.get()), stored(trial.get()), payload, checksum])?;
    }
    let Some(head) = head else {
        // Trials of two moments are no snapshot.
        transaction
            .prepare_cached("DELETE FROM snapshots WHERE search = ?1")?
            .execute(params![stored(search.get())])?;
        return Ok(());
    };
    let payload = head.encode_to_vec();
    let checksum = checksum(search, None, &payload);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO snapshots (search, payload, checksum) VALUES (?1, ?2, ?3)")?
        .execute(params![stored(search.get()), payload, checksum])?;
    Ok(())
}

/// All of a search's snapshot but its trials.
pub(super) fn head(
    connection: &Connection,
    search: SearchId,
) -> Result<Option<pb::SearchSnapshot>, LogError> {
    connection
        .prepare_cached("SELECT payload, checksum FROM snapshots WHERE search = ?1")?
        .query_row(params![stored(search.get())], |row| Ok(intact(row, 0, search, None)))
        .optional()?
        .transpose()
}

/// Up to `most` trials of a search's snapshot, from this one, each after the one before.
pub(super) fn trials(
    connection: &Connection,
    search: SearchId,
    from: TrialId,
    most: usize,
) -> Result<Vec<pb::TrialSnapshot>, LogError> {
    let mut statement = connection.prepare_cached(
        "SELECT trial, payload, checksum FROM snapshot_trials WHERE search = ?1 AND trial >= ?2 ORDER BY trial LIMIT ?3",
    )?;
    let mut rows = statement.query(params![stored(search.get()), stored(from.get()), stored(most as u64)])?;
    let mut trials = Vec::with_capacity(most);
    for number in from.get().. {
        let Some(row) = rows.next()? else { break };
        let expected = TrialId::new(number);
        if row.get::<_, i64>(0)? != stored(number) {
            return Err(damaged(search, Some(expected)));
        }
        trials.push(intact(row, 1, search, Some(expected))?);
    }
    Ok(trials)
}

/// The message in a row whose checksum, in the column after it, is right.
fn intact<M: Message + Default>(
    row: &Row<'_>,
    column: usize,
    search: SearchId,
    trial: Option<TrialId>,
) -> Result<M, LogError> {
    let payload = row.get_ref(column)?.as_blob().map_err(|_| damaged(search, trial))?;
    if row.get::<_, i64>(column + 1)? != checksum(search, trial, payload) {
        return Err(damaged(search, trial));
    }
    M::decode(payload).map_err(|_| damaged(search, trial))
}

fn damaged(search: SearchId, trial: Option<TrialId>) -> LogError {
    let place = trial.map_or_else(|| "its head".to_owned(), |trial| format!("trial {trial}"));
    LogError::DamagedSnapshot { search, place }
}

/// Of a row: what it holds, and where it belongs.
fn checksum(search: SearchId, trial: Option<TrialId>, payload: &[u8]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&search.get().to_le_bytes());
    hasher.update(&trial.map_or(u64::MAX, TrialId::get).to_le_bytes());
    hasher.update(payload);
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    i64::from_le_bytes(first)
}
