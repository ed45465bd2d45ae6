//! The gRPC services: decode, call the cluster, encode. The only server code that names tonic.

mod artifact;
mod backup;
mod operator;
mod status;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::convert::MAX_SLOTS;
use fittingroom_common::proto as pb;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower_layer::{Identity, Stack};

use crate::access::{GateLayer, MOST_CHUNK_BYTES, MOST_LAUNCH_BYTES, MOST_MESSAGE_BYTES};
use crate::cluster::Cluster;

/// The most streams at a time of one connection.
const MOST_STREAMS: u32 = 4096;
/// The most calls at a time of one connection that wait for their answer to begin: a lease and a report
/// for each slot of the largest worker. Whoever makes more is told to come back.
const MOST_CALLS: usize = 2 * MAX_SLOTS as usize + 64;
/// What may be on its way to the services in one connection, in bytes. HTTP/2's library (h2, since 0.4.16)
/// counts 256 bytes for each small message that nobody has read yet, and ends a connection where that is
/// more than half of this. So there is room for a message on each stream, and for as many again that came
/// for calls which had been answered already.
const MOST_UNREAD_BYTES: u32 = 4 * 256 * MOST_STREAMS;
/// The largest headers of a call, in bytes.
const MOST_HEADER_BYTES: u32 = 16 << 10;
/// The most streams of one connection that its other end opened, and gave up before they were served.
const MOST_GIVEN_UP: usize = 256;

/// The server with all its services behind the gate, for the caller to give connections to. What it says
/// of its health is what `health` was told.
pub(crate) fn router(
    cluster: Arc<Cluster>,
    gate: GateLayer,
    health: HealthReporter,
) -> Router<Stack<GateLayer, Identity>> {
    let operator = operator::Operator::new(Arc::clone(&cluster));
    let worker = worker::Worker::new(Arc::clone(&cluster));
    let artifact = artifact::Artifact::new(cluster);
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(15)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(MOST_STREAMS))
        .initial_connection_window_size(Some(MOST_UNREAD_BYTES))
        .concurrency_limit_per_connection(MOST_CALLS)
        .load_shed(true)
        .http2_max_header_list_size(Some(MOST_HEADER_BYTES))
        .http2_max_pending_accept_reset_streams(Some(MOST_GIVEN_UP))
        .layer(gate)
        .add_service(HealthServer::new(HealthService::from_health_reporter(health)))
        .add_service(
            pb::operator_service_server::OperatorServiceServer::new(operator)
                .max_decoding_message_size(MOST_LAUNCH_BYTES),
        )
        .add_service(
            pb::worker_service_server::WorkerServiceServer::new(worker)
                .max_decoding_message_size(MOST_MESSAGE_BYTES),
        )
        .add_service(
            pb::artifact_service_server::ArtifactServiceServer::new(artifact)
                .max_decoding_message_size(MOST_CHUNK_BYTES),
        )
}
