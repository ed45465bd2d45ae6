//! One try at each call to the coordinator, in domain types, with a deadline each; and what an
//! answer other than success means. Trying again is [`session`](super::session)'s business.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fittingroom_common::access::{Access, AccessError, Channel, distrust};
use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::convert::DecodeError;
use fittingroom_common::gpu::GpuLoad;
use fittingroom_common::id::{ArtifactHash, SlotNumber};
use fittingroom_common::proto as pb;
use fittingroom_common::proto::artifact_service_client::ArtifactServiceClient;
use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use fittingroom_common::trial::Report;
use fittingroom_common::work::{Assignment, Directive, Held, Outcome, SearchAttempt, WorkerInfo};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Uri;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

/// The longest that an ordinary call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that the upload of a model may take.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(600);
/// The largest control message, as the coordinator has it too.
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// The largest message of a transfer: a chunk of 1 MiB and its frame.
const MAX_CHUNK_MESSAGE_BYTES: usize = (1 << 20) + 1024;
/// The range in which the coordinator may ask for heartbeats.
const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// Why a call brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The coordinator is away, overloaded or out of space: try again.
    #[error("the coordinator is unavailable: {}", describe(.0))]
    Transient(Status),
    /// The coordinator does not know what was named: this worker, if it was restarted, or the search.
    #[error("the coordinator does not know it: {}", describe(.0))]
    NotFound(Status),
    /// The state of things forbids it: an attempt is superseded, or the versions differ.
    #[error("{}", .0.message())]
    Precondition(Status),
    /// The call is wrong, and will be wrong again.
    #[error("the coordinator refuses it: {}", describe(.0))]
    Refused(Status),
    /// The answer cannot be read.
    #[error("the coordinator's answer cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
}

/// What the coordinator said, or the network: there the innermost reason, "Connection refused" rather
/// than "transport error".
fn describe(status: &Status) -> String {
    let mut cause: Option<&dyn Error> = status.source();
    while let Some(inner) = cause.and_then(Error::source) {
        cause = Some(inner);
    }
    match cause {
        Some(cause) => cause.to_string(),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

impl Fault {
    /// Whether the coordinator does not take this worker's token, or any more.
    pub(crate) fn is_shut_out(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unauthenticated)
    }

    /// Why whoever answers is not the coordinator, if there was no answer because of that.
    pub(crate) fn distrust(&self) -> Option<String> {
        match self {
            Self::Transient(status) => status.source().and_then(distrust),
            Self::NotFound(_) | Self::Precondition(_) | Self::Refused(_) | Self::Unreadable(_) => None,
        }
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unknown
            | Code::Aborted
            | Code::Cancelled
            | Code::DataLoss => Self::Transient(status),
            Code::NotFound => Self::NotFound(status),
            Code::FailedPrecondition => Self::Precondition(status),
            Code::Ok
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Refused(status),
        }
    }
}

/// What the coordinator says to a worker that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The version of the coordinator's program.
    pub(crate) coordinator_version: String,
    /// From one heartbeat to the next.
    pub(crate) heartbeat: Duration,
}

/// What a lease brought.
#[derive(Debug)]
pub(crate) enum Leased {
    /// There was no work in that time.
    Nothing,
    /// An attempt to run.
    Work(Box<Assignment>),
    /// An attempt that is said in words this program does not know. It must be ended all the same,
    /// or the coordinator would hand it out again.
    Unreadable {
        /// The attempt.
        id: SearchAttempt,
        /// What is wrong with the rest.
        error: DecodeError,
    },
}

/// What the coordinator says to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportAnswer {
    /// Whether to go on.
    pub(crate) directive: Directive,
    /// After the last epoch: whether the model is to be uploaded.
    pub(crate) keep_model: bool,
}

/// The channels to the coordinator: one for calls, one for transfers, so that no transfer delays a heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    calls: WorkerServiceClient<Channel>,
    transfers: ArtifactServiceClient<Channel>,
    worker: Arc<WorkerInfo>,
    answering: Arc<AtomicBool>,
    trusted: Arc<AtomicBool>,
}

