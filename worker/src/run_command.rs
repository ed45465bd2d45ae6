//! `fittingroom-worker run`: parses, sets up diagnostics and signals, and calls the agent.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fittingroom_common::access::{Access, AccessError, Fingerprint, Sources};
use fittingroom_common::convert::MAX_SLOTS;
use fittingroom_common::id::Name;
use fittingroom_common::process::{LogFilter, LogFormat, ServiceManager, start_log};
use tokio_util::sync::CancellationToken;
use tonic::transport::Uri;
use tracing::{error, info};

use crate::agent::{self, AgentError, Config, DeviceError, Devices, GpuWatch, Timing, TrainerProgram};
use crate::signals::Signals;
use crate::train::device::DeviceChoice;

/// Pull trials from a coordinator and train them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    fittingroom-worker run --coordinator http://127.0.0.1:7733 --device cpu --slots 2\n\n\
    Ctrl-C or SIGTERM gives running trials back to the coordinator and ends; a second one ends at once.\n\
    --log-level debug shows more on stderr.")]
pub struct RunArguments {
    /// Where the coordinator is
    #[arg(long, env = "FITTINGROOM_COORDINATOR", value_name = "URL", default_value = "http://127.0.0.1:7733", value_parser = coordinator)]
    coordinator: Uri,

    /// A file with the token to show to the coordinator; FITTINGROOM_TOKEN may hold the token itself
    #[arg(long, env = "FITTINGROOM_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The certificate authority (PEM) by which an https:// coordinator is known
    #[arg(long, env = "FITTINGROOM_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The SHA-256 of that authority, instead of its file
    #[arg(long, env = "FITTINGROOM_CA_FINGERPRINT", value_name = "SHA256", conflicts_with = "ca")]
    ca_fingerprint: Option<Fingerprint>,

    /// Trials to train at the same time [default: one per GPU, or one per core where there is none]
    #[arg(long, env = "FITTINGROOM_SLOTS", value_name = "N", value_parser = slots)]
    slots: Option<NonZeroU32>,

    /// What to train on: cpu, cuda:N, metal, or auto for every GPU that can be used, and else the processor
    #[arg(long, env = "FITTINGROOM_DEVICE", value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// What people call this worker [default: the machine's name]
    #[arg(long, env = "FITTINGROOM_NAME", value_name = "NAME")]
    name: Option<Name>,

    /// Folder that keeps datasets from one run to the next [default: fittingroom in the user's cache folder]
    #[arg(long, env = "FITTINGROOM_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,

    /// How long running trials may go on after the first signal to end
    #[arg(long, env = "FITTINGROOM_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 0)]
    drain_seconds: u32,

    /// What is shown on stderr: error, warn, info, debug, trace or off, or a level for each part of the program
    #[arg(long, env = "FITTINGROOM_LOG", value_name = "LEVEL", default_value = "info")]
    log_level: LogFilter,

    /// How it is shown: text, or json with a document on each line
    #[arg(long, env = "FITTINGROOM_LOG_FORMAT", value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refuses something that the command needs.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why it cannot be.
        source: std::io::Error,
    },
    /// The coordinator cannot be called in the way that was asked for.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The agent failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl RunError {
    /// The program's exit code: 2 for wrong usage, 1 for what failed.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Device(DeviceError::NotBuilt { .. })
            | Self::Access(_)
            | Self::Agent(AgentError::Access(_)) => 2,
            Self::Device(DeviceError::Unusable(_)) | Self::System { .. } | Self::Agent(_) => 1,
        }
    }
}

impl RunArguments {
    /// Runs the agent until a signal ends it.
    pub fn execute(self) -> Result<ExitCode, RunError> {
        start_log(self.log_format, &self.log_level);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|source| RunError::System { what: "start the runtime", source })?;
        let code = runtime.block_on(async { run(self.config().await?).await });
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    }

    async fn config(self) -> Result<Config, RunError> {
        let (authority, fingerprint) = (self.ca, self.ca_fingerprint);
        let sources = Sources { token_file: self.token_file, authority, fingerprint };
        let devices = Devices::detect(self.device, self.slots).await?;
        Ok(Config {
            coordinator: self.coordinator,
            access: Access::read(&sources)?,
            name: self.name.unwrap_or_else(|| Name::sanitised(&host_name())),
            gpus: GpuWatch::on(&devices.slots),
            devices,
            cache: self.cache.unwrap_or_else(|| {
                default_cache(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from), std::env::home_dir())
            }),
            trainer: TrainerProgram::this_program().map_err(|source| RunError::System {
                what: "find this program to start trainers from",
                source,
            })?,
            timing: Timing { drain: Duration::from_secs(self.drain_seconds.into()), ..Timing::default() },
            service_manager: ServiceManager::from_environment(),
        })
    }
}

