//! Makes a backup of a coordinator that goes on meanwhile.
//!
//! The log is copied first. What the copy names is read from the copy, and nothing that was there then
//! is deleted until the backup is done: it is of one moment.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{ArtifactHash, SearchId};
use fittingroom_common::operator::Artifacts;
use fittingroom_common::time::Timestamp;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use tempfile::TempDir;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::LOG;
use super::format::{Content, END, FORM, Listed, MANIFEST, Manifest, header, padding, room};
use crate::artifacts::{ArtifactError, ArtifactStore, CHUNK_BYTES, Hold};
use crate::cluster::Cluster;
use crate::log::{EventLog, LogError, SqliteLog};
use crate::runner::restore;

/// Why there is no backup, or it broke off.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log cannot be copied, or the copy cannot be read.
    #[error("the event log cannot be backed up: {0}")]
    Log(#[from] LogError),
    /// Something that the log names cannot be had.
    #[error(
        "{path}, which the event log names, cannot be had: {source}; `fittingroom check` says more, and --no-artifacts leaves out all of them"
    )]
    Artifact {
        /// Its place in the backup.
        path: String,
        /// Why not.
        source: ArtifactError,
    },
    /// Something is not what it was when it was stored.
    #[error(
        "{path}, which the event log names, is damaged; `fittingroom check` says more, and --no-artifacts leaves out all of them"
    )]
    Damaged {
        /// Its place in the backup.
        path: String,
    },
    /// The archive cannot be put together.
    #[error("the backup cannot be put together: {0}")]
    Archive(#[from] io::Error),
    /// There is no room for the copy of the log.
    #[error(transparent)]
    Room(#[from] ArtifactError),
}

/// A backup that is ready to be sent.
#[derive(Debug)]
pub struct Backup {
    manifest: Bytes,
    at: Timestamp,
    files: Vec<(Content, Listed)>,
    store: ArtifactStore,
    /// The copy of the log.
    folder: TempDir,
    hold: Hold,
}

impl Backup {
    /// Copies the log, and finds what belongs to it. Given up at `stop`.
    pub async fn begin(
        cluster: &Cluster,
        artifacts: Artifacts,
        stop: CancellationToken,
    ) -> Result<Self, BackupError> {
        let (store, at) = (cluster.artifacts().clone(), cluster.now());
        let hold = store.hold().await;
        let folder = store.temporary_folder()?;
        let copy = folder.path().join(LOG);
        cluster.log().copy(copy.clone(), stop).await?;
        let named = named(&copy, cluster.leases().length).await?;
        let mut files = vec![(Content::Log, list_log(copy).await?)];
        if artifacts == Artifacts::Included {
            for content in named {
                if let Some(listed) = list(&store, content).await? {
                    files.push((content, listed));
                }
            }
        }
        let manifest = Manifest {
            form: FORM,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            made_ms: at.as_millis(),
            artifacts,
            files: files.iter().map(|(_, listed)| listed.clone()).collect(),
        };
        let manifest = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from)?.into();
        Ok(Self { manifest, at, files, store, folder, hold })
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        let files: u64 = self.files.iter().map(|(_, listed)| room(listed.bytes)).sum();
        room(self.manifest.len() as u64) + files + END.len() as u64
    }

    /// The archive, in chunks of at most [`CHUNK_BYTES`]. Each file is checked on its way: the stream ends
    /// with an error, and not with the archive's end, if one is not what it should be.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, BackupError>> + Send {
        let Self { manifest, at, files, store, folder, hold } = self;
        let copy = folder.path().join(LOG);
        let head = file(MANIFEST, manifest.len() as u64, at, stream::iter(pieces(manifest)).boxed());
        let files = stream::iter(files).then(move |(content, listed)| {
            let (store, copy) = (store.clone(), copy.clone());
            async move {
                let bytes = open(&store, &copy, content, &listed).await?;
                file(&listed.path, listed.bytes, at, checked(bytes, listed.clone()).boxed())
            }
        });
        let end = async move {
            drop((folder, hold));
            Ok(Bytes::from_static(END))
        };
        stream::iter([head]).chain(files).try_flatten().chain(stream::once(end))
    }
}

/// Everything that the log in this file names and that is needed to go on from it.
async fn named(log: &Path, lease: Duration) -> Result<BTreeSet<Content>, LogError> {
    let log = SqliteLog::open(log)?;
    let mut named = BTreeSet::new();
    for dataset in log.datasets().await? {
        named.extend(dataset.files.map(Content::Artifact));
    }
    for search in log.searches().await? {
        named_by(&log, search.id, lease, &mut named).await?;
    }
    Ok(named)
}

