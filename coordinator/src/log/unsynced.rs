//! What a failed sync means for the log.
//!
//! A system that cannot write what it was given may forget it and call it written: the next sync then succeeds
//! without it, and reading shows what a power cut would take away. So the first sync that fails is the last. Nothing
//! of that transaction is acknowledged, nothing is written any more, and the coordinator ends. Whoever
//! starts it again reads the same memory of the system, so all that the write-ahead log holds is written and
//! synced anew before any of it is relied on.

use rusqlite::{Connection, ffi};
use tracing::warn;

use super::LogError;

/// Whether an error of SQLite says that a file or its folder could not be synced.
pub(super) fn is_told_by(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Brings what an earlier run left in the write-ahead log into the database, and syncs it.
pub(super) fn settle(connection: &Connection) -> Result<(), LogError> {
    let somebody_reads: bool = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0))?;
    if somebody_reads {
        warn!("another program reads the log, so that its last part could not be synced anew");
    }
    Ok(())
}
