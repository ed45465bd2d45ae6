//! A coordinator that says what a test wants it to say, and remembers what it was told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::proto as pb;
use fittingroom_common::proto::artifact_service_server::{ArtifactService, ArtifactServiceServer};
use fittingroom_common::proto::worker_service_server::{WorkerService, WorkerServiceServer};
use fittingroom_common::trial::Report;
use fittingroom_common::work::{Assignment, Outcome};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What the agent said, in the order in which it came. Heartbeats and leases are counted apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Registered(pb::RegisterRequest),
    Reported { trial: u64, report: Report },
    Uploaded(Vec<u8>),
    Completed { trial: u64, outcome: Outcome },
    CheckpointUploaded { trial: u64, bytes: Vec<u8> },
    CheckpointKept { trial: u64, checkpoint: Checkpoint },
    CheckpointLost { trial: u64, hash: ArtifactHash, problem: String },
}

/// What to answer to the next reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reports {
    Accept,
    /// Answer UNAVAILABLE so many times.
    Fail(u32),
    /// Answer that the attempt is superseded.
    Supersede,
    /// Answer that the work is to be dropped.
    Drop,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) heard: Vec<Heard>,
    pub(crate) work: VecDeque<Assignment>,
    pub(crate) artifacts: HashMap<ArtifactHash, Vec<u8>>,
    pub(crate) downloads: Vec<ArtifactHash>,
    pub(crate) heartbeats: Vec<pb::HeartbeatRequest>,
    pub(crate) reports: Reports,
    /// Trials whose heartbeats are answered with DROP.
    pub(crate) drop_trials: HashSet<u64>,
    pub(crate) keep_models: bool,
    pub(crate) other_version: bool,
    known: HashSet<Vec<u8>>,
    leased: HashMap<u32, Assignment>,
}

impl State {
    /// Forgets the worker, as a restart does.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// The bytes that were uploaded last.
    pub(crate) fn uploaded(&self) -> Option<Vec<u8>> {
        self.heard.iter().rev().find_map(|heard| match heard {
            Heard::Uploaded(bytes) => Some(bytes.clone()),
            _ => None,
        })
    }

    fn check(&self, worker: &[u8]) -> Result<(), Status> {
        if self.known.contains(worker) { Ok(()) } else { Err(Status::not_found("unknown worker")) }
    }

