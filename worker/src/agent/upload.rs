//! Uploads a trained model.

use std::path::{Path, PathBuf};

use fittingroom_common::id::ArtifactHash;
use fittingroom_common::proto as pb;
use futures_util::{Stream, StreamExt, stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::cache::{CacheError, hash_of_file};
use super::session::{CallError, Session};

/// The size of the pieces in which a model goes up.
const CHUNK_BYTES: u64 = 1 << 20;

/// Why a model is not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The coordinator does not take it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] CacheError),
    /// The trainer did not write it.
    #[error("the trainer did not write its model to {0:?}")]
    Missing(PathBuf),
    /// Something else was stored.
    #[error("the model {meant} was stored as {stored}; was it changed meanwhile?")]
    Changed {
        /// What was to be stored.
        meant: ArtifactHash,
        /// What was stored.
        stored: ArtifactHash,
    },
}

/// Uploads a file until it is stored, and checks that what is stored is what was meant.
pub(crate) async fn upload(session: &Session, path: &Path) -> Result<ArtifactHash, UploadError> {
    let Some(meant) = hash_of_file(path).await? else {
        return Err(UploadError::Missing(path.to_owned()));
    };
    let stored = session.upload(|| chunks(path.to_owned())).await?;
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
