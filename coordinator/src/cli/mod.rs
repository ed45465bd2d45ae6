//! The command line `fittingroom`: one file a command, and what they share.
//!
//! Commands parse their arguments, talk to the coordinator through `client`, and show views; what
//! is shown is made by pure functions. Nothing here knows how the coordinator keeps its searches.

mod backup;
mod best;
mod certs;
mod check;
mod client;
mod control;
mod dataset;
mod error;
mod export;
mod file;
mod flags;
mod follow;
mod interrupt;
mod json;
mod launch;
mod leaderboard;
mod list;
mod output;
mod restore;
pub(crate) mod safetensors;
#[cfg(test)]
mod samples;
mod serve;
mod table;
mod text;
mod token;
mod transfer;
mod trial;
mod watch;
mod workers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fittingroom_common::operator::Action;

use client::Coordinator;
pub use client::{CoordinatorUrl, UrlError};
use error::CliError;
use flags::{AccessFlags, LogFlags};
use interrupt::Interrupt;
use output::{Output, notice};
use tracing::Level;

/// Where a coordinator listens unless it is told otherwise.
const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7733";

/// Fitting Room: a hyperparameter search over any number of machines. Try every fit, keep the best.
#[derive(Debug, Parser)]
#[command(
    name = "fittingroom",
    version,
    arg_required_else_help = true,
    after_help = "\
A first search, each line in a terminal of its own:
  fittingroom serve --data ./fittingroom-data
  fittingroom-worker run
  fittingroom launch deploy/searches/quickstart.yaml --follow

Exit codes: 0 done, 1 the operation failed, 2 wrong usage or a bad search file."
)]
pub struct Cli {
    /// Where the coordinator listens
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "FITTINGROOM_COORDINATOR",
        default_value = DEFAULT_COORDINATOR
    )]
    coordinator: CoordinatorUrl,
    #[command(flatten)]
    access: AccessFlags,
    #[command(flatten)]
    log: LogFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Launch(launch::LaunchArgs),
    List(list::ListArgs),
    Leaderboard(leaderboard::LeaderboardArgs),
    Trial(trial::TrialArgs),
    /// Starts no new trials of a search until it is resumed; running ones go on
    #[command(after_help = "Example:\n  fittingroom pause quickstart")]
    Pause(control::ControlArgs),
    /// Starts new trials of a paused search again
    #[command(after_help = "Example:\n  fittingroom resume quickstart")]
    Resume(control::ControlArgs),
    /// Starts no new trials of a search any more, and lets running ones finish
    #[command(after_help = "Example:\n  fittingroom stop quickstart")]
    Stop(control::ControlArgs),
    /// Ends a search now and drops what runs; finished trials stay on its leaderboard
    #[command(after_help = "Example:\n  fittingroom cancel quickstart")]
    Cancel(control::ControlArgs),
    Workers(workers::WorkersArgs),
    Best(best::BestArgs),
    Export(export::ExportArgs),
    Dataset(dataset::DatasetArgs),
    Certs(certs::CertsArgs),
    Token(token::TokenArgs),
    Check(check::CheckArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
}

impl Cli {
    /// Starts the log of this process as the flags say. The coordinator itself tells what it does;
    /// other commands tell what goes wrong.
    pub fn start_log(&self) {
        let is_server = matches!(self.command, Command::Serve(_));
        self.log.start(if is_server { Level::INFO } else { Level::WARN });
    }

    /// Runs the command, says what went wrong, and gives the exit code.
    pub async fn run(self) -> ExitCode {
        match self.dispatch().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = error.exit_code();
                if code != 0 {
                    notice(&error.for_people());
                }
                ExitCode::from(code)
            }
        }
    }

    async fn dispatch(self) -> Result<(), CliError> {
        let output = &mut Output::stdout();
        // These work on the coordinator's data folder and call nobody.
        let command = match self.command {
            Command::Serve(args) => return serve::run(args).await,
            Command::Certs(args) => return certs::run(args, output),
            Command::Token(args) => return token::run(args, &self.coordinator, output),
            Command::Restore(args) => return interruptible(restore::run(args, output)).await,
            command => command,
        };
        let coordinator = &Coordinator { url: self.coordinator, access: self.access.read()? };
        match command {
            Command::Serve(_) | Command::Certs(_) | Command::Token(_) | Command::Restore(_) => Ok(()),
            // Both may follow, and then hear Ctrl-C themselves.
            Command::Launch(args) => launch::run(args, coordinator, output).await,
            Command::Leaderboard(args) => leaderboard::run(args, coordinator, output).await,
            // These write files, and leave no half of one behind.
            Command::Best(args) => interruptible(best::run(args, coordinator, output)).await,
            Command::Export(args) => interruptible(export::run(args, coordinator, output)).await,
            Command::Backup(args) => interruptible(backup::run(args, coordinator, output)).await,
            Command::List(args) => list::run(args, coordinator, output).await,
            Command::Trial(args) => trial::run(args, coordinator, output).await,
            Command::Pause(args) => control::run(Action::Pause, args, coordinator, output).await,
            Command::Resume(args) => control::run(Action::Resume, args, coordinator, output).await,
            Command::Stop(args) => control::run(Action::Stop, args, coordinator, output).await,
            Command::Cancel(args) => control::run(Action::Cancel, args, coordinator, output).await,
            Command::Workers(args) => workers::run(args, coordinator, output).await,
            Command::Dataset(args) => dataset::run(args, coordinator, output).await,
            Command::Check(args) => check::run(args, output).await,
        }
    }
}

