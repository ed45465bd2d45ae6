//! Makes a data folder out of a backup.
//!
//! Everything is put together in a folder within the new data folder, checked on its way, and moved to its
//! place at the end, the event log last: a restoration that breaks off leaves no coordinator that lacks something.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::operator::Artifacts;
use fittingroom_common::time::Timestamp;
use futures_util::stream;
use tar::{Archive, Entries, Entry};

use super::LOG;
use super::format::{Content, FORM, Listed, MANIFEST, MOST_MANIFEST_BYTES, Manifest};
use crate::artifacts::{ArtifactError, ArtifactStore, CHUNK_BYTES};
use crate::log::{LogError, StoredLog};
use crate::owner;
use crate::serve::{ServeError, lock};

/// Where everything is put together.
const WORKSHOP: &str = "restoring";
/// Where the store is within a data folder.
const STORE: &str = "artifacts";
/// What may be in a data folder before it is restored into: certificates and tokens made for it, and what
/// holds nothing.
const HARMLESS: [&str; 6] = ["certs", "tokens.json", "tokens.lock", "lock", "incoming", WORKSHOP];

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The moment that it is of.
    pub made: Timestamp,
    /// How many searches there are.
    pub searches: u64,
    /// How many models, files of datasets and checkpoints were restored.
    pub artifacts: u64,
    /// Whether those that the log names were in the backup.
    pub contents: Artifacts,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder holds something.
    #[error("{data:?} holds {found:?} already, and nothing is written over it: give another folder")]
    NotEmpty {
        /// The folder.
        data: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The backup cannot be read.
    #[error("{backup:?} cannot be read: {source}")]
    Read {
        /// The backup.
        backup: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else, or a backup of another version.
    #[error("{backup:?} is no backup that this version reads: {problem}")]
    Foreign {
        /// The file.
        backup: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The backup was cut off.
    #[error("{backup:?} was cut off: it ends before the end of {missing}; take another backup")]
    CutOff {
        /// The backup.
        backup: PathBuf,
        /// What is not there, or not all of it.
        missing: String,
    },
    /// The backup is damaged.
    #[error("{backup:?} is damaged: {file} is not what was backed up; take another backup")]
    Damaged {
        /// The backup.
        backup: PathBuf,
        /// Which file in it is.
        file: String,
    },
    /// The data folder cannot be written.
    #[error("{path:?} cannot be written: {source}")]
    Write {
        /// What cannot be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The data folder cannot be taken.
    #[error(transparent)]
    Folder(#[from] ServeError),
    /// The restored log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The artifact store cannot be written.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
}

/// Makes the data folder `data` out of the file `backup`. Artifacts go into it, or to where `artifacts` says.
pub async fn restore(backup: &Path, data: &Path, artifacts: Option<&str>) -> Result<Restored, RestoreError> {
    must_be_fresh(data)?;
    let archive =
        File::open(backup).map_err(|source| RestoreError::Read { backup: backup.into(), source })?;
    let _lock = lock(data)?;
    // Another restoration may have been there a moment ago.
    must_be_fresh(data)?;
    let workshop = data.join(WORKSHOP);
    let written = |source| RestoreError::Write { path: workshop.clone(), source };
    remove(&workshop).and_then(|()| std::fs::create_dir(&workshop)).map_err(written)?;
    let restored = put_together(backup, archive, &workshop, artifacts).await;
    let moved = restored.and_then(|restored| {
        move_out(&workshop, data).map_err(|source| RestoreError::Write { path: data.to_owned(), source })?;
        Ok(restored)
    });
    // What is left of it only takes space.
    let _ = remove(&workshop);
    moved
}

fn must_be_fresh(data: &Path) -> Result<(), RestoreError> {
    let entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(RestoreError::Write { path: data.to_owned(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| RestoreError::Write { path: data.to_owned(), source })?;
        let found = entry.file_name().to_string_lossy().into_owned();
        if !HARMLESS.contains(&found.as_str()) {
            return Err(RestoreError::NotEmpty { data: data.to_owned(), found });
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves what was put together to its place, the log last.
fn move_out(workshop: &Path, data: &Path) -> io::Result<()> {
    for name in [STORE, LOG] {
        let made = workshop.join(name);
        if made.exists() {
            owner::give_all(data, &made);
            std::fs::rename(made, data.join(name))?;
            File::open(data)?.sync_all()?;
        }
    }
    Ok(())
}

async fn put_together(
    backup: &Path,
    archive: File,
    workshop: &Path,
    artifacts: Option<&str>,
) -> Result<Restored, RestoreError> {
    let incoming = workshop.join("incoming");
    let store = match artifacts {
        Some(place) => ArtifactStore::at(place, incoming)?,
        None => ArtifactStore::in_folder(&workshop.join(STORE), incoming)?,
    };
    let mut archive = Archive::new(BufReader::with_capacity(CHUNK_BYTES, archive));
    let read = |source| RestoreError::Read { backup: backup.to_owned(), source };
    let mut reader = Reader { backup, entries: archive.entries().map_err(read)? };
    let manifest = reader.manifest()?;
    let mut restored = 0;
    for listed in &manifest.files {
        let foreign = |problem| RestoreError::Foreign { backup: backup.to_owned(), problem };
        let content = Content::of(&listed.path)
            .ok_or_else(|| foreign(format!("{:?} is no part of a backup", listed.path)))?;
        let entry = reader.next(listed)?;
        let read = Cell::new(0);
        let chunks = chunks(entry, &read);
        let found = match content.place() {
            None => write_log(backup, chunks, &workshop.join(LOG))?,
            Some(place) => {
                restored += 1;
                if content.hash() != Some(listed.blake3) {
                    return Err(foreign(format!("{:?} is listed with another hash", listed.path)));
                }
                let collected = store.collect(stream::iter(chunks)).await?;
                store.put_at(&collected, &place).await?;
                collected.hash
            }
        };
        if read.get() < listed.bytes {
            return Err(RestoreError::CutOff { backup: backup.to_owned(), missing: listed.path.clone() });
        }
        if found != listed.blake3 {
            return Err(RestoreError::Damaged { backup: backup.to_owned(), file: listed.path.clone() });
        }
    }
    let log = workshop.join(LOG);
    if !log.is_file() {
        return Err(RestoreError::CutOff { backup: backup.to_owned(), missing: LOG.to_owned() });
    }
    let searches = StoredLog::open(&log)?.searches()?.len() as u64;
    Ok(Restored {
        made: Timestamp::from_millis(manifest.made_ms),
        searches,
        artifacts: restored,
        contents: manifest.artifacts,
    })
}

type Packed<'a> = Entry<'a, BufReader<File>>;

/// Reads an archive file by file.
struct Reader<'a> {
    backup: &'a Path,
    entries: Entries<'a, BufReader<File>>,
}

impl<'a> Reader<'a> {
    fn foreign(&self, problem: impl Into<String>) -> RestoreError {
        RestoreError::Foreign { backup: self.backup.to_owned(), problem: problem.into() }
    }

    /// The list that comes first.
    fn manifest(&mut self) -> Result<Manifest, RestoreError> {
        let first = self.entries.next().and_then(Result::ok);
        let mut first = first
            .filter(|entry| *entry.path_bytes() == *MANIFEST.as_bytes())
            .ok_or_else(|| self.foreign(format!("it does not begin with {MANIFEST}")))?;
        let size = first.size();
        if size > MOST_MANIFEST_BYTES {
            return Err(self.foreign(format!("its {MANIFEST} has {size} bytes")));
        }
        let mut text = Vec::new();
        let read = |source| RestoreError::Read { backup: self.backup.to_owned(), source };
        first.read_to_end(&mut text).map_err(read)?;
        if (text.len() as u64) < size {
            return Err(RestoreError::CutOff {
                backup: self.backup.to_owned(),
                missing: MANIFEST.to_owned(),
            });
        }
        // What a later version adds to it is no reason not to say that it is of a later version.
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| self.foreign(format!("{MANIFEST}: {error}")))?;
        if value["form"] != FORM {
            return Err(self.foreign(format!("it has the form {}, this version's is {FORM}", value["form"])));
        }
        serde_json::from_value(value).map_err(|error| self.foreign(format!("{MANIFEST}: {error}")))
    }

    /// The file that comes next, which must be this one.
    fn next(&mut self, listed: &Listed) -> Result<Packed<'a>, RestoreError> {
        let cut_off =
            || RestoreError::CutOff { backup: self.backup.to_owned(), missing: listed.path.clone() };
        match self.entries.next() {
            Some(Ok(entry))
                if *entry.path_bytes() == *listed.path.as_bytes() && entry.size() == listed.bytes =>
            {
                Ok(entry)
            }
            Some(Ok(entry)) => {
                let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                Err(self.foreign(format!("{:?} is where {:?} is to be", found, listed.path)))
            }
            Some(Err(_)) | None => Err(cut_off()),
        }
    }
}

/// The bytes of a file, as the store takes them, and how many were read. An archive that ends early ends
/// them early too.
fn chunks(mut entry: Packed<'_>, read: &Cell<u64>) -> impl Iterator<Item = io::Result<Bytes>> {
    std::iter::from_fn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        match entry.read(&mut chunk) {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                read.set(read.get() + length as u64);
                Some(Ok(chunk.into()))
            }
            Err(error) => Some(Err(error)),
        }
    })
}

/// Writes the event log, durably, and answers the hash of what was written.
fn write_log(
    backup: &Path,
    chunks: impl Iterator<Item = io::Result<Bytes>>,
    path: &Path,
) -> Result<ArtifactHash, RestoreError> {
    let written = |source| RestoreError::Write { path: path.to_owned(), source };
    let mut file = File::create_new(path).map_err(written)?;
    let mut hasher = blake3::Hasher::new();
    for chunk in chunks {
        let chunk = chunk.map_err(|source| RestoreError::Read { backup: backup.to_owned(), source })?;
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(written)?;
    }
    file.sync_all().map_err(written)?;
    Ok(ArtifactHash::new(*hasher.finalize().as_bytes()))
}
