//! Puts a load on a real coordinator, over real gRPC on loopback, and says what it held.
//!
//! ```text
//! cargo bench -p fittingroom-coordinator                            # throughput, then idle
//! cargo bench -p fittingroom-coordinator -- throughput --rate 1000
//! cargo bench -p fittingroom-coordinator -- million --trials 1000000
//! cargo bench -p fittingroom-coordinator -- idle --workers 5000
//! ```
//!
//! The coordinator is the program itself, in a process and a data folder of its own, with the options
//! that it has by default. The workers are simulated in this process: each has a connection of its own,
//! as real ones do (unless `--share` says otherwise), and leases, reports every epoch, uploads a model where one is asked for, completes,
//! and sends heartbeats. They do not train, so all the time is the coordinator's and theirs.

mod idle;
mod measure;
mod million;
mod server;
mod throughput;
mod worker;

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever went wrong, for the person at the terminal.
type Failure = Box<dyn Error + Send + Sync>;

/// Puts a load on a real coordinator, and says what it held.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Given by `cargo bench`.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// As many trials as it takes, then trials at a steady rate: latencies are those of the latter
    Throughput(throughput::Options),
    /// A search of a million trials, a kill, and a restart
    Million(million::Options),
    /// Workers that wait for work
    Idle(idle::Options),
}

/// Who puts the load on.
#[derive(Args, Clone, Copy, Debug)]
struct Crowd {
    /// Simulated workers of one slot
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    workers: u32,
    /// Workers of one connection. Real ones share none; sharing leaves more of the machine to the coordinator
    #[arg(long, default_value_t = 1, value_name = "WORKERS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    share: u32,
}

/// What every search under load is like.
#[derive(Args, Clone, Copy, Debug)]
struct Load {
    #[command(flatten)]
    crowd: Crowd,
    /// Epochs that each trial reports
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
}

fn main() -> ExitCode {
    let Arguments { mode, bench } = Arguments::parse();
    if mode.is_none() && !bench {
        say("run by `cargo bench`, or with a mode; see --help");
        return ExitCode::SUCCESS;
    }
    let measured = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(mode)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(mode: Option<Mode>) -> Result<(), Failure> {
    match mode {
        Some(Mode::Throughput(options)) => throughput::run(options).await,
        Some(Mode::Million(options)) => million::run(options).await,
        Some(Mode::Idle(options)) => idle::run(options).await,
        None => {
            let Defaults { throughput, idle } = Defaults::parse_from(["load"]);
            throughput::run(throughput).await?;
            idle::run(idle).await
        }
    }
}

/// Both modes of a bare `cargo bench`, with nothing said.
struct Defaults {
    throughput: throughput::Options,
    idle: idle::Options,
}

impl Defaults {
    fn parse_from<const N: usize>(program: [&str; N]) -> Self {
        #[derive(Parser)]
        struct Throughput {
            #[command(flatten)]
            options: throughput::Options,
        }
        #[derive(Parser)]
        struct Idle {
            #[command(flatten)]
            options: idle::Options,
        }
        Self { throughput: Throughput::parse_from(program).options, idle: Idle::parse_from(program).options }
    }
}

/// Prints a line.
fn say(line: &str) {
    use std::io::Write;
    // Whoever started this may not be reading.
    let _ = writeln!(std::io::stdout(), "{line}");
}
