//! Moving artifacts between files here and the coordinator's store.

use std::io::Write;

use bytes::Bytes;
use fittingroom_common::access::Channel;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::proto as pb;
use fittingroom_common::proto::artifact_service_client::ArtifactServiceClient;
use indicatif::{ProgressBar, ProgressStyle};

use super::client::Client;
use super::error::CliError;
use super::file::AtomicFile;

/// The most bytes of a chunk.
const CHUNK: usize = 1 << 20;

/// A bar on the terminal behind stderr; nothing where there is none.
pub(crate) fn bar(size: Option<u64>, label: String) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{msg:28} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}"),
        None => (ProgressBar::new_spinner(), "{msg:28} {bytes} {bytes_per_sec}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(label)
}

/// Stores bytes with the coordinator, and checks that they arrived as they were.
pub(crate) async fn upload(
    client: &Client,
    store: &mut ArtifactServiceClient<Channel>,
    bytes: Vec<u8>,
    label: String,
) -> Result<ArtifactHash, CliError> {
    let expected = ArtifactHash::of(&bytes);
    let bytes = Bytes::from(bytes);
    let bar = bar(Some(bytes.len() as u64), label);
    let moved = bar.clone();
    let chunks = (0..bytes.len()).step_by(CHUNK).map(move |begin| {
        let data = bytes.slice(begin..bytes.len().min(begin + CHUNK));
        moved.inc(data.len() as u64);
        pb::Chunk { data }
    });
    let answer = store.upload(tokio_stream::iter(chunks)).await;
    bar.finish_and_clear();
    let answer = answer.map_err(|status| client.explain(&status))?.into_inner();
    let found = ArtifactHash::from_wire(&answer.hash)?;
    if found == expected {
        Ok(found)
    } else {
        Err(CliError::UploadAltered { found: found.to_string(), expected: expected.to_string() })
    }
}

/// Writes an artifact into a file, checks that it is the one that its hash names, and gives its size.
pub(crate) async fn download(
    client: &Client,
    hash: ArtifactHash,
    file: &mut AtomicFile,
    label: String,
) -> Result<u64, CliError> {
    let mut store = client.artifacts().await?;
    let request = pb::DownloadRequest { hash: hash.to_wire() };
    let answer = store.download(request).await;
    let mut chunks = answer.map_err(|status| client.explain(&status))?.into_inner();
    let bar = bar(None, label);
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    while let Some(chunk) = chunks.message().await.map_err(|status| client.explain(&status))? {
        hasher.update(&chunk.data);
        file.write_all(&chunk.data).map_err(|source| file.unwritable(source))?;
        size += chunk.data.len() as u64;
        bar.inc(chunk.data.len() as u64);
    }
    bar.finish_and_clear();
    let found = ArtifactHash::new(*hasher.finalize().as_bytes());
    if found == hash {
        Ok(size)
    } else {
        Err(CliError::Altered { found: found.to_string(), expected: hash.to_string() })
    }
}
