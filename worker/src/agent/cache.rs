//! Artifacts on this machine's disk, each in a file named by its hash: datasets to train on, models
//! to evaluate. What is not there, or is not what its name says, is streamed from the coordinator.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fittingroom_common::dataset::MAX_FILE_BYTES;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::proto as pb;
use fittingroom_common::work::SearchAttempt;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;
use tonic::Streaming;
use tracing::{info, warn};

use super::connection::{Connection, Fault};
use super::timing::Timing;

/// How long the next chunk of a download may take.
const CHUNK_DEADLINE: Duration = Duration::from_secs(30);
/// What is older than this was left by an agent that was killed: no download and no trial takes so long.
const LEFTOVER_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often a download whose bytes are wrong is tried.
const MAX_TRIES: u32 = 3;

/// Why an artifact cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The cache's folder cannot be made.
    #[error("the cache folder {folder:?} cannot be used: {source}; name another with --cache")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file in the cache cannot be read or written.
    #[error("{path:?} cannot be read or written: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The coordinator does not hand it out.
    #[error("artifact {hash} cannot be had: {reason}")]
    Unavailable {
        /// What was asked for.
        hash: ArtifactHash,
        /// What the coordinator said.
        reason: String,
    },
    /// What came is something else, again and again.
    #[error("artifact {hash} came as {found}, {MAX_TRIES} times")]
    Corrupt {
        /// What was asked for.
        hash: ArtifactHash,
        /// The hash of what came last.
        found: ArtifactHash,
    },
    /// What came is larger than any artifact.
    #[error("artifact {hash} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// What was asked for.
        hash: ArtifactHash,
    },
}

impl CacheError {
    /// Whether it is this machine's trouble, so that another may well do the work.
    pub(crate) const fn is_of_this_machine(&self) -> bool {
        match self {
            Self::Folder { .. } | Self::Disk { .. } => true,
            Self::Unavailable { .. } | Self::Corrupt { .. } | Self::TooLarge { .. } => false,
        }
    }
}

/// The folder of artifacts, shared by the slots.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Models while they are trained. Beside the artifacts, since the folder for temporary files may be in memory.
    training: PathBuf,
    connection: Connection,
    timing: Timing,
    /// Set once the file was found good or downloaded; slots that want the same wait for one another.
    checked: Mutex<HashMap<ArtifactHash, Arc<OnceCell<()>>>>,
}

impl Cache {
    /// The cache in a folder, which is made if it is not there.
    pub(crate) fn open(folder: &Path, connection: Connection, timing: Timing) -> Result<Self, CacheError> {
        let (artifacts, training) = (folder.join("artifacts"), folder.join("training"));
        for folder in [&artifacts, &training] {
            std::fs::create_dir_all(folder)
                .and_then(|()| NamedTempFile::new_in(folder).map(drop))
                .map_err(|source| CacheError::Folder { folder: folder.clone(), source })?;
            remove_leftovers(folder, LEFTOVER_AGE);
        }
        Ok(Self { folder: artifacts, training, connection, timing, checked: Mutex::default() })
    }

    /// The file that an artifact is in, downloaded if need be.
    pub(crate) async fn obtain(&self, hash: ArtifactHash) -> Result<PathBuf, CacheError> {
        let path = self.folder.join(hash.to_string());
        self.entry(hash, &path).get_or_try_init(|| self.ensure(hash, &path)).await?;
        Ok(path)
    }

    /// A checkpoint for an attempt to go on from, in the attempt's own folder: nobody else will want it.
    pub(crate) async fn obtain_checkpoint(
        &self,
        id: SearchAttempt,
        hash: ArtifactHash,
        folder: &Path,
    ) -> Result<PathBuf, CacheError> {
        let path = folder.join(format!("resume-{hash}"));
        self.fetch(hash, &path, || self.connection.download_checkpoint(id, hash)).await?;
        Ok(path)
    }

