//! `fittingroom workers`: who is connected, and how busy they are.

use clap::Args;
use fittingroom_common::gpu::{GpuLoad, GpuMemory, Utilization};
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
    let mut columns = vec![
        table::words("worker"),
        table::numbers("busy"),
        table::words("state"),
        table::words("device"),
        table::words("version"),
        table::words("heard"),
    ];
    let has_gpus = workers.iter().any(|worker| !worker.gpus.is_empty());
    if has_gpus {
        columns.extend([table::words("gpu"), table::numbers("load"), table::numbers("memory")]);
    }
    let rows = workers.iter().flat_map(|worker| {
        let state = match (worker.draining, worker.busy) {
            (true, _) => "draining",
            (false, 0) => "idle",
            (false, _) => "working",
        };
        let own = [
            worker.name.to_string(),
            format!("{}/{}", worker.busy, worker.slots),
            state.to_owned(),
            text::clean(&worker.device),
            text::clean(&worker.program_version),
            format!("{} ago", text::duration(worker.silent)),
        ];
        // A line for each GPU; the worker's own cells are in the first.
        let lines = if has_gpus { worker.gpus.len().max(1) } else { 1 };
        (0..lines).map(move |line| {
            let own = own.each_ref().map(|cell| if line == 0 { cell.clone() } else { String::new() });
            let gpu = has_gpus.then(|| worker.gpus.get(line).map(gpu_cells).unwrap_or_default());
            own.into_iter().chain(gpu.into_iter().flatten()).collect()
        })
    });
    table::lay_out(&columns, rows.collect(), width)
}

/// Which GPU, how busy, and how full; what its driver does not tell is a dash.
fn gpu_cells(gpu: &GpuLoad) -> [String; 3] {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let busy = |share: Utilization| format!("{:.0} %", share.get() * 100.0);
    let memory = |it: GpuMemory| format!("{:.1}/{:.0} GiB", gib(it.used()), gib(it.total()));
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
    [format!("cuda:{}", gpu.number), or_dash(gpu.utilization.map(busy)), or_dash(gpu.memory.map(memory))]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fittingroom_common::gpu::GpuWords;
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
            gpus: Vec::new(),
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

        let gpu = |number, share, memory| GpuLoad {
            number,
            uuid: GpuWords::sanitised("GPU-815"),
            name: GpuWords::sanitised("NVIDIA H100"),
            utilization: share,
            memory,
        };
        let used = GpuMemory::new(12 << 30, 80 << 30);
        let gpus = vec![gpu(0, Utilization::new(0.374), used), gpu(3, None, None)];
        let [first, second, third] = workers;
        let workers =
            [WorkerRow { gpus, ..first }, second, WorkerRow { gpus: vec![gpu(1, None, used)], ..third }];
        assert_eq!(
            render(&workers, None),
            "\
worker  busy  state     device             version  heard   gpu     load       memory
──────────────────────────────────────────────────────────────────────────────────────
node-1   1/2  working   cpu (2 cores)[31m  0.1.0    1s ago  cuda:0  37 %  12.0/80 GiB
                                                            cuda:3     –            –
node-2   0/2  idle      cpu (2 cores)[31m  0.1.0    1s ago
old      2/2  draining  cpu (2 cores)[31m  0.1.0    1s ago  cuda:1     –  12.0/80 GiB
"
        );
    }
}
