//! The artifact store: bytes named by their BLAKE3 hash, in a folder or in an S3-compatible bucket.
//!
//! An upload is collected in a temporary file first, since its name is known only at its end. It is
//! answered when the object is durable: in a folder, by temporary file, fsync, rename and fsync of
//! the folder. What is stored under a hash is never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fittingroom_common::id::{ArtifactHash, IdError};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The largest chunk in which artifacts travel, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The largest artifact, in bytes.
pub const MAX_ARTIFACT_BYTES: u64 = 4 << 30;

/// How long nothing that was uploaded is removed: whoever uploaded it is about to name it in an event.
pub const UPLOAD_GRACE: Duration = Duration::from_secs(600);

/// Stored bytes, named by their hash.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    store: Arc<dyn ObjectStore>,
    /// Where uploads are collected.
    collecting: PathBuf,
    /// What was uploaded and has not been looked at since, and when.
    uploaded: Arc<Mutex<BTreeMap<ArtifactHash, Instant>>>,
    /// Shared by those who read all that a log names, for as long as that takes; held alone by whoever deletes.
    deletions: Arc<RwLock<()>>,
    /// What is being written, or could not be: there may be something that is not durable.
    doubtful: Arc<Mutex<BTreeSet<ObjectPath>>>,
    /// Shared by those who store what may be there already, held alone by whoever removes it.
    removal: Arc<RwLock<()>>,
}

/// Bytes that were received and are not stored yet. They go when this is dropped.
#[derive(Debug)]
pub(crate) struct Collected {
    file: NamedTempFile,
    pub(crate) hash: ArtifactHash,
}

