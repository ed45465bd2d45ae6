//! `fittingroom workers`: who is connected, and how busy they are.

use clap::Args;
use fittingroom_common::view::WorkerRow;

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use super::{table, text};

/// Lists the connected workers.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom workers")]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(
    args: WorkersArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let workers = Client::connect(coordinator).await?.workers().await?;
    match args.json.form() {
        Form::Json => {
            output.json(&json::Workers { workers: workers.iter().map(json::Worker::from).collect() })
        }
        Form::Text => output.line(&render(&workers, output.width())),
    }
}

fn render(workers: &[WorkerRow], width: Option<u16>) -> String {
    if workers.is_empty() {
        return "no worker is connected; `fittingroom-worker run --coordinator URL` starts one".to_owned();
    }
    let columns = [
        table::words("worker"),
        table::numbers("busy"),
        table::words("state"),
        table::words("device"),
        table::words("version"),
        table::words("heard"),
    ];
    let rows = workers.iter().map(|worker| {
        let state = match (worker.draining, worker.busy) {
            (true, _) => "draining",
            (false, 0) => "idle",
            (false, _) => "working",
        };
        vec![
            worker.name.to_string(),
            format!("{}/{}", worker.busy, worker.slots),
            state.to_owned(),
            text::clean(&worker.device),
            text::clean(&worker.program_version),
            format!("{} ago", text::duration(worker.silent)),
        ]
    });
    table::lay_out(&columns, rows.collect(), width)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fittingroom_common::id::{Name, WorkerId};

    use super::*;

    #[test]
    fn each_worker_has_a_line() {
        let worker = |name: &str, busy, draining| WorkerRow {
            name: Name::sanitised(name),
            id: WorkerId::new(7),
            device: "cpu (2 cores)\u{1b}[31m".to_owned(),
            slots: 2,
            busy,
            program_version: "0.1.0".to_owned(),
            silent: Duration::from_millis(1_400),
            draining,
        };
        let workers = [worker("node-1", 1, false), worker("node-2", 0, false), worker("old", 2, true)];
        assert_eq!(
            render(&workers, None),
            "\
worker  busy  state     device             version  heard
───────────────────────────────────────────────────────────
node-1   1/2  working   cpu (2 cores)[31m  0.1.0    1s ago
node-2   0/2  idle      cpu (2 cores)[31m  0.1.0    1s ago
old      2/2  draining  cpu (2 cores)[31m  0.1.0    1s ago
"
        );
        assert!(render(&[], None).contains("fittingroom-worker run"));
    }
}
