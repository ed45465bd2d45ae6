//! The agent's standing with the coordinator: it registers, registers again when the coordinator
//! was restarted, and tries each call until it is answered or the agent gives up.

use std::time::{Duration, Instant};

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::gpu::GpuLoad;
use fittingroom_common::id::{ArtifactHash, SlotNumber};
use fittingroom_common::proto as pb;
use fittingroom_common::trial::Report;
use fittingroom_common::work::{Directive, Held, Outcome, SearchAttempt};
use tokio::sync::Mutex;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::AgentError;
use super::connection::{Connection, Fault, Leased, ReportAnswer, Welcome};
use super::ending::Ending;
use super::timing::Timing;

/// Why a call was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The attempt is superseded, or its search is gone: drop the work.
    #[error("the attempt is superseded")]
    Superseded,
    /// The coordinator refuses the call, now and always.
    #[error(transparent)]
    Refused(Fault),
    /// The agent is ending and the coordinator did not answer in time.
    #[error("the agent ends before the coordinator answered")]
    GaveUp,
    /// The agent cannot go on at all.
    #[error(transparent)]
    Fatal(AgentError),
}

/// Which of the agent's registrations a call relied on; a later one has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Generation(u64);

#[derive(Debug)]
struct Registration {
    generation: Generation,
    welcome: Welcome,
}

/// A registered agent's view of its coordinator.
#[derive(Debug)]
pub(crate) struct Session {
    /// Single tries, for callers with their own rhythm.
    pub(crate) connection: Connection,
    timing: Timing,
    give_up: CancellationToken,
    registration: Mutex<Registration>,
}

impl Session {
    /// Registers, however long the coordinator is away; `None` if the agent is told to end before.
    pub(crate) async fn open(
        connection: Connection,
        timing: Timing,
        ending: &Ending,
    ) -> Result<Option<Self>, AgentError> {
        let welcome = tokio::select! {
            biased;
            () = ending.drain.cancelled() => return Ok(None),
            welcome = register(&connection, &timing, Joining::AtFirst) => welcome?,
        };
        let registration = Registration { generation: Generation(1), welcome };
        Ok(Some(Self {
            connection,
            timing,
            give_up: ending.give_up.clone(),
            registration: Mutex::new(registration),
        }))
    }

    /// How often the coordinator wants to hear from this worker.
    pub(crate) async fn heartbeat_interval(&self) -> Duration {
        self.registration.lock().await.welcome.heartbeat
    }

    async fn generation(&self) -> Generation {
        self.registration.lock().await.generation
    }

    /// Registers again, unless another caller did so since `stale`.
    async fn renew(&self, stale: Generation) -> Result<(), AgentError> {
        let mut registration = self.registration.lock().await;
        if registration.generation > stale {
            return Ok(());
        }
        info!("the coordinator does not know this worker any more; joining again");
        registration.welcome = register(&self.connection, &self.timing, Joining::Again).await?;
        registration.generation = Generation(stale.0 + 1);
        Ok(())
    }

