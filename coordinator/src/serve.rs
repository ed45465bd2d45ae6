//! The coordinator as a server: opens its data folder, replays its searches, answers calls.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::process::ServiceManager;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::access::{self, GateLayer, Keys, Protection, Tls, TlsError, TokenFile, TokenFileError};
use crate::artifacts::{ArtifactError, ArtifactStore};
use crate::clock::SystemClock;
use crate::cluster::{Cluster, ClusterError, Leases};
use crate::log::{LogError, MeteredLog, SqliteLog};
use crate::metrics::{self, Door, Metrics};
use crate::{owner, service, vitals};

/// How long open calls may take to end once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a coordinator takes to end at most: open calls, what the log has left to write, and the rest.
pub const LONGEST_ENDING: Duration = Duration::from_secs(15);

/// What a coordinator serves, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data folder, which belongs to this coordinator alone.
    pub data: PathBuf,
    /// The address of the artifact store; `None` for a folder within the data folder.
    pub artifacts: Option<String>,
    /// Folders that are looked in for a dataset `NAME`, as `FOLDER/NAME`.
    pub dataset_folders: Vec<PathBuf>,
    /// How leases are kept.
    pub leases: Leases,
    /// How it is protected.
    pub protection: Protection,
    /// Who wants to know that it works.
    pub service_manager: ServiceManager,
}

/// Where a coordinator listens.
#[derive(Debug)]
pub struct Listeners {
    /// For workers and commands.
    pub calls: TcpListener,
    /// For monitoring, if it is to be asked.
    pub metrics: Option<TcpListener>,
}

/// Why a coordinator does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is open to others, and nothing protects it.
    #[error(
        "{address} can be reached from other machines, and calls would not be both encrypted and authenticated; run{}\nthen start this again; or say --insecure on a network that you trust",
        on_lines(.first)
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
        /// The commands that protect it.
        first: Vec<String>,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}{}", in_use_help(source, flag))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The flag that names it.
        flag: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error("the data folder {path:?} cannot be used: {source}")]
    Data {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another coordinator has the data folder.
    #[error("the data folder {path:?} is in use by another coordinator{}; stop it, or give this one another folder with --data", owner.as_deref().unwrap_or_default())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who has it, as far as is known.
        owner: Option<String>,
    },
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The artifact store cannot be opened.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The searches cannot be replayed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The server ended by itself.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

fn in_use_help(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("; is a coordinator running there already? Choose another with {flag}")
        }
        _ => String::new(),
    }
}

fn on_lines(commands: &[String]) -> String {
    commands.iter().map(|command| format!("\n  {command}")).collect()
}

/// Listens on an address, which `flag` names. One that others can reach is refused unless `exposure` allows it.
pub async fn bind(
    address: SocketAddr,
    flag: &'static str,
    exposure: &Exposure,
) -> Result<TcpListener, ServeError> {
    match exposure {
        Exposure::LoopbackUntil(first) if !first.is_empty() && !address.ip().is_loopback() => {
            return Err(ServeError::Exposed { address, first: first.clone() });
        }
        Exposure::LoopbackUntil(_) | Exposure::Anyone => {}
    }
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, flag, source })
}

/// Who may reach a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Programs on the same machine, until these commands were run to protect it.
    LoopbackUntil(Vec<String>),
    /// Everybody who can reach the address, protected or not.
    Anyone,
}

/// Serves until `shutdown`. Whatever was acknowledged is in the log then. Calls `ready` once every
/// search is replayed and calls are about to be answered.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let _lock = lock(&config.data)?;
    let metrics = Metrics::new(access::paths());
    let log = SqliteLog::open(&config.data.join("log.sqlite"))?;
    let log = Arc::new(MeteredLog::new(log, metrics.clone()));
    let log_state = log.state();
    let incoming = config.data.join("incoming");
    clear(&incoming).map_err(|source| ServeError::Data { path: incoming.clone(), source })?;
    let artifacts = match &config.artifacts {
        Some(url) => ArtifactStore::at(url, incoming)?,
        None => ArtifactStore::in_folder(&config.data.join("artifacts"), incoming)?,
    };
    let tls = config.protection.tls_files(&config.data).map(Tls::load).transpose()?.map(Arc::new);
    let tokens = TokenFile::in_data(&config.data);
    let keys = Arc::new(Keys::default());
    keys.replace(tokens.read()?);
    if tls.is_some() {
        keys.need();
    }
    let clock = Arc::new(SystemClock::start());
    let events = Arc::clone(&log);
    let cluster =
        Cluster::open(events, artifacts, clock, config.leases, config.dataset_folders, shutdown.clone())
            .await?;
    let cluster = Arc::new(cluster);
    tokio::spawn(Arc::clone(&cluster).collect_unnamed());
    if let Ok(address) = listeners.calls.local_addr() {
        let (encrypted, authenticated) = (tls.is_some(), keys.are_needed());
        info!(%address, data = %config.data.display(), encrypted, authenticated, "coordinator ready");
    }
    ready();
    let service_manager = config.service_manager;
    service_manager.ready("answering calls");
    if let Some(listener) = listeners.metrics {
        let door = door(&listener, tls.clone(), Arc::clone(&keys));
        let (cluster, metrics, log) = (Arc::clone(&cluster), metrics.clone(), log_state.clone());
        let scrape = move || metrics.scrape(&cluster, *log.borrow());
        tokio::spawn(metrics::serve(listener, door, scrape, shutdown.clone()));
    }
    let health = HealthReporter::new();
    tokio::spawn(vitals::watch(Arc::clone(&cluster), log_state, health.clone(), service_manager));
    let closed = CancellationToken::new();
    tokio::spawn(Arc::clone(&cluster).dismiss_strangers(closed.clone()));
    tokio::spawn(access::watch(tokens, Arc::clone(&keys), tls.clone(), closed, shutdown.clone()));
    let most = config.protection.max_connections;
    let connections = access::connections(listeners.calls, tls, most, metrics.clone());
    let server = service::router(cluster, GateLayer::new(keys, metrics), health)
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    let give_up = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served?,
        error = log.inner().failure() => return Err(error.into()),
        () = give_up => warn!("some calls did not end in time"),
    }
    info!("coordinator stopped");
    Ok(())
}

/// Who may read the metrics: on loopback everybody, since they tell no secret, and no names but those of
/// workers with GPUs.
fn door(listener: &TcpListener, tls: Option<Arc<Tls>>, keys: Arc<Keys>) -> Door {
    match listener.local_addr() {
        Ok(address) if address.ip().is_loopback() => Door::Open,
        Ok(_) | Err(_) => Door::Guarded { tls, keys },
    }
}

/// Takes the data folder for this process. The lock ends with the process, however it ends.
pub(crate) fn lock(data: &Path) -> Result<File, ServeError> {
    let failed = |source| ServeError::Data { path: data.to_owned(), source };
    std::fs::create_dir_all(data).map_err(failed)?;
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(data.join("lock"))
        .map_err(failed)?;
    owner::give_file(data, &file);
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let owner = file.read_to_string(&mut owner).ok().map(|_| format!(" (process {})", owner.trim()));
            Err(ServeError::Locked { path: data.to_owned(), owner })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Removes what uploads left that a crash cut off.
fn clear(incoming: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(incoming) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(incoming),
    }
}
