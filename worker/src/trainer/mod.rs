//! The trainer process: one per slot, kept alive from trial to trial, spoken to in the lines of
//! [`protocol`]. It knows nothing of coordinators.

mod checkpoints;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod job;
pub mod protocol;
mod wish;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use fittingroom_common::trial::{Failure, FailureReason};

use self::job::{Ended, Job, Memory};
use self::protocol::{Command, Event, VERSION};
use self::wish::{Wish, Wishes};
use crate::train::device::Opened;

/// Settings of `fittingroom-worker trainer`.
#[derive(Clone, Debug, clap::Args)]
pub struct TrainerArgs {
    /// Where to train: cpu, cuda:N, metal or auto
    #[arg(long, env = "FITTINGROOM_DEVICE", default_value = "auto")]
    pub device: crate::train::device::DeviceChoice,
}

/// Takes commands until the input ends, then calls `at_end` from the thread that reads it: a
/// process exits there, whatever it is doing. Should `at_end` return, the commands that came before
/// the end are still carried out.
///
/// An error is one of writing: nobody listens any more.
pub fn run(
    input: impl BufRead + Send,
    output: impl Write + Send,
    opened: &Opened,
    at_end: impl FnOnce() + Send,
) -> std::io::Result<()> {
    let lines = Lines(Mutex::new(output));
    let pending = Pending::default();
    lines.write(&Event::Ready { protocol: VERSION, device: opened.choice.to_string() })?;
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            read(input, &lines, &pending, sender);
            at_end();
        });
        let mut memory = Memory::default();
        for (job, wishes) in receiver {
            let id = job.id().to_owned();
            let ended = catch_unwind(AssertUnwindSafe(|| {
                job.run(&opened.device, &mut memory, &wishes, &mut |event| lines.write(&event))
            }));
            let ended = ended.unwrap_or_else(|panic| {
                let detail = format!("the trainer panicked: {}", panic_message(&*panic));
                Ok(Ended::Failed(Failure::new(FailureReason::TrainerCrashed, detail)))
            })?;
            pending.remove(&id);
            lines.write(&ended.event(id))?;
        }
        Ok(())
    })
}

/// Reads commands and passes jobs on; a stop takes effect here, while a job is running.
fn read<W: Write>(
    input: impl BufRead,
    lines: &Lines<W>,
    pending: &Pending,
    jobs: mpsc::Sender<(Job, Arc<Wishes>)>,
) {
    for line in input.lines() {
        let Ok(line) = line else { break };
        if line.trim().is_empty() {
            continue;
        }
        let job = match serde_json::from_str(&line) {
            Ok(Command::Train(command)) => Job::Train(command),
            Ok(Command::Evaluate { id, dataset, model_file }) => Job::Evaluate { id, dataset, model_file },
            Ok(Command::Stop { id }) => {
                pending.wish(&id, Wish::Stop);
                continue;
            }
            Ok(Command::Suspend { id }) => {
                pending.wish(&id, Wish::Suspend);
                continue;
            }
            Err(error) => {
                let detail = format!("not a command: {error}");
                let failure = Failure::new(FailureReason::TrainerCrashed, detail);
                if lines.write(&Ended::Failed(failure).event(String::new())).is_err() {
                    break;
                }
                continue;
            }
        };
        let wishes = pending.add(job.id());
        if jobs.send((job, wishes)).is_err() {
            break;
        }
    }
}

/// The output, one event a line, whole lines only.
struct Lines<W>(Mutex<W>);

impl<W: Write> Lines<W> {
    fn write(&self, event: &Event) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(&line)?;
        output.flush()
    }
}

/// The jobs that are queued or running, each with what is wished of it.
#[derive(Default)]
struct Pending(Mutex<HashMap<String, Arc<Wishes>>>);

impl Pending {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Wishes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: &str) -> Arc<Wishes> {
        let wishes = Arc::new(Wishes::default());
        self.all().insert(id.to_owned(), wishes.clone());
        wishes
    }

    fn wish(&self, id: &str, wish: Wish) {
        if let Some(wishes) = self.all().get(id) {
            wishes.set(wish);
        }
    }

    fn remove(&self, id: &str) {
        self.all().remove(id);
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else {
        "without a message"
    }
}

#[cfg(test)]
mod tests;