    fn end(&mut self, trial: u64) {
        self.leased.retain(|_, held| held.id.attempt.trial.get() != trial);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Coordinator {
    pub(crate) fn new() -> Self {
        let state = State {
            heard: Vec::new(),
            work: VecDeque::new(),
            artifacts: HashMap::new(),
            downloads: Vec::new(),
            heartbeats: Vec::new(),
            reports: Reports::Accept,
            drop_trials: HashSet::new(),
            keep_models: false,
            other_version: false,
            known: HashSet::new(),
            leased: HashMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked while it held this")
    }

    /// Serves at an address for as long as the test's runtime lives.
    pub(crate) async fn serve(&self, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let bound = listener.local_addr().expect("bound");
        let server = Server::builder()
            .add_service(WorkerServiceServer::new(self.clone()))
            .add_service(ArtifactServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        bound
    }

    /// Waits until what was heard satisfies the test, which is given what it looked for.
    pub(crate) async fn wait<T>(&self, what: &str, found: impl Fn(&State) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = found(&self.state()) {
                    return found;
                }
                // Some changes make no sound, such as a file in the cache.
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not happen; heard: {:#?}", self.state().heard),
        }
    }

    /// Waits for a trial's outcome.
    pub(crate) async fn outcome(&self, trial: u64) -> Outcome {
        self.wait(&format!("the outcome of trial {trial}"), |state| {
            state.heard.iter().find_map(|heard| match heard {
                Heard::Completed { trial: of, outcome } if *of == trial => Some(outcome.clone()),
                _ => None,
            })
        })
        .await
    }

    fn hear(&self, heard: Heard) {
        self.state().heard.push(heard);
        self.changed.notify_waiters();
    }
}

fn trial_of(attempt: Option<pb::Attempt>) -> u64 {
    attempt.expect("every request names its attempt").trial
}

#[tonic::async_trait]
impl WorkerService for Coordinator {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        if self.state().other_version {
            return Err(Status::failed_precondition(
                "the worker speaks version 1, the coordinator version 2",
            ));
        }
        let request = request.into_inner();
        self.state().known.insert(request.worker_id.clone());
        self.hear(Heard::Registered(request));
        Ok(Response::new(pb::RegisterResponse {
            coordinator_version: "test".to_owned(),
            heartbeat_ms: 50,
            lease_ms: 1000,
        }))
    }

    async fn lease(&self, request: Request<pb::LeaseRequest>) -> Result<Response<pb::LeaseResponse>, Status> {
        let request = request.into_inner();
        for _ in 0..20 {
            {
                let mut state = self.state();
                state.check(&request.worker_id)?;
                if !state.leased.contains_key(&request.slot)
                    && let Some(work) = state.work.pop_front()
                {
                    state.leased.insert(request.slot, work);
                }
                if let Some(assignment) = state.leased.get(&request.slot) {
                    return Ok(Response::new(pb::LeaseResponse { assignment: Some(assignment.into()) }));
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Response::new(pb::LeaseResponse { assignment: None }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        state.check(&request.worker_id)?;
        let mut directives = Vec::new();
        for held in &request.held {
            let trial = trial_of(held.attempt);
            let dropped = state.drop_trials.contains(&trial);
            if dropped {
                state.end(trial);
            }
            directives.push(if dropped {
                pb::Directive::Drop.into()
            } else {
                pb::Directive::Continue.into()
            });
        }
        state.heartbeats.push(request);
        Ok(Response::new(pb::HeartbeatResponse { directives }))
    }

    async fn report(
        &self,
        request: Request<pb::ReportRequest>,
    ) -> Result<Response<pb::ReportResponse>, Status> {
        let request = request.into_inner();
        let trial = trial_of(request.attempt);
        let mut directive = pb::Directive::Continue;
        let keep_model = {
            let mut state = self.state();
            state.check(&request.worker_id)?;
            match state.reports {
                Reports::Accept => {}
                Reports::Fail(0) => state.reports = Reports::Accept,
                Reports::Fail(times) => {
                    state.reports = Reports::Fail(times - 1);
                    return Err(Status::unavailable("try again"));
                }
                Reports::Supersede => {
                    state.reports = Reports::Accept;
                    state.end(trial);
                    return Err(Status::failed_precondition("superseded"));
                }
                Reports::Drop => {
                    state.reports = Reports::Accept;
                    state.end(trial);
                    directive = pb::Directive::Drop;
                }
            }
            state.keep_models
        };
        let report = Report::try_from(request.report.expect("a report")).expect("a good report");
        self.hear(Heard::Reported { trial, report });
        Ok(Response::new(pb::ReportResponse { directive: directive.into(), keep_model }))
    }

    async fn keep_checkpoint(
        &self,
        request: Request<pb::KeepCheckpointRequest>,
    ) -> Result<Response<pb::KeepCheckpointResponse>, Status> {
        let request = request.into_inner();
        self.state().check(&request.worker_id)?;
        let trial = trial_of(request.attempt);
        let checkpoint = Checkpoint::try_from(request.checkpoint.expect("a checkpoint")).expect("a good one");
        self.hear(Heard::CheckpointKept { trial, checkpoint });
        Ok(Response::new(pb::KeepCheckpointResponse {}))
    }

    async fn lose_checkpoint(
        &self,
        request: Request<pb::LoseCheckpointRequest>,
    ) -> Result<Response<pb::LoseCheckpointResponse>, Status> {
        let request = request.into_inner();
        self.state().check(&request.worker_id)?;
        let (trial, hash) = (trial_of(request.attempt), ArtifactHash::from_wire(&request.hash));
        self.hear(Heard::CheckpointLost { trial, hash: hash.expect("a hash"), problem: request.problem });
        Ok(Response::new(pb::LoseCheckpointResponse {}))
    }

    async fn complete(
        &self,
        request: Request<pb::CompleteRequest>,
    ) -> Result<Response<pb::CompleteResponse>, Status> {
        let request = request.into_inner();
        let trial = trial_of(request.attempt);
        {
            let mut state = self.state();
            state.check(&request.worker_id)?;
            state.end(trial);
        }
        let outcome = Outcome::try_from(request.outcome.expect("an outcome")).expect("a good outcome");
        self.hear(Heard::Completed { trial, outcome });
        Ok(Response::new(pb::CompleteResponse {}))
    }
}

#[tonic::async_trait]
impl ArtifactService for Coordinator {
    type DownloadCheckpointStream = Self::DownloadStream;
    type DownloadStream = Pin<Box<dyn Stream<Item = Result<pb::Chunk, Status>> + Send>>;

    async fn download(
        &self,
        request: Request<pb::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let hash = ArtifactHash::from_wire(&request.into_inner().hash).expect("a hash");
        let bytes = {
            let mut state = self.state();
            state.downloads.push(hash);
            state.artifacts.get(&hash).cloned()
        };
        let bytes = bytes.ok_or_else(|| Status::not_found("no such artifact"))?;
        let chunks: Vec<_> =
            bytes.chunks(1000).map(|piece| Ok(pb::Chunk { data: piece.to_vec().into() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn upload(
        &self,
        request: Request<Streaming<pb::Chunk>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        let mut chunks = request.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?.data);
        }
        let hash = ArtifactHash::of(&bytes);
        self.hear(Heard::Uploaded(bytes));
        Ok(Response::new(pb::UploadResponse { hash: hash.to_wire() }))
    }

    async fn upload_checkpoint(
        &self,
        request: Request<Streaming<pb::CheckpointChunk>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.expect("the holder comes first");
        let holder = first.holder.expect("the first chunk names the holder");
        self.state().check(&holder.worker_id)?;
        let mut bytes = first.data.to_vec();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?.data);
        }
        let hash = ArtifactHash::of(&bytes);
        self.hear(Heard::CheckpointUploaded { trial: trial_of(holder.attempt), bytes });
        Ok(Response::new(pb::UploadResponse { hash: hash.to_wire() }))
    }

    async fn download_checkpoint(
        &self,
        request: Request<pb::DownloadCheckpointRequest>,
    ) -> Result<Response<Self::DownloadCheckpointStream>, Status> {
        let request = request.into_inner();
        assert!(request.holder.is_some_and(|holder| holder.attempt.is_some()), "the attempt is named");
        self.download(Request::new(pb::DownloadRequest { hash: request.hash })).await
    }
}
