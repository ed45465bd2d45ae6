//! Copies a log while it is written: SQLite's online backup, within one transaction that reads.
//!
//! The write-ahead log keeps what is written meanwhile apart, so that neither waits for the other; it
//! cannot be cut until the copy is done.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tokio_util::sync::CancellationToken;

use super::LogError;

/// How many pages (of 4 KiB) are copied at a time.
const PAGES: i32 = 1024;
/// The pause between two such portions, which leaves the disk to the log's writer.
const PAUSE: Duration = Duration::from_millis(2);

/// Copies the log in the file `from` into the new file `to`, unless told to `stop`.
pub(super) fn copy(from: &Path, to: &Path, stop: &CancellationToken) -> Result<(), LogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    source.busy_timeout(Duration::from_secs(10))?;
    // A transaction begins with its first read. All portions are of that moment.
    source.execute_batch("BEGIN")?;
    source.query_row("SELECT count(*) FROM searches", [], |_| Ok(()))?;
    let mut target = Connection::open(to)?;
    // Half a copy is thrown away, so there is no need to undo it.
    target.pragma_update(None, "journal_mode", "OFF")?;
    target.pragma_update(None, "synchronous", "OFF")?;
    let backup = Backup::new(&source, &mut target)?;
    loop {
        if stop.is_cancelled() {
            return Err(LogError::Closed);
        }
        match backup.step(PAGES)? {
            StepResult::Done => return Ok(()),
            // `More`, or somebody else looks at one of the files at this moment.
            _ => std::thread::sleep(PAUSE),
        }
    }
}
