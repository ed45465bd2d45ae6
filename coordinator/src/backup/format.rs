//! What is in a backup, and how it lies there.

use std::io;

use bytes::Bytes;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::operator::Artifacts;
use fittingroom_common::time::Timestamp;
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use super::LOG;
use crate::artifacts;
use crate::checkpoints::{self, TrialKey};

/// The first file of the archive.
pub(super) const MANIFEST: &str = "backup.json";
/// The form that this version writes and reads.
pub(super) const FORM: u32 = 1;
/// The largest list that is read, in bytes.
pub(super) const MOST_MANIFEST_BYTES: u64 = 64 << 20;
/// What is before the place of something in the store.
const FOLDER: &str = "artifacts/";
/// The unit of a tar archive, in bytes.
const BLOCK: u64 = 512;

/// `backup.json`: what else is in the archive, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`FORM`].
    pub(super) form: u32,
    /// The version of the program that made it.
    pub(super) program_version: String,
    /// When it was begun, in milliseconds since 1970-01-01 00:00 UTC.
    pub(super) made_ms: i64,
    /// Whether it is whole without another place.
    pub(super) artifacts: Artifacts,
    /// The other files.
    pub(super) files: Vec<Listed>,
}

/// One file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    /// Its name.
    pub(super) path: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Its BLAKE3.
    pub(super) blake3: ArtifactHash,
}

/// What a file of the archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// The event log.
    Log,
    /// A model, or a file of a dataset.
    Artifact(ArtifactHash),
    /// A checkpoint of a trial.
    Checkpoint(TrialKey, ArtifactHash),
}

impl Content {
    /// Where it lies in the store; nowhere, if it is the log.
    pub(super) fn place(self) -> Option<ObjectPath> {
        match self {
            Self::Log => None,
            Self::Artifact(hash) => Some(artifacts::place(hash)),
            Self::Checkpoint(trial, hash) => Some(checkpoints::place(trial, hash)),
        }
    }

    /// What its bytes must have, if its name says it.
    pub(super) const fn hash(self) -> Option<ArtifactHash> {
        match self {
            Self::Log => None,
            Self::Artifact(hash) | Self::Checkpoint(_, hash) => Some(hash),
        }
    }

    /// The name of its file.
    pub(super) fn path(self) -> String {
        self.place().map_or_else(|| LOG.to_owned(), |place| format!("{FOLDER}{place}"))
    }

    /// What a file of this name is. Nothing is if it would go anywhere but to its place.
    pub(super) fn of(path: &str) -> Option<Self> {
        let found = match path.strip_prefix(FOLDER) {
            None => Self::Log,
            Some(place) => {
                let place = ObjectPath::parse(place).ok()?;
                match checkpoints::key_of(&place) {
                    Some((trial, hash)) => Self::Checkpoint(trial, hash),
                    None => Self::Artifact(place.filename()?.parse().ok()?),
                }
            }
        };
        (found.path() == path).then_some(found)
    }
}

/// What stands before a file.
pub(super) fn header(path: &str, bytes: u64, at: Timestamp) -> io::Result<Bytes> {
    let mut header = Header::new_ustar();
    header.set_path(path)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(at.as_millis() / 1000).unwrap_or(0));
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

/// What fills up the last block of a file of this size.
pub(super) fn padding(bytes: u64) -> Bytes {
    const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
    Bytes::from_static(&ZEROS).slice(..(bytes.next_multiple_of(BLOCK) - bytes) as usize)
}

/// The end of an archive: two empty blocks.
pub(super) const END: &[u8] = &[0; 2 * BLOCK as usize];

/// How many bytes a file of this size takes.
pub(super) const fn room(bytes: u64) -> u64 {
    BLOCK + bytes.next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use fittingroom_common::id::{SearchId, TrialId};

    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_and_nothing_else_is() {
        let hash = ArtifactHash::of(b"model");
        let trial = (SearchId::new(3), TrialId::new(1_000_000));
        for content in [Content::Log, Content::Artifact(hash), Content::Checkpoint(trial, hash)] {
            assert_eq!(Content::of(&content.path()), Some(content));
            header(&content.path(), 1 << 40, Timestamp::from_millis(0)).expect("its name fits");
        }
        let artifact = Content::Artifact(hash).path();
        for path in [
            "log.sqlite-wal".to_owned(),
            "/etc/passwd".to_owned(),
            "../log.sqlite".to_owned(),
            format!("artifacts/../{artifact}"),
            format!("/{artifact}"),
            format!("artifacts/{hash}"),
            format!("artifacts/00/{hash}"),
            artifact.replace("artifacts/", "artifacts//"),
            "artifacts/checkpoints/3-1-x".to_owned(),
            "artifacts/checkpoints/3--1".to_owned(),
            "tokens.json".to_owned(),
        ] {
            assert_eq!(Content::of(&path), None, "{path}");
        }
    }

    #[test]
    fn files_fill_whole_blocks() {
        for (bytes, padded) in [(0, 0), (1, 511), (512, 0), (513, 511)] {
            assert_eq!(padding(bytes).len(), padded, "{bytes}");
            assert_eq!(room(bytes), BLOCK + bytes + padded as u64, "{bytes}");
        }
    }
}