    /// Tries a call until it is answered. An unknown worker registers again; what is unknown even
    /// then is gone.
    async fn persist<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, CallError> {
        let attempt = async {
            let mut backoff = self.timing.backoff();
            let mut renewed = false;
            loop {
                let generation = self.generation().await;
                match call().await {
                    Ok(answer) => return Ok(answer),
                    Err(Fault::Transient(status)) => {
                        debug!(code = ?status.code(), "call to be tried again");
                        tokio::time::sleep(backoff.next()).await;
                    }
                    Err(Fault::NotFound(_)) if !renewed => {
                        self.renew(generation).await.map_err(CallError::Fatal)?;
                        renewed = true;
                    }
                    Err(Fault::NotFound(_) | Fault::Precondition(_)) => return Err(CallError::Superseded),
                    Err(fault) if fault.is_shut_out() => return Err(CallError::Fatal(shut_out(&fault))),
                    Err(fault @ (Fault::Refused(_) | Fault::Unreadable(_))) => {
                        return Err(CallError::Refused(fault));
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => Err(CallError::GaveUp),
            result = attempt => result,
        }
    }

    /// Waits for work for a slot, however long there is none.
    pub(crate) async fn lease(&self, slot: SlotNumber) -> Result<Leased, CallError> {
        loop {
            let asked = Instant::now();
            let leased = self.persist(|| self.connection.lease(slot, self.timing.lease_wait)).await?;
            match leased {
                Leased::Nothing => {
                    // A coordinator that answers at once instead of waiting must not be asked in a busy loop.
                    if asked.elapsed() < self.timing.retry_first {
                        tokio::time::sleep(self.timing.retry_first).await;
                    }
                }
                Leased::Work(_) | Leased::Unreadable { .. } => return Ok(leased),
            }
        }
    }

    /// Reports an epoch until it is answered.
    pub(crate) async fn report(&self, id: SearchAttempt, report: Report) -> Result<ReportAnswer, CallError> {
        self.persist(|| self.connection.report(id, report)).await
    }

    /// Ends an attempt, trying until it is answered.
    pub(crate) async fn complete(&self, id: SearchAttempt, outcome: &Outcome) -> Result<(), CallError> {
        self.persist(|| self.connection.complete(id, outcome)).await
    }

    /// Uploads until it is stored. `chunks` makes the stream anew for each try.
    pub(crate) async fn upload<S: Stream<Item = pb::Chunk> + Send + 'static>(
        &self,
        chunks: impl Fn() -> S,
    ) -> Result<ArtifactHash, CallError> {
        self.persist(|| self.connection.upload(chunks())).await
    }

    /// Uploads a checkpoint until it is stored, as [`upload`](Self::upload) does a model.
    pub(crate) async fn upload_checkpoint<S: Stream<Item = pb::Chunk> + Send + 'static>(
        &self,
        id: SearchAttempt,
        chunks: impl Fn() -> S,
    ) -> Result<ArtifactHash, CallError> {
        self.persist(|| self.connection.upload_checkpoint(id, chunks())).await
    }

    /// Names a checkpoint until it is answered.
    pub(crate) async fn keep_checkpoint(
        &self,
        id: SearchAttempt,
        checkpoint: Checkpoint,
    ) -> Result<(), CallError> {
        self.persist(|| self.connection.keep_checkpoint(id, checkpoint)).await
    }

    /// Says that a checkpoint cannot be gone on from, until it is answered.
    pub(crate) async fn lose_checkpoint(
        &self,
        id: SearchAttempt,
        hash: ArtifactHash,
        problem: &str,
    ) -> Result<(), CallError> {
        self.persist(|| self.connection.lose_checkpoint(id, hash, problem)).await
    }

    /// Renews the leases of what is held: one try, since the next heartbeat follows soon. `None` if
    /// there was no answer.
    pub(crate) async fn heartbeat(
        &self,
        held: &[Held],
        gpus: &[GpuLoad],
        draining: bool,
        deadline: Duration,
    ) -> Result<Option<Vec<Directive>>, AgentError> {
        let generation = self.generation().await;
        match self.connection.heartbeat(held, gpus, draining, deadline).await {
            Ok(directives) => Ok(Some(directives)),
            Err(Fault::NotFound(_)) => self.renew(generation).await.map(|()| None),
            Err(fault) if fault.is_shut_out() => Err(shut_out(&fault)),
            Err(fault) => {
                debug!(%fault, "heartbeat without an answer");
                Ok(None)
            }
        }
    }
}

/// A token that was revoked never counts again: there is nothing to wait for.
fn shut_out(fault: &Fault) -> AgentError {
    AgentError::Refused(fault.to_string())
}

/// Whether the coordinator has answered this worker before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joining {
    AtFirst,
    Again,
}

/// Registers, trying until the coordinator answers. One that is not trusted from the first is a mistake that
/// somebody has to mend; one that was trusted before may be again.
async fn register(connection: &Connection, timing: &Timing, joining: Joining) -> Result<Welcome, AgentError> {
    let mut backoff = timing.backoff();
    loop {
        match connection.register().await {
            Ok(welcome) => {
                info!(coordinator_version = %welcome.coordinator_version, "joined the coordinator");
                return Ok(welcome);
            }
            Err(fault @ Fault::Transient(_)) => match fault.distrust() {
                Some(problem) if joining == Joining::AtFirst => return Err(AgentError::Distrust(problem)),
                Some(_) | None => tokio::time::sleep(backoff.next()).await,
            },
            Err(Fault::Precondition(status)) => {
                return Err(AgentError::Version {
                    ours: pb::PROTOCOL_VERSION,
                    said: status.message().to_owned(),
                });
            }
            Err(fault @ (Fault::NotFound(_) | Fault::Refused(_) | Fault::Unreadable(_))) => {
                return Err(AgentError::Refused(fault.to_string()));
            }
        }
    }
}
