//! The agent: pulls attempts from a coordinator and has them run by trainer processes, one per slot.
//!
//! ```text
//! run ──┬─ heartbeat            one task; renews leases, learns what is to be dropped
//!       ├─ vitals               one task; tells systemd that the worker works, if it wants to know
//!       ├─ gpu                  one thread where there are GPUs; asks their driver how busy they are
//!       └─ slot 0, 1, …         a task each: lease ─► Run ─► complete
//!            ├─ seat ─ trainer  the child process, kept from attempt to attempt
//!            ├─ cache           datasets and models on disk, shared by the slots
//!            ├─ report          a task per attempt: sends its epochs while training goes on
//!            └─ keeper          a task per attempt: uploads its checkpoints while training goes on
//! session ─ connection          every call: tried once by the connection, until answered by the session
//! ```
//!
//! The agent knows nothing of how training works and never touches candle; a trainer knows nothing
//! of the coordinator. The trainer's program and the signal to end are passed in.

mod attempt;
mod backoff;
mod cache;
mod connection;
mod device;
mod ending;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gpu;
mod heartbeat;
mod held;
mod keeper;
mod memory;
mod output;
mod provision;
mod report;
mod seat;
mod session;
mod slot;
mod timing;
mod trainer;
mod upload;
mod vitals;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::access::{Access, AccessError};
use fittingroom_common::convert::MAX_DESCRIPTION;
use fittingroom_common::id::{Name, SlotNumber, WorkerId};
use fittingroom_common::process::ServiceManager;
use fittingroom_common::work::WorkerInfo;
use rand::TryRngCore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::Uri;
use tracing::{Instrument, error_span, info, warn};

pub use cache::CacheError;
pub use device::{Device, DeviceError, Devices};
pub use gpu::{GpuSource, GpuWatch};
pub use timing::Timing;
pub use trainer::TrainerProgram;

use cache::Cache;
use connection::Connection;
use ending::Ending;
use held::HeldTable;
use seat::Seat;
use session::Session;
use vitals::{Rounds, Vitals};

/// What an agent is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the coordinator is.
    pub coordinator: Uri,
    /// What the coordinator is shown, and how it is known.
    pub access: Access,
    /// What people call the worker.
    pub name: Name,
    /// What to train on.
    pub devices: Devices,
    /// Who watches how busy those are that are GPUs.
    pub gpus: Option<GpuWatch>,
    /// Where datasets and models are kept; other agents may use it too.
    pub cache: PathBuf,
    /// What to run as trainers.
    pub trainer: TrainerProgram,
    /// How long to wait for what.
    pub timing: Timing,
    /// Who wants to know that the worker works.
    pub service_manager: ServiceManager,
}

/// Why an agent ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The coordinator speaks another version of the messages.
    #[error("the coordinator refuses this worker, which speaks version {ours} of the protocol: {said}")]
    Version {
        /// The version that this program speaks.
        ours: u32,
        /// What the coordinator said.
        said: String,
    },
    /// The coordinator does not want this worker, or is no coordinator.
    #[error("this worker cannot work with the coordinator: {0}")]
    Refused(String),
    /// Whoever answers is not the coordinator that is trusted.
    #[error(
        "what answers at the coordinator's address is not trusted: {0}; look at --coordinator, at --ca-fingerprint or --ca (`fittingroom certs` prints the fingerprint), and at this machine's clock"
    )]
    Distrust(String),
    /// The coordinator cannot be called in the way that was asked for.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The cache's folder cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The operating system gives no random bits.
    #[error("the operating system gives no random bits for the worker's id: {0}")]
    Random(String),
    /// A part of the agent ended in a way that it should not.
    #[error("a part of the agent broke down: {0}; this is a defect of Fitting Room")]
    Task(String),
}

impl From<JoinError> for AgentError {
    fn from(error: JoinError) -> Self {
        Self::Task(error.to_string())
    }
}

/// What the slots share.
#[derive(Debug)]
pub(crate) struct Shared {
    session: Arc<Session>,
    cache: Cache,
    table: HeldTable,
    gpus: Option<GpuWatch>,
    ending: Ending,
    timing: Timing,
    service_manager: ServiceManager,
    rounds: Rounds,
}

/// Runs an agent until `shutdown` is cancelled, and then until it has given back what it held.
///
/// Dropping the future ends the agent at once, and its trainers with it.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), AgentError> {
    let span = error_span!("worker", worker = %config.name);
    work(config, shutdown).instrument(span).await
}

async fn work(config: Config, shutdown: CancellationToken) -> Result<(), AgentError> {
    let Config { coordinator, access, name, devices, gpus, cache, trainer, timing, service_manager } = config;
    let worker = WorkerInfo {
        id: draw_id()?,
        name,
        slots: u32::try_from(devices.slots.len()).unwrap_or(u32::MAX),
        device: cut(devices.description, MAX_DESCRIPTION),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    info!(slots = worker.slots, device = worker.device, %coordinator, "worker starts");
    for note in devices.notes {
        warn!("{note}");
    }
    if access.exposes_token(&coordinator) {
        warn!("the token goes to the coordinator unencrypted; https:// would keep it from others");
    }
    let slots = worker.slots;
    let connection = Connection::new(&coordinator, &access, worker)?;
    let cache = Cache::open(&cache, connection.clone(), timing.clone())?;
    let ending = Ending::new(shutdown);
    let mut background = JoinSet::new();
    background.spawn(ending.clone().run(timing.drain, timing.farewell).in_current_span());
    let (table, rounds) = (HeldTable::default(), Rounds::default());
    let vitals = Vitals {
        service_manager,
        connection: connection.clone(),
        table: table.clone(),
        rounds: rounds.clone(),
        slots,
    };
    background.spawn(vitals.watch());
    let Some(session) = Session::open(connection, timing.clone(), &ending).await? else {
        return Ok(());
    };
    let shared = Arc::new(Shared {
        session: Arc::new(session),
        cache,
        table,
        gpus,
        ending,
        timing: timing.clone(),
        service_manager,
        rounds,
    });
    let mut slots = JoinSet::new();
    for (number, device) in (0..).zip(devices.slots) {
        let seat = Seat::new(trainer.clone(), device, timing.clone());
        slots.spawn(slot::run(shared.clone(), SlotNumber::new(number), seat).in_current_span());
    }
    let heartbeat = heartbeat::run(&shared);
    let slots = async {
        while let Some(ended) = slots.join_next().await {
            ended??;
        }
        Ok(())
    };
    tokio::select! {
        ended = slots => ended,
        ended = heartbeat => ended,
    }?;
    // Tells the coordinator that nothing is held, rather than let it wait for the leases to end.
    let farewell = shared.session.connection.heartbeat(&[], &[], true, FAREWELL_DEADLINE);
    let _ = farewell.await;
    info!("worker ends");
    Ok(())
}

/// What the last heartbeat may take.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

fn draw_id() -> Result<WorkerId, AgentError> {
    let mut bits = [0; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut bits).map_err(|error| AgentError::Random(error.to_string()))?;
    Ok(WorkerId::new(u128::from_le_bytes(bits)))
}

/// The text, cut to at most so many bytes.
fn cut(mut text: String, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    text
}
