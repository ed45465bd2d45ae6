//! What an attempt needs on this machine's disk: its files before it begins, and room for what it writes.
//!
//! A disk that takes nothing more is this machine's trouble, not the trial's. The trial is given back, and its
//! slot takes no other before the disk takes what was missing.

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::trial::FailureReason;
use fittingroom_common::work::{Assignment, Work};
use tracing::{error, info, warn};

use super::Shared;
use super::attempt::{End, Run};
use super::cache::CacheError;
use super::report::Reporter;
use super::words::Files;
use crate::trainer::protocol::ResumeFrom;

/// The room that a disk must have before a slot takes work again, where nobody knows how much was missing, in bytes.
pub(crate) const LEAST_ROOM: u64 = 1 << 20;

impl Run<'_> {
    pub(super) async fn fetch(&self, assignment: &Assignment) -> Result<Files, CacheError> {
        let cache = &self.shared.cache;
        let [a, b, c, d] = assignment.dataset.files;
        let dataset =
            [cache.obtain(a).await?, cache.obtain(b).await?, cache.obtain(c).await?, cache.obtain(d).await?];
        match assignment.work {
            Work::Evaluate { model } => {
                Ok(Files { dataset, model: cache.obtain(model).await?, folder: None })
            }
            Work::Train { .. } => {
                let folder = cache.temporary_folder()?;
                Ok(Files { dataset, model: folder.path().join("model.safetensors"), folder: Some(folder) })
            }
        }
    }

    /// The newest checkpoint that can be had; those that cannot are told to be lost. An error is this machine's.
    pub(super) async fn resume_from(
        &self,
        candidates: &mut &[Checkpoint],
        files: &Files,
        reporter: &mut Reporter,
    ) -> Result<Option<ResumeFrom>, CacheError> {
        let Some(folder) = &files.folder else { return Ok(None) };
        while let Some(Checkpoint { place, hash }) = candidates.first().copied() {
            match self.shared.cache.obtain_checkpoint(self.hold.id, hash, folder.path()).await {
                Ok(file) => {
                    info!(epoch = place.epoch, step = place.step, "going on from a checkpoint");
                    return Ok(Some(ResumeFrom { file, epoch: place.epoch, step: place.step }));
                }
                Err(error) if error.is_of_this_machine() => return Err(error),
                Err(error) => lose(candidates, &error.to_string(), reporter),
            }
        }
        Ok(None)
    }
}

/// How an attempt ends without one of its files.
pub(super) fn without(error: &CacheError) -> End {
    if error.is_of_this_machine() {
        End::NoRoom { problem: error.to_string(), bytes: LEAST_ROOM }
    } else {
        End::failed(FailureReason::BadData, error.to_string())
    }
}

/// The first of these checkpoints cannot be gone on from: the next one counts, or the beginning.
pub(super) fn lose(candidates: &mut &[Checkpoint], problem: &str, reporter: &mut Reporter) {
    if let [lost, rest @ ..] = *candidates {
        warn!(hash = %lost.hash, epoch = lost.place.epoch, problem, "checkpoint lost, going on from the one before");
        reporter.lose(lost.hash, problem, rest.first().map_or(0, |next| next.place.epoch));
        *candidates = rest;
    }
}

/// Waits until the disk takes the dataset of an attempt that was given back, and this many bytes beside it.
pub(super) async fn wait_for_room(shared: &Shared, dataset: [ArtifactHash; 4], bytes: u64) {
    error!(bytes, "this slot takes no work until the disk takes what the trial needed");
    let mut backoff = shared.timing.backoff();
    loop {
        tokio::time::sleep(backoff.next()).await;
        match shared.cache.try_room(dataset, bytes).await {
            Err(error) if error.is_of_this_machine() => {}
            // What else is wrong, the next attempt will tell.
            Ok(()) | Err(_) => break,
        }
    }
    info!("the disk has room again");
}
