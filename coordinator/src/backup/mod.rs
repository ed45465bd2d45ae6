//! Backups: all that a coordinator needs to go on, as it was at one moment, in one file.
//!
//! A backup is a tar archive. Its first file, `backup.json`, lists the others with their sizes and their
//! BLAKE3: the event log, and the artifacts and checkpoints that it names, under their places in the store.
//! An archive that was cut off lacks what its list promises, and is not restored.
//!
//! Certificates, keys and tokens are not in it, so that a backup may be kept where they may not.

mod format;
mod make;
mod restore;

pub use make::{Backup, BackupError};
pub use restore::{RestoreError, Restored, restore};

/// The name of the event log's file, in a data folder as in a backup.
pub(crate) const LOG: &str = "log.sqlite";
