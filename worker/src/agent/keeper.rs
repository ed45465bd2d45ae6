//! Brings the checkpoints of one attempt to the coordinator, while training goes on: one at a time,
//! and always the newest. One that cannot be brought costs nothing but what it would have saved.

use std::path::PathBuf;
use std::sync::Arc;

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::work::SearchAttempt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{Instrument, debug, warn};

use super::session::{CallError, Session};
use super::upload::{UploadError, upload_checkpoint};

/// A checkpoint that the trainer wrote. Its file goes when nobody needs it any more.
#[derive(Debug)]
struct Written {
    file: PathBuf,
    place: CheckpointPlace,
}

impl Drop for Written {
    fn drop(&mut self) {
        // It lies in the attempt's folder, which goes too.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The newest checkpoint that is to be brought. Dropping it drops what is not brought.
#[derive(Debug)]
pub(crate) struct Keeper {
    newest: Option<watch::Sender<Option<Arc<Written>>>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Waits for checkpoints of an attempt. `answered`: the newest epoch that the coordinator knows of.
    pub(crate) fn start(session: Arc<Session>, id: SearchAttempt, answered: watch::Receiver<u32>) -> Self {
        let (newest, written) = watch::channel(None);
        Self {
            newest: Some(newest),
            task: tokio::spawn(bring(session, id, written, answered).in_current_span()),
        }
    }

    /// Takes over a checkpoint, in the place of one that waits.
    pub(crate) fn take(&self, file: PathBuf, place: CheckpointPlace) {
        if let Some(newest) = &self.newest {
            newest.send_replace(Some(Arc::new(Written { file, place })));
        }
    }

    /// Waits until the newest checkpoint is brought, or cannot be.
    pub(crate) async fn finish(&mut self) {
        self.newest = None;
        // If the task broke down, there is nothing more to wait for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bring(
    session: Arc<Session>,
    id: SearchAttempt,
    mut newest: watch::Receiver<Option<Arc<Written>>>,
    mut answered: watch::Receiver<u32>,
) {
    while newest.changed().await.is_ok() {
        let Some(written) = newest.borrow_and_update().clone() else { continue };
        let place = written.place;
        let hash = match upload_checkpoint(&session, id, &written.file).await {
            Ok(hash) => hash,
            // The reports and the heartbeats are told the same, and act on it.
            Err(UploadError::Call(CallError::Superseded | CallError::GaveUp | CallError::Fatal(_))) => return,
            Err(error) => {
                warn!(%error, epoch = place.epoch, "checkpoint not stored; training goes on");
                continue;
            }
        };
        // The epochs in it must be known before it is.
        if answered.wait_for(|epoch| *epoch >= place.epoch).await.is_err() {
            return;
        }
        match session.keep_checkpoint(id, Checkpoint { place, hash }).await {
            Ok(()) => debug!(%hash, epoch = place.epoch, step = place.step, "checkpoint kept"),
            Err(CallError::Refused(fault)) => {
                warn!(error = %fault, epoch = place.epoch, "checkpoint not kept; training goes on");
            }
            Err(CallError::Superseded | CallError::GaveUp | CallError::Fatal(_)) => return,
        }
    }
}
