//! The gRPC services: decode, call the cluster, encode. The only server code that names tonic.

mod artifact;
mod operator;
mod status;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::proto as pb;
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::cluster::Cluster;

/// The largest control message, in bytes. A search may list many points.
const MAX_LAUNCH_BYTES: usize = 64 << 20;
/// The largest message of a worker, in bytes.
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// The largest message of an artifact's transfer: a chunk and its envelope.
const MAX_CHUNK_BYTES: usize = crate::artifacts::CHUNK_BYTES + 1024;
/// The most calls at a time of one connection.
const MOST_STREAMS: u32 = 4096;

/// The server with all its services, for the caller to give connections to.
pub fn router(cluster: Arc<Cluster>) -> Router {
    let operator = operator::Operator::new(Arc::clone(&cluster));
    let worker = worker::Worker::new(Arc::clone(&cluster));
    let artifact = artifact::Artifact::new(cluster);
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(15)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(MOST_STREAMS))
        .add_service(
            pb::operator_service_server::OperatorServiceServer::new(operator)
                .max_decoding_message_size(MAX_LAUNCH_BYTES),
        )
        .add_service(
            pb::worker_service_server::WorkerServiceServer::new(worker)
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            pb::artifact_service_server::ArtifactServiceServer::new(artifact)
                .max_decoding_message_size(MAX_CHUNK_BYTES),
        )
}
