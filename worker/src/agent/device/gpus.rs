//! Looks at the NVIDIA GPUs of this machine by other programs: opening one here would take some of its memory
//! away from the trainers, and a driver that hangs would take the agent along.

use std::io;
use std::ops::RangeInclusive;
use std::process::{Output, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::process::Command;
use tracing::warn;

use super::Device;

/// What each of two programs may take, one after the other. Without NVIDIA's persistence mode the driver first
/// makes every GPU ready, which takes seconds; systemd by default waits 90 seconds for a service to start.
const LONGEST: Duration = Duration::from_secs(40);

/// The NVIDIA GPUs of this machine.
#[derive(Debug, Default)]
pub(super) struct Gpus {
    /// As far as they are known, in the order in which trainers number them.
    pub(super) names: Vec<String>,
    /// Each that was tried, and why a trainer cannot open it.
    pub(super) tried: Vec<(usize, Result<(), String>)>,
}

impl Gpus {
    /// Tries all of them, or at least the first.
    pub(super) async fn all() -> Self {
        let names = names().await;
        let tried = try_each(0..=names.len().saturating_sub(1)).await;
        Self { names, tried }
    }

    /// Tries this one.
    pub(super) async fn one(number: usize) -> Self {
        Self { names: names().await, tried: try_each(number..=number).await }
    }
}

/// Opens each of these GPUs, all at the same time.
async fn try_each(numbers: RangeInclusive<usize>) -> Vec<(usize, Result<(), String>)> {
    join_all(numbers.map(|number| async move { (number, opened(Device::Cuda(number)).await) })).await
}

/// Whether a trainer can open the device: one is started, and has nothing to do.
async fn opened(device: Device) -> Result<(), String> {
    let trainer = match std::env::current_exe() {
        Ok(program) => {
            let mut trainer = Command::new(program);
            trainer.args(["trainer", "--device", &device.to_string()]);
            output(trainer, LONGEST).await
        }
        Err(error) => Err(error),
    };
    let problem = match trainer {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            match said.lines().rfind(|line| !line.trim().is_empty()) {
                Some(line) => return Err(line.strip_prefix("error: ").unwrap_or(line).to_owned()),
                None => format!("a trainer ended with {}", output.status),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            format!("it does not open in {} seconds", LONGEST.as_secs())
        }
        Err(error) => format!("no trainer can be started: {error}"),
    };
    Err(format!("{device} cannot be used: {problem}"))
}

/// The usable GPUs' names, as far as nvidia-smi tells.
async fn names() -> Vec<String> {
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=name", "--format=csv,noheader"]);
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        command.args(["-i", &visible]);
    }
    match output(command, LONGEST).await {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            warn!("nvidia-smi, which tells how many GPUs there are: {error}");
            Vec::new()
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// What a program says that is given nothing to read, if it ends in time. If not, it is killed, and nobody
/// waits until a driver lets go of it.
async fn output(mut command: Command, longest: Duration) -> io::Result<Output> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(longest, output).await.unwrap_or_else(|_| {
        let problem = format!("no answer in {} seconds", longest.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, problem))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_gives_no_answer_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = |seconds| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo here; echo $$ > id; exec sleep {seconds}")]);
            command.current_dir(&folder);
            command
        };
        let said = output(script("0"), Duration::from_secs(60)).await.expect("it ends");
        assert_eq!(said.stdout, b"here\n");

        let error = output(script("600"), Duration::from_secs(3)).await.expect_err("it does not end");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no answer in 3 seconds");
        let id = std::fs::read_to_string(folder.path().join("id")).expect("it started");
        let command = format!("/proc/{}/cmdline", id.trim());
        let is_killed = async {
            while std::fs::read_to_string(&command).unwrap_or_default().contains("sleep") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), is_killed).await.expect("it is killed");
    }
}
