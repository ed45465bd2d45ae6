//! The program `fittingroom`: parses its arguments, sets up its log, and runs a command.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fittingroom_coordinator::cli::Cli;

// A call is many small allocations, most of them freed by another thread than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long what is still going on may take once the command has ended. Whatever was acknowledged is durable by then.
const LEFTOVERS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.start_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the program cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli.run());
    runtime.shutdown_timeout(LEFTOVERS);
    code
}