/// Drops a command at Ctrl-C, and with it the temporary files that it has open.
async fn interruptible(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let mut interrupt = Interrupt::listen().map_err(CliError::Signals)?;
    tokio::select! {
        done = command => done,
        () = interrupt.heard() => Err(CliError::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_fixed_forms_are_understood() {
        for line in [
            "fittingroom serve --data d",
            "fittingroom serve --data d --listen 127.0.0.1:0",
            "fittingroom list --coordinator http://node:7733",
            "fittingroom --coordinator node:7733 list --json",
            "fittingroom launch f.yaml --name n --follow --json",
            "fittingroom launch f.yaml --dry-run --show 3 --json",
            "fittingroom leaderboard n --top 5 --follow --json",
            "fittingroom trial n 7 --json",
            "fittingroom workers --json",
            "fittingroom pause n",
            "fittingroom resume n",
            "fittingroom stop n",
            "fittingroom cancel n --json",
            "fittingroom best n --out d --json",
            "fittingroom export n --format csv --epochs --out -",
            "fittingroom export n --format json --out f",
            "fittingroom dataset fetch fashion-mnist",
            "fittingroom dataset fetch digits --from d",
            "fittingroom dataset list --json",
            "fittingroom list --coordinator https://node:7733 --token-file t --ca ca.pem",
            "fittingroom serve --data d --tls-cert c --tls-key k --max-connections 100",
            "fittingroom certs --data d --name node-1 --name 10.0.0.1 --renew --json",
            "fittingroom token create --role worker --name gpu-box --data d --out f --json",
            "fittingroom token list --data d --json",
            "fittingroom token revoke gpu-box --data d",
            "fittingroom check --data d --json",
            "fittingroom serve --data d --metrics-listen 127.0.0.1:9464",
            "fittingroom serve --data d --log-level debug --log-format json",
            "fittingroom --log-level warn,h2=off list",
            "fittingroom backup f --no-artifacts --json",
            "fittingroom restore f --data d --artifacts s3://b/p --json",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "fittingroom",
            "fittingroom lunch f.yaml",
            "fittingroom launch",
            "fittingroom launch f.yaml --show 3",
            "fittingroom launch f.yaml --dry-run --follow",
            "fittingroom launch f.yaml --name ../x",
            "fittingroom leaderboard",
            "fittingroom leaderboard n --top 0",
            "fittingroom trial n seven",
            "fittingroom trial n -1",
            "fittingroom best n",
            "fittingroom export n --out f",
            "fittingroom export n --format xml --out f",
            "fittingroom check",
            "fittingroom serve",
            "fittingroom serve --data d --listen nowhere",
            "fittingroom serve --data d --lease-seconds 0",
            "fittingroom list --coordinator ftp://node",
            "fittingroom list --ca-fingerprint 12",
            "fittingroom list --ca a --ca-fingerprint e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "fittingroom serve --data d --tls-cert c",
            "fittingroom serve --data d --max-connections 0",
            "fittingroom certs",
            "fittingroom certs --data d --name not/a/name",
            "fittingroom token create --data d",
            "fittingroom token create --data d --role king",
            "fittingroom token revoke --data d",
            "fittingroom serve --data d --metrics-listen 9464",
            "fittingroom list --log-level inof",
            "fittingroom list --log-format xml",
            "fittingroom backup",
            "fittingroom restore f",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("{line} was accepted"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        let mut cli = Cli::command();
        cli.build();
        let mut commands: Vec<&mut clap::Command> = cli.get_subcommands_mut().collect();
        while let Some(command) = commands.pop() {
            if command.get_name() == "help" {
                continue;
            }
            if !command.has_subcommands() {
                let help = command.render_help().to_string();
                assert!(help.contains("Example:\n"), "{help}");
            }
            commands.extend(command.get_subcommands_mut());
        }
    }

    #[test]
    fn every_flag_has_its_variable() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                if argument.is_positional() || ["help", "version"].contains(&name) {
                    continue;
                }
                let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                assert!(
                    variable.is_some_and(|name| name.starts_with("FITTINGROOM_")),
                    "--{name} of {} has no variable",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for (line, kind) in [
            ("fittingroom --help", ErrorKind::DisplayHelp),
            ("fittingroom launch --help", ErrorKind::DisplayHelp),
            ("fittingroom --version", ErrorKind::DisplayVersion),
        ] {
            let shown = parse(line).expect_err("shown, not run");
            assert_eq!((shown.kind(), shown.exit_code()), (kind, 0), "{line}");
        }
    }
}
