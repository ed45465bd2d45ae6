//! Transfers of artifacts.

use std::sync::Arc;

use fittingroom_common::id::{ArtifactHash, WorkerId};
use fittingroom_common::proto as pb;
use fittingroom_common::work::SearchAttempt;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::status::{of_artifact, of_cluster, undecodable};
use super::worker::{speaker, token};
use crate::access::TokenId;
use crate::cluster::Cluster;

pub(super) struct Artifact {
    cluster: Arc<Cluster>,
}

impl Artifact {
    pub(super) const fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// The attempt and the worker that a message names, if the caller may speak for it.
    fn holder(
        &self,
        of: Option<pb::AttemptHolder>,
        token: Option<TokenId>,
    ) -> Result<(SearchAttempt, WorkerId), Status> {
        let of = of.ok_or_else(|| Status::invalid_argument("the field holder is missing"))?;
        let id = SearchAttempt::from_wire(of.search, of.attempt).map_err(|error| undecodable(&error))?;
        Ok((id, speaker(&self.cluster, &of.worker_id, token)?))
    }
}

#[tonic::async_trait]
impl pb::artifact_service_server::ArtifactService for Artifact {
    type DownloadStream = BoxStream<'static, Result<pb::Chunk, Status>>;
    type DownloadCheckpointStream = BoxStream<'static, Result<pb::Chunk, Status>>;

    async fn download(
        &self,
        request: Request<pb::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let hash =
            ArtifactHash::from_wire(&request.into_inner().hash).map_err(|error| undecodable(&error))?;
        let chunks = self.cluster.artifacts().get_stream(hash).await.map_err(|error| of_artifact(&error))?;
        let chunks = chunks.map_ok(|data| pb::Chunk { data }).map_err(|error| of_artifact(&error));
        Ok(Response::new(chunks.boxed()))
    }

    async fn upload(
        &self,
        request: Request<Streaming<pb::Chunk>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        let chunks = request.into_inner().map_ok(|chunk| chunk.data);
        let stored = self.cluster.artifacts().put_stream(chunks).await;
        let hash = stored.map_err(|error| of_artifact(&error))?;
        Ok(Response::new(pb::UploadResponse { hash: hash.to_wire() }))
    }

    async fn upload_checkpoint(
        &self,
        request: Request<Streaming<pb::CheckpointChunk>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        let token = token(&request);
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.unwrap_or_default();
        let (id, worker) = self.holder(first.holder, token)?;
        let rest = chunks.map_ok(|chunk| chunk.data);
        let chunks = futures_util::stream::iter([Ok(first.data)]).chain(rest);
        // By itself, since a call that is given up is dropped wherever it is: what is stored by then
        // would be known to nobody.
        let cluster = Arc::clone(&self.cluster);
        let stored = tokio::spawn(async move { cluster.upload_checkpoint(id, worker, chunks).await });
        let stored = stored.await.map_err(|_| Status::internal("the upload broke down"))?;
        let hash = stored.map_err(|error| of_cluster(&error))?;
        Ok(Response::new(pb::UploadResponse { hash: hash.to_wire() }))
    }

    async fn download_checkpoint(
        &self,
        request: Request<pb::DownloadCheckpointRequest>,
    ) -> Result<Response<Self::DownloadCheckpointStream>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let (id, worker) = self.holder(request.holder, token)?;
        let hash = ArtifactHash::from_wire(&request.hash).map_err(|error| undecodable(&error))?;
        let chunks = self.cluster.download_checkpoint(id, worker, hash).await;
        let chunks = chunks.map_err(|error| of_cluster(&error))?;
        let chunks = chunks.map_ok(|data| pb::Chunk { data }).map_err(|error| of_artifact(&error));
        Ok(Response::new(chunks.boxed()))
    }
}