/// As long as it lives, nothing is deleted.
pub(crate) type Hold = OwnedRwLockReadGuard<()>;

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is nothing under the hash.
    #[error("there is no artifact {hash}")]
    Missing {
        /// The hash.
        hash: ArtifactHash,
    },
    /// An upload goes on beyond what is allowed.
    #[error("an artifact may have {MAX_ARTIFACT_BYTES} bytes at most")]
    TooLarge,
    /// The store said no.
    #[error("the artifact store failed: {0}")]
    Store(#[from] object_store::Error),
    /// The temporary file could not be written.
    #[error("an upload cannot be collected: {0}")]
    Collect(#[from] io::Error),
    /// Whoever sent the bytes stopped half way.
    #[error("the upload broke off: {0}")]
    BrokenOff(String),
    /// The address of the store is not one.
    #[error(
        "{url:?} is not an artifact store: {problem}; give a folder, or an address such as s3://bucket/prefix"
    )]
    Address {
        /// The address as given.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The name of a stored object is not a hash.
    #[error(transparent)]
    Name(#[from] IdError),
}

impl ArtifactStore {
    /// A store in a folder, which is made if it is not there.
    pub fn in_folder(folder: &Path, collecting: PathBuf) -> Result<Self, ArtifactError> {
        std::fs::create_dir_all(folder)?;
        std::fs::create_dir_all(&collecting)?;
        remove_parts(folder);
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self::of(store, collecting))
    }

    fn of(store: impl ObjectStore, collecting: PathBuf) -> Self {
        Self {
            store: Arc::new(store),
            collecting,
            uploaded: Arc::default(),
            deletions: Arc::default(),
            doubtful: Arc::default(),
            removal: Arc::default(),
        }
    }

    /// A store in a folder, or at an address such as `s3://bucket/prefix`. Credentials and endpoint come from the
    /// environment, by the names of the AWS tools (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
    pub fn at(url: &str, collecting: PathBuf) -> Result<Self, ArtifactError> {
        let wrong = |problem: String| ArtifactError::Address { url: url.to_owned(), problem };
        if !url.contains("://") {
            return Self::in_folder(Path::new(url), collecting);
        }
        let parsed = reqwest::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(parsed.scheme(), "s3" | "s3a") {
            return Err(wrong(format!("{}:// is not supported", parsed.scheme())));
        }
        let options = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            name.starts_with("AWS_").then(|| (name.to_ascii_lowercase(), value))
        });
        let (store, prefix) =
            object_store::parse_url_opts(&parsed, options).map_err(|error| wrong(error.to_string()))?;
        std::fs::create_dir_all(&collecting)?;
        Ok(Self::of(PrefixStore::new(store, prefix), collecting))
    }

    /// Keeps everything that is there until the answer is dropped.
    pub(crate) async fn hold(&self) -> Hold {
        Arc::clone(&self.deletions).read_owned().await
    }

    /// The right to delete, until the answer is dropped. Whoever waits for it must hold up nobody else.
    pub(crate) async fn deletion(&self) -> RwLockWriteGuard<'_, ()> {
        self.deletions.write().await
    }

    /// A folder for something of the moment. What a crash leaves of it is removed at the next start.
    pub(crate) fn temporary_folder(&self) -> Result<TempDir, ArtifactError> {
        Ok(TempDir::new_in(&self.collecting)?)
    }

    /// Whether an artifact is there.
    pub async fn contains(&self, hash: ArtifactHash) -> Result<bool, ArtifactError> {
        self.contains_at(&place(hash)).await
    }

    /// Whether anything is at this place.
    pub(crate) async fn contains_at(&self, place: &ObjectPath) -> Result<bool, ArtifactError> {
        match self.store.head(place).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// How many bytes an artifact has.
    pub async fn size(&self, hash: ArtifactHash) -> Result<u64, ArtifactError> {
        self.size_at(hash, &place(hash)).await
    }

    /// How many bytes there are at this place, which are to have this hash.
    pub(crate) async fn size_at(&self, hash: ArtifactHash, place: &ObjectPath) -> Result<u64, ArtifactError> {
        Ok(self.store.head(place).await.map_err(|error| missing(error, hash))?.size)
    }

    /// Stores bytes.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<ArtifactHash, ArtifactError> {
        let hash = ArtifactHash::of(&bytes);
        let _stays = self.stays().await;
        self.note_upload(hash);
        let place = place(hash);
        let write = async {
            self.store.put(&place, bytes.into()).await?;
            Ok(())
        };
        self.store_at(&place, write).await?;
        Ok(hash)
    }

    /// Stores what a stream brings, and answers its hash when it is durable.
    pub async fn put_stream<E: std::fmt::Display>(
        &self,
        chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<ArtifactHash, ArtifactError> {
        let collected = self.collect(chunks).await?;
        let _stays = self.stays().await;
        self.note_upload(collected.hash);
        self.put_at(&collected, &place(collected.hash)).await?;
        Ok(collected.hash)
    }

    /// Receives what a stream brings.
    pub(crate) async fn collect<E: std::fmt::Display>(
        &self,
        mut chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Collected, ArtifactError> {
        let collected = NamedTempFile::new_in(&self.collecting)?;
        let mut file = tokio::fs::File::from_std(collected.reopen()?);
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| ArtifactError::BrokenOff(error.to_string()))?;
            size += chunk.len() as u64;
            if size > MAX_ARTIFACT_BYTES {
                return Err(ArtifactError::TooLarge);
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        Ok(Collected { file: collected, hash: ArtifactHash::new(*hasher.finalize().as_bytes()) })
    }

    /// Stores what was received at this place. [`stays`](Self::stays) is to be held.
    pub(crate) async fn put_at(
        &self,
        collected: &Collected,
        place: &ObjectPath,
    ) -> Result<(), ArtifactError> {
        self.store_at(place, self.copy_in(collected.file.path(), place)).await
    }

    /// Until the answer is dropped, nothing is removed.
    pub(crate) async fn stays(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().await
    }

    /// Has something written, unless it is there. What could not be written, or was not to the end, may be
    /// there without being durable, and is written again.
    async fn store_at(
        &self,
        place: &ObjectPath,
        write: impl Future<Output = Result<(), ArtifactError>>,
    ) -> Result<(), ArtifactError> {
        let doubtful = || self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
        let is_doubtful = doubtful().contains(place);
        if !is_doubtful && self.contains_at(place).await? {
            return Ok(());
        }
        doubtful().insert(place.clone());
        write.await?;
        doubtful().remove(place);
        Ok(())
    }

    fn uploaded(&self) -> MutexGuard<'_, BTreeMap<ArtifactHash, Instant>> {
        // A panic while the lock was held leaves a map that is still whole.
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an artifact from being removed for a while: somebody is about to name it.
    pub(crate) fn note_upload(&self, hash: ArtifactHash) {
        self.uploaded().insert(hash, Instant::now());
    }

    /// What was uploaded this long ago, and is to be looked at now: whether anything names it.
    pub(crate) fn take_uploads_of(&self, age: Duration) -> Vec<ArtifactHash> {
        self.uploaded().extract_if(.., |_, at| at.elapsed() >= age).map(|(hash, _)| hash).collect()
    }

    /// Takes everything that is stored for uploaded just now: who knows when it was.
    pub(crate) async fn note_all(&self) -> Result<(), ArtifactError> {
        let all = self.store.list(None).map_ok(|found| hash_at(&found.location));
        let all: Vec<Option<ArtifactHash>> = all.try_collect().await?;
        all.into_iter().flatten().for_each(|hash| self.note_upload(hash));
        Ok(())
    }

    /// Removes an artifact, unless it was uploaded a short while ago; answers whether it was there and is gone.
    pub async fn remove(&self, hash: ArtifactHash) -> Result<bool, ArtifactError> {
        let _alone = self.removal.write().await;
        let uploaded = self.uploaded().get(&hash).copied();
        if uploaded.is_some_and(|at| at.elapsed() < UPLOAD_GRACE) || !self.contains(hash).await? {
            return Ok(false);
        }
        self.delete(&place(hash)).await?;
        Ok(true)
    }

    async fn copy_in(&self, path: &Path, place: &ObjectPath) -> Result<(), ArtifactError> {
        let mut upload = WriteMultipart::new(self.store.put_multipart(place).await?);
        let mut chunks =
            tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::open(path).await?, CHUNK_BYTES);
        while let Some(chunk) = chunks.try_next().await? {
            upload.wait_for_capacity(4).await?;
            upload.put(chunk);
        }
        upload.finish().await?;
        Ok(())
    }

    /// The whole of a small artifact.
    pub async fn get(&self, hash: ArtifactHash) -> Result<Bytes, ArtifactError> {
        let found = self.store.get(&place(hash)).await.map_err(|error| missing(error, hash))?;
        Ok(found.bytes().await?)
    }

    /// An artifact in chunks of at most [`CHUNK_BYTES`].
    pub async fn get_stream(
        &self,
        hash: ArtifactHash,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        self.get_stream_at(hash, &place(hash)).await
    }

    /// What is at this place, which is to have this hash, in chunks of at most [`CHUNK_BYTES`].
    pub(crate) async fn get_stream_at(
        &self,
        hash: ArtifactHash,
        place: &ObjectPath,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        let found = self.store.get(place).await.map_err(|error| missing(error, hash))?;
        let pieces = |chunk: Bytes| {
            let count = chunk.len().div_ceil(CHUNK_BYTES);
            let piece = move |index: usize| {
                chunk.slice(index * CHUNK_BYTES..chunk.len().min((index + 1) * CHUNK_BYTES))
            };
            futures_util::stream::iter((0..count).map(piece).map(Ok::<_, object_store::Error>))
        };
        Ok(found.into_stream().map_ok(pieces).try_flatten().map_err(ArtifactError::from).boxed())
    }

    /// Deletes what is at this place, if anything is, and if it is still to be.
    pub(crate) async fn delete_if(
        &self,
        place: &ObjectPath,
        is_useless: impl FnOnce() -> bool,
    ) -> Result<(), ArtifactError> {
        let _alone = self.removal.write().await;
        if is_useless() { self.delete(place).await } else { Ok(()) }
    }

    async fn delete(&self, place: &ObjectPath) -> Result<(), ArtifactError> {
        match self.store.delete(place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Every place in a folder of the store.
    pub(crate) fn list(
        &self,
        folder: &ObjectPath,
    ) -> impl Stream<Item = Result<ObjectPath, ArtifactError>> + use<> {
        self.store.list(Some(folder)).map_ok(|found| found.location).map_err(ArtifactError::from)
    }
}

/// Where an artifact lies: spread over 256 folders, so that none grows too long.
pub(crate) fn place(hash: ArtifactHash) -> ObjectPath {
    let name = hash.to_string();
    ObjectPath::from_iter([&name[..2], name.as_str()])
}

/// The artifact that lies at a place, if it is one.
fn hash_at(found: &ObjectPath) -> Option<ArtifactHash> {
    let hash = found.filename()?.parse().ok()?;
    (place(hash) == *found).then_some(hash)
}

/// Removes the parts of what was being stored in this folder when the coordinator was killed: they are written
/// under the name of the whole, `#` and a number, and are not listed.
fn remove_parts(folder: &Path) {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: &DirEntry| entry.file_name().to_string_lossy().into_owned();
    let is_part = |name: String| {
        let number = name.rsplit_once('#').map(|(_, number)| number.parse::<u32>());
        matches!(number, Some(Ok(_)))
    };
    for inner in entries(folder).filter(|inner| is_folder_of_ours(&name(inner))) {
        for part in entries(&inner.path()).filter(|part| is_part(name(part))) {
            // What cannot be removed only takes space.
            let _ = std::fs::remove_file(part.path());
        }
    }
}

fn is_folder_of_ours(name: &str) -> bool {
    name == crate::checkpoints::FOLDER || (name.len() == 2 && u8::from_str_radix(name, 16).is_ok())
}

fn missing(error: object_store::Error, hash: ArtifactHash) -> ArtifactError {
    match error {
        object_store::Error::NotFound { .. } => ArtifactError::Missing { hash },
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> ArtifactStore {
        ArtifactStore::in_folder(&folder.join("artifacts"), folder.join("incoming")).expect("opens")
    }

    fn chunks(parts: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, String>> + Unpin {
        futures_util::stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn what_is_stored_reads_back_under_its_hash() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = store(folder.path());
        let hash = store.put_stream(chunks(&[b"abc", b"", b"def"])).await.expect("stores");
        assert_eq!(hash, ArtifactHash::of(b"abcdef"));
        assert_eq!(store.put(b"abcdef".to_vec()).await.expect("is there already"), hash);
        let parts: Vec<Bytes> =
            store.get_stream(hash).await.expect("there").try_collect().await.expect("reads");
        assert_eq!(parts.concat(), b"abcdef");
        assert!(store.contains(hash).await.expect("asks"));
        let left = std::fs::read_dir(folder.path().join("incoming")).expect("lists").count();
        assert_eq!(left, 0, "temporary files are left");
    }

    #[tokio::test]
    async fn an_upload_that_breaks_off_leaves_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = store(folder.path());
        let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"abc")), Err("gone")]);
        assert!(matches!(store.put_stream(broken).await, Err(ArtifactError::BrokenOff(_))));
        assert!(!store.contains(ArtifactHash::of(b"abc")).await.expect("asks"));
        assert!(matches!(store.get(ArtifactHash::of(b"abc")).await, Err(ArtifactError::Missing { .. })));
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for url in ["gopher://bucket", "memory:///", "s3://"] {
            let refused = ArtifactStore::at(url, folder.path().to_owned());
            assert!(matches!(refused, Err(ArtifactError::Address { .. })), "{url}: {refused:?}");
        }
    }
}
