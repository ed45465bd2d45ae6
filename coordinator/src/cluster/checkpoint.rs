//! Checkpoints of attempts: stored before they are named, and touched by nobody but who holds the attempt.

use bytes::Bytes;
use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::{ArtifactHash, WorkerId};
use fittingroom_common::work::SearchAttempt;
use futures_util::Stream;
use futures_util::stream::BoxStream;

use super::{Cluster, ClusterError};
use crate::artifacts::ArtifactError;
use crate::runner::Refusal;
use crate::search::{Command, Discard, Rejection};

impl Cluster {
    /// Stores a checkpoint of an attempt, and answers its hash when it is durable.
    pub async fn upload_checkpoint<E: std::fmt::Display>(
        &self,
        id: SearchAttempt,
        worker: WorkerId,
        chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<ArtifactHash, ClusterError> {
        self.check_holder(id, worker).await?;
        let (trial, checkpoints) = (id.attempt.trial, &self.surroundings.checkpoints);
        let hash = checkpoints.put_stream(id.search, trial, chunks).await?;
        let superseded = self.check_holder(id, worker).await;
        if superseded.is_err() {
            self.give_up_unless_kept(id, hash).await?;
        }
        superseded.map(|()| hash)
    }

    /// If the trial ended meanwhile, nobody would look for the checkpoint any more.
    async fn give_up_unless_kept(&self, id: SearchAttempt, hash: ArtifactHash) -> Result<(), ClusterError> {
        let (search, trial) = (self.find_id(id.search)?, id.attempt.trial);
        let is_kept = search.query(move |it| it.keeps_checkpoint(trial, hash)).await?;
        if !is_kept {
            self.surroundings.checkpoints.discard(id.search, Discard::One { trial, hash });
        }
        Ok(())
    }

    /// A checkpoint of the attempt's trial, in chunks.
    pub async fn download_checkpoint(
        &self,
        id: SearchAttempt,
        worker: WorkerId,
        hash: ArtifactHash,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ClusterError> {
        self.check_holder(id, worker).await?;
        Ok(self.surroundings.checkpoints.get_stream(id.search, id.attempt.trial, hash).await?)
    }

    /// Notes that an attempt's checkpoint is stored.
    pub async fn keep_checkpoint(
        &self,
        id: SearchAttempt,
        worker: WorkerId,
        checkpoint: Checkpoint,
    ) -> Result<(), ClusterError> {
        let SearchAttempt { search, attempt } = id;
        let hash = checkpoint.hash;
        self.check_holder(id, worker).await?;
        if !self.surroundings.checkpoints.claim(search, attempt.trial, hash).await? {
            return Err(ClusterError::NoSuchCheckpoint { attempt, hash });
        }
        let command = Command::KeepCheckpoint { attempt, worker, checkpoint };
        let kept = self.find_id(search)?.command(command, |_| ()).await;
        if let Err(Refusal::Rejected(_)) = kept {
            self.give_up_unless_kept(id, hash).await?;
        }
        Ok(kept?)
    }

    /// Notes that an attempt cannot go on from the newest checkpoint.
    pub async fn lose_checkpoint(
        &self,
        id: SearchAttempt,
        worker: WorkerId,
        hash: ArtifactHash,
        problem: String,
    ) -> Result<(), ClusterError> {
        let command = Command::LoseCheckpoint { attempt: id.attempt, worker, hash, problem };
        Ok(self.find_id(id.search)?.command(command, |_| ()).await?)
    }

    async fn check_holder(&self, id: SearchAttempt, worker: WorkerId) -> Result<(), ClusterError> {
        let attempt = id.attempt;
        let is_held = self.find_id(id.search)?.query(move |search| search.is_held(attempt, worker)).await?;
        let superseded = || ClusterError::Refused(Refusal::Rejected(Rejection::Superseded { attempt }));
        if is_held { Ok(()) } else { Err(superseded()) }
    }
}
