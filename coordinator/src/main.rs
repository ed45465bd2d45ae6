//! The program `fittingroom`: parses its arguments, sets up its log, and runs a command.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use fittingroom_coordinator::cli::Cli;
use tracing_subscriber::EnvFilter;

// A call is many small allocations, most of them freed by another thread than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let default = if cli.is_server() { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("FITTINGROOM_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    cli.run().await
}
