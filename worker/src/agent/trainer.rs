//! The trainer process of a slot, as a typed handle: commands in, events out, and when it ends, why.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use fittingroom_common::access::TOKEN_VARIABLE;
use fittingroom_common::trial::{Failure, FailureReason};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use super::device::Device;
use super::memory::kills_for_memory;
use super::output::{Diagnostics, read_events, tells_of_refused_memory};
use crate::trainer::protocol::{Command, Event, VERSION};

/// How long a trainer may take to end once its output is closed, and to take in a command.
const PROMPTNESS: Duration = Duration::from_secs(5);

/// How trainers are started: a program, its arguments, and `--device` with the slot's device after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainerProgram {
    /// The program.
    pub program: PathBuf,
    /// What it is called with, before the device.
    pub arguments: Vec<OsString>,
}

impl TrainerProgram {
    /// This very program, as `trainer`.
    pub fn this_program() -> std::io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec!["trainer".into()] })
    }

    fn command(&self, device: Device) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg("--device")
            .arg(device.to_string())
            // One slot is one core: candle's own thread pools would only contend with the other slots.
            .env("RAYON_NUM_THREADS", "1")
            .env("CANDLE_NUM_THREADS", "1")
            .env("OMP_NUM_THREADS", "1")
            // Number GPUs as nvidia-smi does, with which they were counted.
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            // A trainer calls nobody, and needs no secret to do so.
            .env_remove(TOKEN_VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C on a terminal is for the agent, which gives the work back before its trainers end.
        #[cfg(unix)]
        command.process_group(0);
        command
    }
}

/// How a trainer process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With an exit status.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// By the system, which had run out of memory.
    KilledForMemory,
    /// Unknown: it had to be killed by the agent, or its status cannot be had.
    Unknown,
}

impl Exit {
    /// `kills`: how often the system had killed for memory when the trainer's last run began, and now.
    fn of(status: ExitStatus, kills: [Option<u64>; 2]) -> Self {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            // Who sent a SIGKILL is not told; but one at the time of such a kill is hardly another.
            return match (signal, kills) {
                (9, [Some(before), Some(now)]) if now > before => Self::KilledForMemory,
                _ => Self::Signal(signal),
            };
        }
        status.code().map_or(Self::Unknown, Self::Status)
    }

    /// Whether somebody asked it to end, as service managers do with all processes of a service at once.
    pub(crate) const fn was_asked_for(self) -> bool {
        matches!(self, Self::Signal(2 | 15))
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "ended with exit status {status}"),
            Self::Signal(9) => {
                f.write_str("was killed (SIGKILL), perhaps because the machine ran out of memory")
            }
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::KilledForMemory => f.write_str("was killed by the system, which had run out of memory"),
            Self::Unknown => f.write_str("stopped answering"),
        }
    }
}

/// Why a trainer is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrainerError {
    /// It cannot be started.
    #[error("the trainer {program:?} cannot be started: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended.
    #[error("the trainer {exit}{}", tail(.diagnostics))]
    Ended {
        /// How.
        exit: Exit,
        /// The last lines of its diagnostics.
        diagnostics: String,
    },
    /// It wrote something that is not an event, or not one that belongs here.
    #[error("the trainer wrote {line:?}: {problem}")]
    Garbled {
        /// The line, cut short.
        line: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It said nothing for too long.
    #[error("the trainer gave no sign of progress for {} s", .0.as_secs())]
    Silent(Duration),
}

fn tail(diagnostics: &str) -> String {
    if diagnostics.is_empty() { String::new() } else { format!("; its last lines were:\n{diagnostics}") }
}

impl From<&TrainerError> for Failure {
    fn from(error: &TrainerError) -> Self {
        let reason = match error {
            TrainerError::Silent(_) => FailureReason::Timeout,
            TrainerError::Ended { exit: Exit::KilledForMemory, .. } => FailureReason::OutOfMemory,
            // A bare SIGKILL can have other causes.
            TrainerError::Ended { diagnostics, .. } if tells_of_refused_memory(diagnostics) => {
                FailureReason::OutOfMemory
            }
            TrainerError::Ended { .. } | TrainerError::Start { .. } | TrainerError::Garbled { .. } => {
                FailureReason::TrainerCrashed
            }
        };
        Self::new(reason, error.to_string())
    }
}

/// A running trainer. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Trainer {
    child: Child,
    stdin: ChildStdin,
    events: mpsc::Receiver<Result<Event, TrainerError>>,
    diagnostics: Diagnostics,
    diagnostics_reader: JoinHandle<()>,
    /// How often the system had killed for memory when it was last given a command.
    kills_before: Option<u64>,
}

