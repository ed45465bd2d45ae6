//! `fittingroom serve`: the coordinator itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Runs the coordinator until it is asked to stop.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  fittingroom serve --data ./fittingroom-data\n\nSIGINT and SIGTERM stop it; what it was doing goes on when it is started again.")]
pub struct ServeArgs {
    /// The folder in which searches, datasets and models are kept; made if it is not there
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    pub data: PathBuf,
    /// Where workers and commands find the coordinator
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "FITTINGROOM_LISTEN",
        default_value = "127.0.0.1:7733"
    )]
    pub listen: SocketAddr,
    /// Where artifacts are kept, instead of in the data folder: s3://BUCKET/PREFIX
    #[arg(long, value_name = "URL", env = "FITTINGROOM_ARTIFACTS")]
    pub artifacts: Option<String>,
    /// How long a silent worker keeps its trials
    #[arg(
        long,
        value_name = "SECONDS",
        env = "FITTINGROOM_LEASE_SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub lease_seconds: u32,
}
