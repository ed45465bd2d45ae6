//! What workers call.

use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::gpu::GpuLoad;
use fittingroom_common::id::{ArtifactHash, SlotNumber, WorkerId};
use fittingroom_common::proto as pb;
use fittingroom_common::trial::{Failure, Report};
use fittingroom_common::work::{Held, Outcome, SearchAttempt, WorkerInfo};
use tonic::{Request, Response, Status};
use tracing::info;

use super::status::{of_cluster, undecodable};
use crate::access::{Caller, TokenId};
use crate::cluster::Cluster;

/// The longest wait of a lease call.
const MAX_LEASE_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    cluster: Arc<Cluster>,
}

impl Worker {
    pub(super) const fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// The worker that a call names, if the caller may speak for it.
    fn worker(&self, bytes: &[u8], token: Option<TokenId>) -> Result<WorkerId, Status> {
        speaker(&self.cluster, bytes, token)
    }
}

/// The worker of this id, if it registered with this token.
pub(super) fn speaker(cluster: &Cluster, bytes: &[u8], token: Option<TokenId>) -> Result<WorkerId, Status> {
    let worker = WorkerId::from_wire(bytes).map_err(|error| undecodable(&error))?;
    cluster.workers().check(worker, token).map_err(|error| of_cluster(&error.into()))?;
    Ok(worker)
}

/// The token that a call showed, where calls need one.
pub(super) fn token<T>(request: &Request<T>) -> Option<TokenId> {
    request.extensions().get::<Caller>().map(|caller| caller.token)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[tonic::async_trait]
impl pb::worker_service_server::WorkerService for Worker {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        if request.protocol_version != pb::PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "this worker ({}) speaks version {} of the protocol, the coordinator ({}) version {}: install the same release on both",
                request.program_version,
                request.protocol_version,
                env!("CARGO_PKG_VERSION"),
                pb::PROTOCOL_VERSION
            )));
        }
        let worker = WorkerInfo::try_from(request).map_err(|error| undecodable(&error))?;
        info!(worker = %worker.name, slots = worker.slots, device = worker.device, "worker joined");
        self.cluster
            .workers()
            .register(worker, token, self.cluster.now())
            .map_err(|error| of_cluster(&error.into()))?;
        let leases = self.cluster.leases();
        Ok(Response::new(pb::RegisterResponse {
            coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
            heartbeat_ms: millis(leases.heartbeat),
            lease_ms: millis(leases.length),
        }))
    }

    async fn lease(&self, request: Request<pb::LeaseRequest>) -> Result<Response<pb::LeaseResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let worker = self.worker(&request.worker_id, token)?;
        let patience = Duration::from_millis(request.wait_ms.into()).min(MAX_LEASE_WAIT);
        let leased = self.cluster.lease(worker, SlotNumber::new(request.slot), patience).await;
        let assignment = leased.map_err(|error| of_cluster(&error))?;
        Ok(Response::new(pb::LeaseResponse { assignment: assignment.as_ref().map(Into::into) }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let worker = self.worker(&request.worker_id, token)?;
        let held: Result<Vec<Held>, _> = request.held.into_iter().map(Held::try_from).collect();
        let held = held.map_err(|error| undecodable(&error))?;
        let gpus = GpuLoad::all_from_wire(request.gpus).map_err(|error| undecodable(&error))?;
        let directives = self.cluster.heartbeat(worker, held, request.draining).await;
        let directives = directives.map_err(|error| of_cluster(&error))?;
        let noted = self.cluster.workers().note_gpus(worker, gpus, self.cluster.now());
        noted.map_err(|error| of_cluster(&error.into()))?;
        let directives = directives.into_iter().map(|it| pb::Directive::from(it).into()).collect();
        Ok(Response::new(pb::HeartbeatResponse { directives }))
    }

    async fn report(
        &self,
        request: Request<pb::ReportRequest>,
    ) -> Result<Response<pb::ReportResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let worker = self.worker(&request.worker_id, token)?;
        let id =
            SearchAttempt::from_wire(request.search, request.attempt).map_err(|error| undecodable(&error))?;
        let report = request.report.ok_or_else(|| Status::invalid_argument("the field report is missing"))?;
        let report = Report::try_from(report).map_err(|error| undecodable(&error))?;
        let kept = self.cluster.report(id.search, id.attempt, worker, report).await;
        let keep_model = kept.map_err(|error| of_cluster(&error))?;
        Ok(Response::new(pb::ReportResponse { directive: pb::Directive::Continue.into(), keep_model }))
    }

    async fn complete(
        &self,
        request: Request<pb::CompleteRequest>,
    ) -> Result<Response<pb::CompleteResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let worker = self.worker(&request.worker_id, token)?;
        let id =
            SearchAttempt::from_wire(request.search, request.attempt).map_err(|error| undecodable(&error))?;
        let outcome =
            request.outcome.ok_or_else(|| Status::invalid_argument("the field outcome is missing"))?;
        let outcome = Outcome::try_from(outcome).map_err(|error| undecodable(&error))?;
        let completed = self.cluster.complete(id.search, id.attempt, worker, outcome).await;
        completed.map_err(|error| of_cluster(&error))?;
        Ok(Response::new(pb::CompleteResponse {}))
    }

    async fn keep_checkpoint(
        &self,
        request: Request<pb::KeepCheckpointRequest>,
    ) -> Result<Response<pb::KeepCheckpointResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let worker = self.worker(&request.worker_id, token)?;
        let id =
            SearchAttempt::from_wire(request.search, request.attempt).map_err(|error| undecodable(&error))?;
        let checkpoint =
            request.checkpoint.ok_or_else(|| Status::invalid_argument("the field checkpoint is missing"))?;
        let checkpoint = Checkpoint::try_from(checkpoint).map_err(|error| undecodable(&error))?;
        let kept = self.cluster.keep_checkpoint(id, worker, checkpoint).await;
        kept.map_err(|error| of_cluster(&error))?;
        Ok(Response::new(pb::KeepCheckpointResponse {}))
    }

    async fn lose_checkpoint(
        &self,
        request: Request<pb::LoseCheckpointRequest>,
    ) -> Result<Response<pb::LoseCheckpointResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let worker = self.worker(&request.worker_id, token)?;
        let id =
            SearchAttempt::from_wire(request.search, request.attempt).map_err(|error| undecodable(&error))?;
        let hash = ArtifactHash::from_wire(&request.hash).map_err(|error| undecodable(&error))?;
        if request.problem.len() > Failure::MAX_DETAIL {
            return Err(Status::invalid_argument("the field problem may have 4096 bytes at most"));
        }
        let lost = self.cluster.lose_checkpoint(id, worker, hash, request.problem).await;
        lost.map_err(|error| of_cluster(&error))?;
        Ok(Response::new(pb::LoseCheckpointResponse {}))
    }
}
