//! The coordinator as a server: opens its data folder, replays its searches, answers calls.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::artifacts::{ArtifactError, ArtifactStore};
use crate::clock::SystemClock;
use crate::cluster::{Cluster, ClusterError, Leases};
use crate::log::{LogError, SqliteLog};
use crate::service;

/// How long open calls may take to end once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait before the next connection when one could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
}

/// Why a coordinator does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is open to others, and nothing protects it.
    #[error(
        "{address} can be reached from other machines, and calls are neither encrypted nor authenticated yet: listen on 127.0.0.1 and use an SSH tunnel, or say --insecure on a network that you trust"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}{}", in_use_help(source))]
    Bind {
        /// The address.
        address: SocketAddr,
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

fn in_use_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; is a coordinator running there already? Choose another with --listen",
        _ => "",
    }
}

/// Listens on an address. One that others can reach is refused unless `exposure` allows it.
pub async fn bind(address: SocketAddr, exposure: Exposure) -> Result<TcpListener, ServeError> {
    if exposure == Exposure::LoopbackOnly && !address.ip().is_loopback() {
        return Err(ServeError::Exposed { address });
    }
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })
}

/// Who may reach a coordinator that has neither encryption nor authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Programs on the same machine.
    LoopbackOnly,
    /// Everybody who can reach the address.
    Anyone,
}

/// Serves until `shutdown`. Whatever was acknowledged is in the log then. Calls `ready` once every
/// search is replayed and calls are about to be answered.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let _lock = lock(&config.data)?;
    let log = Arc::new(SqliteLog::open(&config.data.join("log.sqlite"))?);
    let incoming = config.data.join("incoming");
    clear(&incoming).map_err(|source| ServeError::Data { path: incoming.clone(), source })?;
    let artifacts = match &config.artifacts {
        Some(url) => ArtifactStore::at(url, incoming)?,
        None => ArtifactStore::in_folder(&config.data.join("artifacts"), incoming)?,
    };
    let clock = Arc::new(SystemClock::start());
    let cluster =
        Cluster::open(log, artifacts, clock, config.leases, config.dataset_folders, shutdown.clone()).await?;
    if let Ok(address) = listener.local_addr() {
        info!(%address, data = %config.data.display(), "coordinator ready");
    }
    ready();
    let server = service::router(Arc::new(cluster))
        .serve_with_incoming_shutdown(connections(listener), shutdown.clone().cancelled_owned());
    let give_up = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served?,
        () = give_up => warn!("some calls did not end in time"),
    }
    info!("coordinator stopped");
    Ok(())
}

/// Connections one after the other. One that cannot be accepted (too many open files, say) is no
/// reason to stop.
fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    futures_util::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    // Small messages that wait for company would be late.
                    let _ = connection.set_nodelay(true);
                    return Some((Ok(connection), listener));
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// Takes the data folder for this process. The lock ends with the process, however it ends.
fn lock(data: &Path) -> Result<File, ServeError> {
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