    /// Whether the disk takes a dataset, and this many bytes beside it.
    pub(crate) async fn try_room(&self, dataset: [ArtifactHash; 4], bytes: u64) -> Result<(), CacheError> {
        for hash in dataset {
            self.obtain(hash).await?;
        }
        let folder = self.training.clone();
        let written = tokio::task::spawn_blocking(move || {
            // Without a name, so that it goes by itself.
            let mut file = tempfile::tempfile_in(folder)?;
            std::io::copy(&mut std::io::repeat(0).take(bytes), &mut file)?;
            file.sync_data()
        });
        let written = written.await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)));
        written.map_err(|source| CacheError::Disk { path: self.training.clone(), source })
    }

    /// A folder for a model that is being trained, which goes when the answer is dropped.
    pub(crate) fn temporary_folder(&self) -> Result<TempDir, CacheError> {
        TempDir::new_in(&self.training)
            .map_err(|source| CacheError::Disk { path: self.training.clone(), source })
    }

    fn entry(&self, hash: ArtifactHash, path: &Path) -> Arc<OnceCell<()>> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = checked.entry(hash).or_default();
        if entry.initialized() && !path.is_file() {
            // Somebody emptied the cache while the agent runs.
            *entry = Arc::default();
        }
        entry.clone()
    }

    /// Makes sure that the file is there and is what its name says.
    async fn ensure(&self, hash: ArtifactHash, path: &Path) -> Result<(), CacheError> {
        match hash_of_file(path).await? {
            Some(found) if found == hash => return Ok(()),
            Some(found) => warn!(%hash, %found, "cached file is damaged, to be downloaded again"),
            None => {}
        }
        self.fetch(hash, path, || self.connection.download(hash)).await
    }

    /// Downloads what `begin` begins to, however often that takes.
    async fn fetch<F: Future<Output = Result<Streaming<pb::Chunk>, Fault>>>(
        &self,
        hash: ArtifactHash,
        path: &Path,
        begin: impl Fn() -> F,
    ) -> Result<(), CacheError> {
        let mut backoff = self.timing.backoff();
        let mut tries = 0;
        loop {
            match download(hash, path, begin()).await {
                Ok(()) => return Ok(()),
                Err(DownloadError::Transient) => tokio::time::sleep(backoff.next()).await,
                Err(DownloadError::Permanent(error)) => {
                    tries += 1;
                    if tries == MAX_TRIES || !matches!(error, CacheError::Corrupt { .. }) {
                        return Err(error);
                    }
                    warn!(%error, "download to be tried again");
                }
            }
        }
    }
}

/// One try: into a temporary file beside the place, which it takes only when it is whole and durable.
async fn download(
    hash: ArtifactHash,
    path: &Path,
    begin: impl Future<Output = Result<Streaming<pb::Chunk>, Fault>>,
) -> Result<(), DownloadError> {
    let disk = |source| CacheError::Disk { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(path);
    let mut chunks = begin.await.map_err(|fault| download_error(hash, fault))?;
    let temporary = NamedTempFile::new_in(folder).map_err(disk)?;
    let mut file = tokio::fs::File::from_std(temporary.as_file().try_clone().map_err(disk)?);
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    loop {
        let chunk = match tokio::time::timeout(CHUNK_DEADLINE, chunks.message()).await {
            Ok(Ok(Some(chunk))) => chunk.data,
            Ok(Ok(None)) => break,
            Ok(Err(status)) => return Err(download_error(hash, status.into())),
            Err(_) => return Err(DownloadError::Transient),
        };
        bytes += chunk.len() as u64;
        if bytes > MAX_FILE_BYTES {
            return Err(CacheError::TooLarge { hash }.into());
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(disk)?;
    }
    file.flush().await.map_err(disk)?;
    let found = ArtifactHash::new(*hasher.finalize().as_bytes());
    if found != hash {
        return Err(CacheError::Corrupt { hash, found }.into());
    }
    file.sync_all().await.map_err(disk)?;
    temporary
        .persist(path)
        .map_err(|error| CacheError::Disk { path: path.to_owned(), source: error.error })
        .map(drop)?;
    let folder = tokio::fs::File::open(folder).await.map_err(disk)?;
    folder.sync_all().await.map_err(disk)?;
    info!(%hash, bytes, "downloaded");
    Ok(())
}

/// Removes what agents left that were killed. Others that run now may use the same cache, so only
/// what is too old to be theirs goes; what cannot be removed only takes space.
fn remove_leftovers(folder: &Path, age: Duration) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let temporary = entry.file_name().to_string_lossy().starts_with(".tmp");
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed >= age));
        if temporary && old {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// Why one try at a download failed.
enum DownloadError {
    Transient,
    Permanent(CacheError),
}

impl From<CacheError> for DownloadError {
    fn from(error: CacheError) -> Self {
        Self::Permanent(error)
    }
}

fn download_error(hash: ArtifactHash, fault: Fault) -> DownloadError {
    match fault {
        Fault::Transient(_) => DownloadError::Transient,
        Fault::NotFound(_) | Fault::Precondition(_) | Fault::Refused(_) | Fault::Unreadable(_) => {
            DownloadError::Permanent(CacheError::Unavailable { hash, reason: fault.to_string() })
        }
    }
}

/// The hash of a file's bytes; `None` if there is no such file.
pub(crate) async fn hash_of_file(path: &Path) -> Result<Option<ArtifactHash>, CacheError> {
    let path = path.to_owned();
    let hash = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        let hashed = std::fs::File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
        match hashed {
            Ok(()) => Ok(Some(ArtifactHash::new(*hasher.finalize().as_bytes()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CacheError::Disk { path, source }),
        }
    });
    hash.await.unwrap_or(Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_temporary_files_are_leftovers() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str| std::fs::write(folder.path().join(name), "").expect("writable");
        write(".tmpAbC");
        write("artifact");
        std::fs::create_dir_all(folder.path().join(".tmpDeF/sub")).expect("writable");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).expect("readable");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("readable").file_name()).collect();
            names.sort();
            names
        };
        remove_leftovers(folder.path(), LEFTOVER_AGE);
        assert_eq!(names(), [".tmpAbC", ".tmpDeF", "artifact"]);
        remove_leftovers(folder.path(), Duration::ZERO);
        assert_eq!(names(), ["artifact"]);
    }
}
