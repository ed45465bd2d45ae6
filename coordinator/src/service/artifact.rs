//! Transfers of artifacts.

use std::sync::Arc;

use fittingroom_common::id::ArtifactHash;
use fittingroom_common::proto as pb;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::status::{of_artifact, undecodable};
use crate::cluster::Cluster;

pub(super) struct Artifact {
    cluster: Arc<Cluster>,
}

impl Artifact {
    pub(super) const fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

#[tonic::async_trait]
impl pb::artifact_service_server::ArtifactService for Artifact {
    type DownloadStream = BoxStream<'static, Result<pb::Chunk, Status>>;

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
}
