//! One simulated worker of one slot.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fittingroom_common::id::{ArtifactHash, WorkerId};
use fittingroom_common::proto as pb;
use pb::artifact_service_client::ArtifactServiceClient;
use pb::complete_request::Outcome;
use pb::worker_service_client::WorkerServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::measure::{Latencies, Measured};
use crate::server::Server;
use crate::{Crowd, Failure, Load};

/// As the coordinator says it to real workers.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Every model under load: what is in it is nobody's business.
const MODEL: &[u8] = &[0; 1024];

/// How fast workers go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Each call follows the answer to the one before.
    Flat,
    /// Each call has its time, this long after the one before. One that is late counts as late.
    Every(Duration),
}

/// What all workers of a load share.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) measured: Measured,
    /// Set when it is time to go home.
    pub(crate) stop: AtomicBool,
    /// What the first worker has reported and no watcher has seen yet: trial, epoch, and when it was answered.
    pub(crate) unseen: Mutex<Vec<(u64, u32, Instant)>>,
    /// Trials after which there is no more work for anybody.
    pub(crate) enough: AtomicU64,
}

impl Crew {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            measured: Measured::default(),
            stop: AtomicBool::new(false),
            unseen: Mutex::default(),
            enough: AtomicU64::new(u64::MAX),
        })
    }

    pub(crate) fn unseen(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u32, Instant)>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
            || self.measured.trials.load(Ordering::Relaxed) >= self.enough.load(Ordering::Relaxed)
    }
}

/// A simulated worker.
pub(crate) struct Worker {
    number: u32,
    id: Vec<u8>,
    calls: WorkerServiceClient<Channel>,
    transfers: ArtifactServiceClient<Channel>,
}

impl Worker {
    /// Registers.
    async fn join(channel: Channel, number: u32) -> Result<Self, Failure> {
        let id = WorkerId::new(u128::from(number) + 1).to_wire();
        let mut calls = WorkerServiceClient::new(channel.clone());
        calls
            .register(pb::RegisterRequest {
                protocol_version: pb::PROTOCOL_VERSION,
                worker_id: id.clone(),
                name: format!("simulated-{number}"),
                slots: 1,
                device: "none".to_owned(),
                program_version: env!("CARGO_PKG_VERSION").to_owned(),
            })
            .await?;
        Ok(Self { number, id, calls, transfers: ArtifactServiceClient::new(channel) })
    }

    /// All workers of a load.
    pub(crate) async fn join_all(server: &Server, crowd: Crowd) -> Result<Vec<Self>, Failure> {
        let mut joined = Vec::new();
        let mut channel = server.connect().await?;
        for number in 0..crowd.workers {
            if number % crowd.share == 0 {
                channel = server.connect().await?;
            }
            joined.push(Self::join(channel.clone(), number).await?);
        }
        Ok(joined)
    }

    /// Waits for work that does not come, and sends heartbeats.
    pub(crate) async fn wait(mut self, crew: Arc<Crew>) -> Result<(), Failure> {
        let mut polls = self.calls.clone();
        let lease = pb::LeaseRequest { worker_id: self.id.clone(), slot: 0, wait_ms: 60_000 };
        let poll = async {
            loop {
                polls.lease(lease.clone()).await?;
            }
        };
        tokio::select! {
            polled = poll => polled,
            beaten = self.beat(crew, Vec::new) => beaten,
        }
    }

    async fn beat(&mut self, crew: Arc<Crew>, held: impl Fn() -> Vec<pb::Held>) -> Result<(), Failure> {
        // Workers that were started together do not beat together.
        tokio::time::sleep(HEARTBEAT * (self.number % 1000) / 1000).await;
        while !crew.is_done() {
            let begin = Instant::now();
            let request =
                pb::HeartbeatRequest { worker_id: self.id.clone(), held: held(), ..Default::default() };
            self.calls.heartbeat(request).await?;
            crew.measured.heartbeat.add(begin.elapsed());
            tokio::time::sleep_until(begin + HEARTBEAT).await;
        }
        Ok(())
    }

