//! Sends backups.

use std::pin::pin;

use fittingroom_common::operator::{Artifacts, BackupPart};
use fittingroom_common::proto as pb;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tonic::Status;
use tracing::warn;

use super::status::of_backup;
use crate::backup::{Backup, BackupError};
use crate::cluster::Cluster;

type Parts = mpsc::Sender<Result<pb::BackupResponse, Status>>;

/// Makes a backup and sends it, until the reader goes or the coordinator stops.
pub(super) async fn send(cluster: &Cluster, artifacts: Artifacts, parts: Parts) {
    let sent = tokio::select! {
        sent = make_and_send(cluster, artifacts, &parts) => sent.map_err(|error| {
            warn!(%error, "a backup broke off");
            of_backup(&error)
        }),
        () = parts.closed() => return,
        () = cluster.shutdown().cancelled() => Err(Status::unavailable("the coordinator is stopping")),
    };
    if let Err(status) = sent {
        // The reader may have gone too.
        let _ = parts.send(Err(status)).await;
    }
}

async fn make_and_send(cluster: &Cluster, artifacts: Artifacts, parts: &Parts) -> Result<(), BackupError> {
    let stop = cluster.shutdown().child_token();
    // A copy of the log that nobody waits for any more is given up.
    let _stopped_when_dropped = stop.clone().drop_guard();
    let backup = Backup::begin(cluster, artifacts, stop).await?;
    let total = stream::iter([Ok(BackupPart::Total(backup.bytes()))]);
    let mut all = pin!(total.chain(backup.into_stream().map_ok(BackupPart::Bytes)));
    while let Some(part) = all.try_next().await? {
        // Waits for a slow reader. One that has gone is noticed by whoever called this.
        if parts.send(Ok(part.into())).await.is_err() {
            break;
        }
    }
    Ok(())
}