async fn run(config: Config) -> Result<ExitCode, RunError> {
    let mut signals =
        Signals::listen().map_err(|source| RunError::System { what: "listen for signals", source })?;
    let shutdown = CancellationToken::new();
    let (longest_ending, service_manager) = (config.timing.longest_ending(), config.service_manager);
    let agent = agent::run(config, shutdown.clone());
    let no_longer = async {
        let signal = signals.next().await;
        info!(signal, "told to end; a second signal ends at once");
        service_manager.stopping(longest_ending);
        shutdown.cancel();
        match tokio::time::timeout(longest_ending, signals.next()).await {
            Ok(signal) => info!(signal, "told again; ending at once"),
            // A device's driver, say, that does not let go of a trainer.
            Err(_) => error!(seconds = longest_ending.as_secs(), "something does not end; ending at once"),
        }
    };
    tokio::select! {
        ended = agent => ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        () = no_longer => Ok(ExitCode::FAILURE),
    }
}

fn coordinator(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("it is not a URL: {error}; say http://HOST:PORT"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err("say http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

fn slots(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .ok()
        .filter(|slots: &NonZeroU32| slots.get() <= MAX_SLOTS)
        .ok_or_else(|| format!("it takes 1 to {MAX_SLOTS}"))
}

/// The machine's name, or a plain word where it has none that can be had.
fn host_name() -> String {
    let named = |text: String| Some(text.trim().to_owned()).filter(|name| !name.is_empty());
    let asked = || {
        let output = std::process::Command::new("hostname").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .and_then(named)
        .or_else(|| asked().and_then(named))
        .unwrap_or_else(|| "worker".to_owned())
}

/// Where the freedesktop base directory specification has caches, or else among temporary files.
fn default_cache(xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let absolute = |path: &PathBuf| path.is_absolute();
    xdg.filter(absolute)
        .or_else(|| home.filter(absolute).map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join(Path::new("fittingroom"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        run: RunArguments,
    }

    fn parse(arguments: &[&str]) -> Result<RunArguments, clap::Error> {
        Program::try_parse_from([&["run"], arguments].concat()).map(|program| program.run)
    }

    #[tokio::test]
    async fn flags_become_a_configuration() {
        let arguments = [
            "--coordinator=http://node-1:7733",
            "--slots=3",
            "--device=cpu",
            "--name=gpu-box",
            "--cache=/var/cache/x",
            "--drain-seconds=30",
        ];
        let config = parse(&arguments).expect("good arguments").config().await.expect("a configuration");
        assert_eq!(config.coordinator, "http://node-1:7733/");
        assert_eq!(config.devices.slots.len(), 3);
        assert_eq!(config.name.as_str(), "gpu-box");
        assert_eq!(config.cache, Path::new("/var/cache/x"));
        assert_eq!(config.timing.drain, Duration::from_secs(30));
    }

    #[test]
    fn wrong_flags_are_refused_with_what_they_take() {
        for (argument, said) in [
            ("--coordinator=node-1", "say http://HOST:PORT"),
            ("--ca-fingerprint=12", "64 hexadecimal digits"),
            ("--coordinator=ftp://node-1", "say http://HOST:PORT"),
            ("--slots=0", "1 to 1024"),
            ("--slots=1025", "1 to 1024"),
            ("--slots=two", "1 to 1024"),
            ("--device=gpu", "cuda:N"),
            ("--name=my worker", "not a usable name"),
            ("--drain-seconds=-1", "invalid"),
            ("--log-level=inof", "say error, warn"),
            ("--log-format=xml", "say text or json"),
        ] {
            let error = parse(&[argument]).expect_err(argument);
            assert_eq!(error.exit_code(), 2, "{argument}");
            assert!(error.to_string().contains(said), "{error} does not say {said:?}");
        }
    }

    #[test]
    fn the_cache_is_where_people_look_for_it() {
        let path = |text: &str| Some(PathBuf::from(text));
        for (xdg, home, expected) in [
            (path("/x"), path("/home/a"), PathBuf::from("/x/fittingroom")),
            (None, path("/home/a"), PathBuf::from("/home/a/.cache/fittingroom")),
            (path("relative"), path("/home/a"), PathBuf::from("/home/a/.cache/fittingroom")),
            (None, None, std::env::temp_dir().join("fittingroom")),
        ] {
            assert_eq!(default_cache(xdg, home), expected);
        }
    }

    #[test]
    fn the_machine_has_a_name() {
        assert!(!Name::sanitised(&host_name()).as_str().is_empty());
    }
}
