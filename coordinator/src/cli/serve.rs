//! `fittingroom serve`: the coordinator itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use fittingroom_common::process::ServiceManager;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::error::CliError;
use super::flags::JsonFlag;
use super::interrupt::Interrupt;
use super::json;
use super::output::{Form, Output};
use crate::access::{CertificateFolder, MOST_CONNECTIONS, Protection, TlsFiles, shell_word};
use crate::clock::{Clock, SystemClock};
use crate::cluster::Leases;
use crate::serve::{Config, Exposure, LONGEST_ENDING, Listeners, bind};

/// Runs the coordinator until it is asked to stop. Prints its address once it answers calls.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  fittingroom serve --data ./fittingroom-data\n\nSIGINT and SIGTERM stop it within seconds, a second one at once; what it was doing goes on when it is started again."
)]
pub(crate) struct ServeArgs {
    /// The folder in which searches, datasets and models are kept; made if it is not there
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    data: PathBuf,
    /// Where workers and commands find the coordinator
    #[arg(long, value_name = "ADDRESS", env = "FITTINGROOM_LISTEN", default_value = "127.0.0.1:7733")]
    listen: SocketAddr,
    /// Where Prometheus finds metrics, at /metrics; nowhere unless this is given
    #[arg(long, value_name = "ADDRESS", env = "FITTINGROOM_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// Where artifacts are kept, instead of in the data folder: another folder, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE", env = "FITTINGROOM_ARTIFACTS")]
    artifacts: Option<String>,
    /// How long a silent worker keeps its trials
    #[arg(
        long,
        value_name = "SECONDS",
        env = "FITTINGROOM_LEASE_SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    lease_seconds: u32,
    /// Where datasets are looked for by name, as DIR/NAME; may be given more than once
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATASETS", value_delimiter = ':')]
    datasets: Vec<PathBuf>,
    /// The server's certificate (PEM, with its chain), instead of the one that `fittingroom certs` made
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The most connections at a time; a worker has two
    #[arg(
        long,
        value_name = "N",
        env = "FITTINGROOM_MAX_CONNECTIONS",
        default_value_t = MOST_CONNECTIONS as u32,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_connections: u32,
    /// Listen on an address that other machines reach, although calls are not both encrypted and authenticated
    #[arg(long, env = "FITTINGROOM_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> Result<(), CliError> {
    let tls = args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
    let protection = Protection { tls, max_connections: args.max_connections as usize };
    let exposure = if args.insecure {
        Exposure::Anyone
    } else {
        Exposure::LoopbackUntil(protection.missing(&args.data)?)
    };
    let is_encrypted = protection.tls_files(&args.data).is_some();
    remind(&args.data, &protection);
    let mut interrupt = Interrupt::listen().map_err(CliError::Signals)?;
    let calls = bind(args.listen, "--listen", &exposure).await?;
    let metrics = match args.metrics_listen {
        Some(address) => Some(bind(address, "--metrics-listen", &exposure).await?),
        None => None,
    };
    let service_manager = ServiceManager::from_environment();
    let config = Config {
        data: args.data,
        artifacts: args.artifacts,
        dataset_folders: args.datasets,
        leases: Leases::lasting(Duration::from_secs(args.lease_seconds.into())),
        protection,
        service_manager,
    };
    let shutdown = CancellationToken::new();
    let address = calls.local_addr();
    let url = |address: SocketAddr, encrypted| {
        let scheme = if encrypted { "https" } else { "http" };
        format!("{scheme}://{address}")
    };
    let metrics_url = metrics
        .as_ref()
        .and_then(|listener| listener.local_addr().ok())
        .map(|address| format!("{}/metrics", url(address, is_encrypted && !address.ip().is_loopback())));
    let ready = || {
        let Ok(address) = address else { return };
        let url = url(address, is_encrypted);
        if let Some(url) = &metrics_url {
            info!(%url, "metrics");
        }
        let mut output = Output::stdout();
        // Whoever started the coordinator may be waiting for this line, or may not be reading at all.
        let _ = match args.json.form() {
            Form::Text => output.line(&url),
            Form::Json => output.json_line(&json::Serving { url, metrics: metrics_url }),
        };
    };
    let listeners = Listeners { calls, metrics };
    let server = crate::serve::run(config, listeners, shutdown.clone(), ready);
    tokio::pin!(server);
    tokio::select! {
        served = &mut server => Ok(served?),
        () = interrupt.heard() => {
            service_manager.stopping(LONGEST_ENDING);
            shutdown.cancel();
            tokio::select! {
                served = server => Ok(served?),
                () = interrupt.heard() => Err(CliError::Interrupted),
            }
        }
    }
}

/// Says that the certificate which `certs` made ends soon, while there is time.
fn remind(data: &Path, protection: &Protection) {
    let now = SystemClock::start().now();
    if let (None, Ok(Some(issued))) = (&protection.tls, CertificateFolder::in_data(data).read())
        && issued.expires_soon(now)
    {
        let data = shell_word(data);
        warn!(expires = %issued.expires, "the certificate ends soon: run `fittingroom certs --data {data} --renew`");
    }
}