/// What one search names: its dataset, its best model, and the checkpoints of trials that are not over.
async fn named_by(
    log: &SqliteLog,
    id: SearchId,
    lease: Duration,
    named: &mut BTreeSet<Content>,
) -> Result<(), LogError> {
    let first = log.events_after(id, 0, 1).await?.into_iter().next();
    if let Some(Event { fact: Fact::SearchCreated(created), .. }) = first {
        named.extend(created.dataset.files.map(Content::Artifact));
    }
    if let Some(glance) = restore::glance(log, id).await {
        named.extend(glance.best_model.map(Content::Artifact));
    } else if let Some(loaded) = restore::load(log, id, lease).await? {
        named.extend(loaded.search.best_model().map(Content::Artifact));
        let checkpoints = loaded.search.checkpoints();
        named.extend(checkpoints.map(|(trial, hash)| Content::Checkpoint((id, trial), hash)));
    }
    Ok(())
}

/// The size and the hash of the log's copy, which lies still.
async fn list_log(path: PathBuf) -> Result<Listed, BackupError> {
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        let bytes = io::copy(&mut File::open(path)?, &mut hasher)?;
        Ok::<_, io::Error>((bytes, *hasher.finalize().as_bytes()))
    });
    let (bytes, hash) = hashed.await.map_err(io::Error::other)??;
    Ok(Listed { path: Content::Log.path(), bytes, blake3: ArtifactHash::new(hash) })
}

/// The size of something stored. A checkpoint that is missing is no loss: the one before it counts, or
/// the trial begins anew.
async fn list(store: &ArtifactStore, content: Content) -> Result<Option<Listed>, BackupError> {
    let (Content::Artifact(hash) | Content::Checkpoint(_, hash)) = content else { return Ok(None) };
    let Some(place) = content.place() else { return Ok(None) };
    match store.size_at(hash, &place).await {
        Ok(bytes) => Ok(Some(Listed { path: content.path(), bytes, blake3: hash })),
        Err(ArtifactError::Missing { .. }) if matches!(content, Content::Checkpoint(..)) => {
            warn!(path = content.path(), "a checkpoint is missing, and left out of the backup");
            Ok(None)
        }
        Err(source) => Err(BackupError::Artifact { path: content.path(), source }),
    }
}

type Chunks = BoxStream<'static, Result<Bytes, BackupError>>;

/// The bytes of a file, from where they lie.
async fn open(
    store: &ArtifactStore,
    log: &Path,
    content: Content,
    listed: &Listed,
) -> Result<Chunks, BackupError> {
    let Some(place) = content.place() else {
        let file = tokio::fs::File::open(log).await?;
        return Ok(ReaderStream::with_capacity(file, CHUNK_BYTES).map_err(BackupError::from).boxed());
    };
    let path: Arc<str> = listed.path.as_str().into();
    let failed = move |source| BackupError::Artifact { path: path.to_string(), source };
    let chunks = store.get_stream_at(listed.blake3, &place).await.map_err(failed.clone())?;
    Ok(chunks.map_err(failed).boxed())
}

/// A file as it lies in the archive.
fn file(path: &str, bytes: u64, at: Timestamp, content: Chunks) -> Result<Chunks, BackupError> {
    let header = header(path, bytes, at)?;
    let padding = stream::iter([Ok(padding(bytes))]);
    Ok(stream::iter([Ok(header)]).chain(content).chain(padding).boxed())
}

/// Bytes in pieces that may be sent.
fn pieces(bytes: Bytes) -> impl Iterator<Item = Result<Bytes, BackupError>> {
    (0..bytes.len())
        .step_by(CHUNK_BYTES)
        .map(move |begin| Ok(bytes.slice(begin..bytes.len().min(begin + CHUNK_BYTES))))
}

/// The same bytes, with an error after the last if they are not those that were listed.
fn checked(content: Chunks, listed: Listed) -> impl Stream<Item = Result<Bytes, BackupError>> + Send {
    let begun = (content, blake3::Hasher::new(), listed);
    stream::try_unfold(begun, async |(mut content, mut hasher, listed)| {
        if let Some(chunk) = content.try_next().await? {
            hasher.update(&chunk);
            return Ok(Some((chunk, (content, hasher, listed))));
        }
        let found = ArtifactHash::new(*hasher.finalize().as_bytes());
        if hasher.count() == listed.bytes && found == listed.blake3 {
            Ok(None)
        } else {
            Err(BackupError::Damaged { path: listed.path })
        }
    })
}