impl Trainer {
    /// Starts a trainer and waits until it is ready.
    pub(crate) async fn start(
        program: &TrainerProgram,
        device: Device,
        patience: Duration,
    ) -> Result<Self, TrainerError> {
        let failed = |source| TrainerError::Start { program: program.program.clone(), source };
        let mut child = program.command(device).spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
        };
        let (sender, events) = mpsc::channel(64);
        tokio::spawn(read_events(stdout, sender));
        let diagnostics = Diagnostics::default();
        let diagnostics_reader = tokio::spawn(diagnostics.clone().read(stderr));
        let kills_before = kills_for_memory();
        let mut trainer = Self { child, stdin, events, diagnostics, diagnostics_reader, kills_before };
        match trainer.next_event(patience).await? {
            Event::Ready { protocol, device } if protocol == VERSION => {
                debug!(pid = trainer.child.id(), device, "trainer ready");
                Ok(trainer)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives it a command.
    pub(crate) async fn send(&mut self, command: &Command) -> Result<(), TrainerError> {
        let mut line = serde_json::to_vec(command).map_err(|error| TrainerError::Garbled {
            line: format!("{command:?}"),
            problem: error.to_string(),
        })?;
        line.push(b'\n');
        self.kills_before = kills_for_memory();
        let write = async {
            self.stdin.write_all(&line).await?;
            self.stdin.flush().await
        };
        match timeout(PROMPTNESS, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.ended().await),
        }
    }

    /// The next thing that it says, within `patience`. Cancelling the call loses nothing.
    pub(crate) async fn next_event(&mut self, patience: Duration) -> Result<Event, TrainerError> {
        match timeout(patience, self.events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => Err(self.ended().await),
            Err(_) => Err(TrainerError::Silent(patience)),
        }
    }

    /// Ends a run with a command, and waits until it has nothing more to say about it; what it says is passed on.
    pub(crate) async fn end(
        &mut self,
        command: &Command,
        id: &str,
        patience: Duration,
        hear: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<(), TrainerError> {
        self.send(command).await?;
        let stopped = async {
            loop {
                let event = self.next_event(patience).await?;
                if run_of(&event) != Some(id) {
                    continue;
                }
                hear(&event);
                match event {
                    Event::Stopped { .. }
                    | Event::Finished { .. }
                    | Event::Evaluated { .. }
                    | Event::Refused { .. }
                    | Event::Unwritten { .. }
                    | Event::Failed { .. } => return Ok(()),
                    Event::Ready { .. }
                    | Event::Warned { .. }
                    | Event::Progress { .. }
                    | Event::Epoch { .. }
                    | Event::Checkpoint { .. } => {}
                }
            }
        };
        timeout(patience, stopped).await.unwrap_or(Err(TrainerError::Silent(patience)))
    }

    /// Lets it end by itself, as it does when its input closes; kills it if it does not.
    pub(crate) async fn close(self) {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        if timeout(Duration::from_secs(1), child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }

    /// Kills it, and waits until it is gone and has given back what it held.
    pub(crate) async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Why it ended, once its output is closed or it takes no more input.
    async fn ended(&mut self) -> TrainerError {
        let exit = match timeout(PROMPTNESS, self.child.wait()).await {
            Ok(Ok(status)) => Exit::of(status, [self.kills_before, kills_for_memory()]),
            Ok(Err(_)) => Exit::Unknown,
            Err(_) => {
                let _ = self.child.kill().await;
                Exit::Unknown
            }
        };
        // Its last words may still be on their way; a process that it left behind could hold them up for ever.
        let _ = timeout(Duration::from_secs(1), &mut self.diagnostics_reader).await;
        TrainerError::Ended { exit, diagnostics: self.diagnostics.last() }
    }
}

/// The run that an event is about.
pub(crate) fn run_of(event: &Event) -> Option<&str> {
    match event {
        Event::Ready { .. } => None,
        Event::Progress { id, .. }
        | Event::Epoch { id, .. }
        | Event::Finished { id, .. }
        | Event::Checkpoint { id, .. }
        | Event::Refused { id, .. }
        | Event::Warned { id, .. }
        | Event::Unwritten { id, .. }
        | Event::Evaluated { id, .. }
        | Event::Stopped { id }
        | Event::Failed { id, .. } => Some(id),
    }
}

/// The error for an event that has no place where it came.
pub(crate) fn unexpected(event: &Event) -> TrainerError {
    TrainerError::Garbled {
        line: serde_json::to_string(event).unwrap_or_default(),
        problem: "it does not belong here".to_owned(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn what_ended_a_trainer_is_told_from_its_status_its_last_words_and_the_systems_kills() {
        let (killed, aborted) = (ExitStatus::from_raw(9), ExitStatus::from_raw(6));
        let failed = ExitStatus::from_raw(4 << 8);
        for (name, status, kills, words, reason, said) in [
            ("killed", killed, [Some(2), Some(2)], "", FailureReason::TrainerCrashed, "SIGKILL"),
            ("killed, who knows", killed, [None, None], "", FailureReason::TrainerCrashed, "SIGKILL"),
            (
                "killed for memory",
                killed,
                [Some(2), Some(3)],
                "",
                FailureReason::OutOfMemory,
                "by the system",
            ),
            ("another was", aborted, [Some(2), Some(3)], "no", FailureReason::TrainerCrashed, "signal 6"),
            (
                "refused memory",
                aborted,
                [Some(2), Some(2)],
                "memory allocation of 8 bytes failed",
                FailureReason::OutOfMemory,
                "8 bytes",
            ),
            (
                "failed",
                failed,
                [None, None],
                "last",
                FailureReason::TrainerCrashed,
                "status 4; its last lines",
            ),
        ] {
            let exit = Exit::of(status, kills);
            let failure = Failure::from(&TrainerError::Ended { exit, diagnostics: words.to_owned() });
            assert_eq!(failure.reason, reason, "{name}");
            assert!(failure.detail.contains(said), "{name}: {}", failure.detail);
        }
    }
}
