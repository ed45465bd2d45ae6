//! `fittingroom-worker`: parses the command line and calls the library; nothing else.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fittingroom_worker::allocator::keep_freed_memory;
use fittingroom_worker::check_command::{self, CheckArgs};
use fittingroom_worker::models_command::{self, ModelsArgs};
use fittingroom_worker::predict_command::{self, PredictArgs};
use fittingroom_worker::run_command::RunArguments;
use fittingroom_worker::train_command::{self, TrainArgs};
use fittingroom_worker::trainer::{self, TrainerArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fitting Room's worker: trains the trials of a coordinator, or a single one.
#[derive(Debug, Parser)]
#[command(name = "fittingroom-worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pull trials from a coordinator and train them
    Run(RunArguments),
    /// Train one trial, without a coordinator
    Train(TrainArgs),
    /// Compare a device with the CPU, and measure how fast it trains
    Check(CheckArgs),
    /// Show what models there are, their shapes, parameters and multiply-adds
    Models(ModelsArgs),
    /// Print the class that a saved model gives each test image
    Predict(PredictArgs),
    /// Train what an agent asks for on standard input
    #[command(hide = true)]
    Trainer(TrainerArgs),
}

fn main() -> ExitCode {
    train_on_one_thread();
    keep_freed_memory();
    match Cli::parse().command {
        Command::Run(arguments) => match arguments.execute() {
            Ok(code) => code,
            Err(error) => fail(&error, error.exit_code()),
        },
        Command::Train(args) => match train_command::run(&args, &mut io::stdout(), &mut io::stderr()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        Command::Check(args) => match check_command::run(&args, &mut io::stdout(), &mut io::stderr()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Command::Models(args) => match models_command::run(&args, &mut io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Command::Predict(args) => match predict_command::run(&args, &mut io::stdout(), &mut io::stderr()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Command::Trainer(args) => match args.device.open() {
            Ok(opened) => {
                let stdin = io::BufReader::new(io::stdin());
                match trainer::run(stdin, io::stdout(), &opened, || std::process::exit(0)) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => fail(&error, 1),
                }
            }
            // An agent reads it, and knows what a person asked for.
            Err(error) => fail(&error.problem, 1),
        },
    }
}

/// Keeps candle from spreading small operations over all cores: each slot has a core of its own,
/// and threads that wait for one another are slower than one that does not.
fn train_on_one_thread() {
    for name in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        // SAFETY: this is the first thing that the process does; there is no other thread yet that
        // could read the environment.
        unsafe { std::env::set_var(name, "1") };
    }
}

fn fail(error: &dyn Display, code: u8) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(code)
}
