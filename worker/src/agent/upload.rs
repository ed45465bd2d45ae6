//! Uploads what a trainer wrote: models and checkpoints.

use std::path::{Path, PathBuf};

use fittingroom_common::id::ArtifactHash;
use fittingroom_common::proto as pb;
use fittingroom_common::work::SearchAttempt;
use futures_util::{Stream, StreamExt, stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::cache::{CacheError, hash_of_file};
use super::session::{CallError, Session};

/// The size of the pieces in which a file goes up.
const CHUNK_BYTES: u64 = 1 << 20;

/// Why a file is not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The coordinator does not take it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] CacheError),
    /// The trainer did not write it.
    #[error("the trainer did not write {0:?}")]
    Missing(PathBuf),
    /// Something else was stored.
    #[error("the file {meant} was stored as {stored}; was it changed meanwhile?")]
    Changed {
        /// What was to be stored.
        meant: ArtifactHash,
        /// What was stored.
        stored: ArtifactHash,
    },
}

/// Uploads a model until it is stored, and checks that what is stored is what was meant.
pub(crate) async fn upload(session: &Session, path: &Path) -> Result<ArtifactHash, UploadError> {
    checked(path, session.upload(|| chunks(path.to_owned()))).await
}

/// Uploads a checkpoint in the same way.
pub(crate) async fn upload_checkpoint(
    session: &Session,
    id: SearchAttempt,
    path: &Path,
) -> Result<ArtifactHash, UploadError> {
    checked(path, session.upload_checkpoint(id, || chunks(path.to_owned()))).await
}

async fn checked(
    path: &Path,
    upload: impl Future<Output = Result<ArtifactHash, CallError>>,
) -> Result<ArtifactHash, UploadError> {
    let Some(meant) = hash_of_file(path).await? else {
        return Err(UploadError::Missing(path.to_owned()));
    };
    let stored = upload.await?;
    if stored != meant {
        return Err(UploadError::Changed { meant, stored });
    }
    Ok(meant)
}

/// The pieces of a file. One that cannot be read ends early, and is found out by its hash.
fn chunks(path: PathBuf) -> impl Stream<Item = pb::Chunk> + Send + 'static {
    stream::once(File::open(path)).filter_map(async |file| file.ok()).flat_map(|file| {
        stream::unfold(file, async |mut file| {
            let mut piece = Vec::new();
            let read = (&mut file).take(CHUNK_BYTES).read_to_end(&mut piece).await;
            match read {
                Ok(0) | Err(_) => None,
                Ok(_) => Some((pb::Chunk { data: piece.into() }, file)),
            }
        })
    })
}