    /// Works until it is time to go home.
    pub(crate) async fn work(self, load: Load, pace: Pace, crew: Arc<Crew>) -> Result<(), Failure> {
        let held = Arc::new(Mutex::new(None));
        let mut heart = Self {
            calls: self.calls.clone(),
            transfers: self.transfers.clone(),
            id: self.id.clone(),
            ..self
        };
        let holds = {
            let held = Arc::clone(&held);
            move || held.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
        };
        let beats = heart.beat(Arc::clone(&crew), holds);
        let works = self.work_trials(load, pace, Arc::clone(&crew), held);
        tokio::pin!(beats);
        tokio::select! {
            worked = works => worked,
            Err(error) = &mut beats => Err(error),
        }
    }

    async fn work_trials(
        mut self,
        load: Load,
        pace: Pace,
        crew: Arc<Crew>,
        held: Arc<Mutex<Option<pb::Held>>>,
    ) -> Result<(), Failure> {
        let mut turn = Turn::first(pace, load, self.number);
        let measured = &crew.measured;
        while !crew.is_done() {
            turn.begin().await;
            let request = pb::LeaseRequest { worker_id: self.id.clone(), slot: 0, wait_ms: 1000 };
            let Some(assignment) = self.calls.lease(request).await?.into_inner().assignment else { continue };
            turn.end(&measured.lease);
            let (search, attempt) = (assignment.search, assignment.attempt.ok_or("no attempt")?);
            let now_held = pb::Held { search, attempt: Some(attempt), epoch: 1, step: 0, steps: 1 };
            *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(now_held);
            let score = score_of(attempt.trial);
            let mut keep_model = false;
            for epoch in 1..=load.epochs {
                turn.begin().await;
                let report = pb::Report {
                    epoch,
                    train: Some(score),
                    validation: Some(score),
                    test: None,
                    seconds: f64::from(epoch),
                    images_per_second: 1000.0,
                };
                let request = pb::ReportRequest {
                    worker_id: self.id.clone(),
                    search,
                    attempt: Some(attempt),
                    report: Some(report),
                };
                keep_model = self.calls.report(request).await?.into_inner().keep_model;
                turn.end(&measured.report);
                if self.number == 0 {
                    crew.unseen().push((attempt.trial, epoch, Instant::now()));
                }
            }
            turn.begin().await;
            let model_hash = if keep_model { self.upload().await? } else { Vec::new() };
            let request = pb::CompleteRequest {
                worker_id: self.id.clone(),
                search,
                attempt: Some(attempt),
                outcome: Some(Outcome::Trained(pb::Trained { model_hash })),
            };
            self.calls.complete(request).await?;
            turn.end(&measured.complete);
            measured.trials.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn upload(&mut self) -> Result<Vec<u8>, Failure> {
        let chunk = pb::Chunk { data: Bytes::from_static(MODEL) };
        self.transfers.upload(tokio_stream::once(chunk)).await?;
        Ok(ArtifactHash::of(MODEL).to_wire())
    }
}

/// When a worker's next call is to be made.
struct Turn {
    pace: Pace,
    due: Instant,
}

impl Turn {
    fn first(pace: Pace, load: Load, number: u32) -> Self {
        let due = match pace {
            Pace::Flat => Instant::now(),
            // Spread over the time of one trial.
            Pace::Every(pause) => {
                Instant::now()
                    + pause * (load.epochs + 2) * (number % load.crowd.workers) / load.crowd.workers
            }
        };
        Self { pace, due }
    }

    async fn begin(&mut self) {
        match self.pace {
            Pace::Flat => self.due = Instant::now(),
            Pace::Every(_) => tokio::time::sleep_until(self.due).await,
        }
    }

    /// Counts a call from the time that it had, not from when it could be made.
    fn end(&mut self, latencies: &Latencies) {
        latencies.add(self.due.elapsed());
        if let Pace::Every(pause) = self.pace {
            self.due += pause;
        }
    }
}

/// Metrics that look drawn, and are always the same for a trial.
fn score_of(trial: u64) -> pb::Score {
    let mixed = (trial + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let share = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    pb::Score { loss: 2.0 * (1.0 - share), accuracy: share }
}