impl Connection {
    /// Channels that connect at the first call, and again whenever they break.
    pub(crate) fn new(coordinator: &Uri, access: &Access, worker: WorkerInfo) -> Result<Self, AccessError> {
        let endpoint = access
            .endpoint(coordinator)?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(15))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let channel = || access.show(endpoint.connect_lazy());
        Ok(Self {
            calls: WorkerServiceClient::new(channel())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            transfers: ArtifactServiceClient::new(channel())
                .max_decoding_message_size(MAX_CHUNK_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_CHUNK_MESSAGE_BYTES),
            worker: Arc::new(worker),
            answering: Arc::new(AtomicBool::new(true)),
            trusted: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Awaits a call within its deadline, and tells people when the coordinator goes away or comes back.
    async fn answer<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Fault> {
        let result = match tokio::time::timeout(deadline, call).await {
            Ok(result) => result.map(Response::into_inner).map_err(Fault::from),
            Err(_) => {
                Err(Fault::Transient(Status::deadline_exceeded(format!("no answer within {deadline:?}"))))
            }
        };
        let distrust = result.as_ref().err().and_then(Fault::distrust);
        match &result {
            Err(Fault::Transient(status)) => {
                // It may have been away before somebody else answered in its place.
                if let Some(problem) = distrust
                    && self.trusted.swap(false, Ordering::Relaxed)
                {
                    warn!(
                        problem,
                        "what answers at the coordinator's address is not trusted; trying until it is"
                    );
                }
                if self.answering.swap(false, Ordering::Relaxed) {
                    warn!(error = %describe(status), "the coordinator does not answer; trying until it does");
                }
            }
            _ => {
                self.trusted.store(true, Ordering::Relaxed);
                if !self.answering.swap(true, Ordering::Relaxed) {
                    info!("the coordinator answers again");
                }
            }
        }
        result
    }

    /// Whether the last call was answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    /// Makes this worker known.
    pub(crate) async fn register(&self) -> Result<Welcome, Fault> {
        let mut calls = self.calls.clone();
        let request = timed(CALL_DEADLINE, pb::RegisterRequest::from(&*self.worker));
        let answer = self.answer(CALL_DEADLINE, calls.register(request)).await?;
        let (least, most) = HEARTBEAT_RANGE;
        Ok(Welcome {
            coordinator_version: answer.coordinator_version.chars().take(64).collect(),
            heartbeat: Duration::from_millis(answer.heartbeat_ms.into()).clamp(least, most),
        })
    }

    /// Asks for work for a free slot.
    pub(crate) async fn lease(&self, slot: SlotNumber, wait: Duration) -> Result<Leased, Fault> {
        let mut calls = self.calls.clone();
        let deadline = wait + CALL_DEADLINE;
        let request = pb::LeaseRequest {
            worker_id: self.worker.id.to_wire(),
            slot: slot.get(),
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        };
        let answer = self.answer(deadline, calls.lease(timed(deadline, request))).await?;
        let Some(assignment) = answer.assignment else {
            return Ok(Leased::Nothing);
        };
        let id = SearchAttempt::from_wire(assignment.search, assignment.attempt)?;
        Ok(match Assignment::try_from(assignment) {
            Ok(assignment) => Leased::Work(Box::new(assignment)),
            Err(error) => Leased::Unreadable { id, error },
        })
    }

    /// Renews the leases of what is held, and tells how busy the GPUs are.
    pub(crate) async fn heartbeat(
        &self,
        held: &[Held],
        gpus: &[GpuLoad],
        draining: bool,
        deadline: Duration,
    ) -> Result<Vec<Directive>, Fault> {
        let mut calls = self.calls.clone();
        let request = pb::HeartbeatRequest {
            worker_id: self.worker.id.to_wire(),
            held: held.iter().map(Into::into).collect(),
            draining,
            gpus: gpus.iter().map(Into::into).collect(),
        };
        let answer = self.answer(deadline, calls.heartbeat(timed(deadline, request))).await?;
        let directives = answer.directives.into_iter().map(Directive::from_wire);
        Ok(directives.collect::<Result<_, _>>()?)
    }

    /// Reports an epoch.
    pub(crate) async fn report(&self, id: SearchAttempt, report: Report) -> Result<ReportAnswer, Fault> {
        let mut calls = self.calls.clone();
        let request = pb::ReportRequest {
            worker_id: self.worker.id.to_wire(),
            search: id.search.get(),
            attempt: Some(id.attempt.into()),
            report: Some(report.into()),
        };
        let answer = self.answer(CALL_DEADLINE, calls.report(timed(CALL_DEADLINE, request))).await?;
        Ok(ReportAnswer { directive: Directive::from_wire(answer.directive)?, keep_model: answer.keep_model })
    }

    /// Ends an attempt.
    pub(crate) async fn complete(&self, id: SearchAttempt, outcome: &Outcome) -> Result<(), Fault> {
        let mut calls = self.calls.clone();
        let request = pb::CompleteRequest {
            worker_id: self.worker.id.to_wire(),
            search: id.search.get(),
            attempt: Some(id.attempt.into()),
            outcome: Some(outcome.into()),
        };
        self.answer(CALL_DEADLINE, calls.complete(timed(CALL_DEADLINE, request)))
            .await
            .map(|pb::CompleteResponse {}| ())
    }

    /// Names a checkpoint that is uploaded.
    pub(crate) async fn keep_checkpoint(
        &self,
        id: SearchAttempt,
        checkpoint: Checkpoint,
    ) -> Result<(), Fault> {
        let mut calls = self.calls.clone();
        let request = pb::KeepCheckpointRequest {
            worker_id: self.worker.id.to_wire(),
            search: id.search.get(),
            attempt: Some(id.attempt.into()),
            checkpoint: Some(checkpoint.into()),
        };
        self.answer(CALL_DEADLINE, calls.keep_checkpoint(timed(CALL_DEADLINE, request)))
            .await
            .map(|pb::KeepCheckpointResponse {}| ())
    }

    /// Says that a checkpoint cannot be gone on from.
    pub(crate) async fn lose_checkpoint(
        &self,
        id: SearchAttempt,
        hash: ArtifactHash,
        problem: &str,
    ) -> Result<(), Fault> {
        let mut calls = self.calls.clone();
        let request = pb::LoseCheckpointRequest {
            worker_id: self.worker.id.to_wire(),
            search: id.search.get(),
            attempt: Some(id.attempt.into()),
            hash: hash.to_wire(),
            problem: problem.to_owned(),
        };
        self.answer(CALL_DEADLINE, calls.lose_checkpoint(timed(CALL_DEADLINE, request)))
            .await
            .map(|pb::LoseCheckpointResponse {}| ())
    }

    fn holder(&self, id: SearchAttempt) -> pb::AttemptHolder {
        let worker_id = self.worker.id.to_wire();
        pb::AttemptHolder { worker_id, search: id.search.get(), attempt: Some(id.attempt.into()) }
    }

    /// Begins the download of a checkpoint, as [`download`](Self::download) does of an artifact.
    pub(crate) async fn download_checkpoint(
        &self,
        id: SearchAttempt,
        hash: ArtifactHash,
    ) -> Result<Streaming<pb::Chunk>, Fault> {
        let mut transfers = self.transfers.clone();
        let holder = Some(self.holder(id));
        let request = pb::DownloadCheckpointRequest { holder, hash: hash.to_wire() };
        self.answer(CALL_DEADLINE, transfers.download_checkpoint(request)).await
    }

    /// Uploads a checkpoint; the answer is the hash under which it is stored.
    pub(crate) async fn upload_checkpoint(
        &self,
        id: SearchAttempt,
        chunks: impl Stream<Item = pb::Chunk> + Send + 'static,
    ) -> Result<ArtifactHash, Fault> {
        let mut transfers = self.transfers.clone();
        let first = pb::CheckpointChunk { holder: Some(self.holder(id)), ..pb::CheckpointChunk::default() };
        let rest = chunks.map(|chunk| pb::CheckpointChunk { holder: None, data: chunk.data });
        let request = timed(UPLOAD_DEADLINE, tokio_stream::once(first).chain(rest));
        let answer = self.answer(UPLOAD_DEADLINE, transfers.upload_checkpoint(request)).await?;
        Ok(ArtifactHash::from_wire(&answer.hash)?)
    }

    /// Begins the download of an artifact. The stream as a whole has no deadline: its reader has one for each chunk.
    pub(crate) async fn download(&self, hash: ArtifactHash) -> Result<Streaming<pb::Chunk>, Fault> {
        let mut transfers = self.transfers.clone();
        let request = pb::DownloadRequest { hash: hash.to_wire() };
        self.answer(CALL_DEADLINE, transfers.download(request)).await
    }

    /// Uploads an artifact; the answer is the hash under which it is stored.
    pub(crate) async fn upload(
        &self,
        chunks: impl Stream<Item = pb::Chunk> + Send + 'static,
    ) -> Result<ArtifactHash, Fault> {
        let mut transfers = self.transfers.clone();
        let answer = self.answer(UPLOAD_DEADLINE, transfers.upload(timed(UPLOAD_DEADLINE, chunks))).await?;
        Ok(ArtifactHash::from_wire(&answer.hash)?)
    }
}

/// A request that tells the coordinator its deadline too, so that it does not work for nobody.
fn timed<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
