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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SqliteLog;

    /// The first and the last row, which lie in different portions of a copy.
    fn ends(connection: &Connection) -> [i64; 2] {
        ["0", "9999"].map(|name| {
            let read = "SELECT unicode(manifest) FROM datasets WHERE name = ?1";
            connection.query_row(read, [name], |row| row.get(0)).expect("is there")
        })
    }

    #[test]
    fn a_copy_is_of_the_moment_at_which_it_was_begun_and_holds_up_nobody_who_writes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let [from, to] = ["log.sqlite", "copy.sqlite"].map(|name| folder.path().join(name));
        let log = SqliteLog::open(&from).expect("opens");
        let writer = Connection::open(&from).expect("opens");
        writer
            .execute_batch(
                "WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < 29999)
                 INSERT INTO datasets SELECT n, CAST('0' || hex(zeroblob(500)) AS BLOB) FROM number",
            )
            .expect("fills");
        let before = ends(&writer);

        let copying = std::thread::spawn({
            let (from, to) = (from.clone(), to.clone());
            move || copy(&from, &to, &CancellationToken::new())
        });
        // Its first portion is there.
        while std::fs::metadata(&to).map_or(0, |it| it.len()) == 0 {
            std::thread::yield_now();
        }
        let mut written = 0;
        while !copying.is_finished() {
            writer
                .execute_batch("UPDATE datasets SET manifest = CAST('1' AS BLOB) WHERE name IN ('0', '9999')")
                .expect("writes");
            written += 1;
        }
        copying.join().expect("ends").expect("copies");
        assert!(written > 1, "the writer waited for the copy");
        assert_ne!(ends(&writer), before);
        assert_eq!(ends(&Connection::open(&to).expect("opens")), before);
        drop(log);
        let stop = CancellationToken::new();
        stop.cancel();
        let given_up = copy(&from, &folder.path().join("another.sqlite"), &stop);
        assert!(matches!(given_up, Err(LogError::Closed)), "{given_up:?}");
    }
}
