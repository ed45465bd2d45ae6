//! A slot's place for a trainer: starts one, keeps it from attempt to attempt, replaces it when it is of no more use.

use std::time::Duration;

use fittingroom_common::work::SearchAttempt;
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::device::Device;
use super::timing::Timing;
use super::trainer::{Trainer, TrainerError, TrainerProgram};
use crate::trainer::protocol::{Command, Event};

/// The place, taken or empty.
#[derive(Debug)]
pub(crate) struct Seat {
    program: TrainerProgram,
    device: Device,
    timing: Timing,
    trainer: Option<Trainer>,
    /// Grows with each trainer that is lost, until one ends a run.
    backoff: Backoff,
    /// What to wait before the next start.
    wait: Duration,
    runs: u64,
}

impl Seat {
    /// An empty place for trainers of a device.
    pub(crate) const fn new(program: TrainerProgram, device: Device, timing: Timing) -> Self {
        let backoff = timing.backoff();
        Self { program, device, timing, trainer: None, backoff, wait: Duration::ZERO, runs: 0 }
    }

    /// A running trainer: the one that is there, or a new one.
    pub(crate) async fn trainer(&mut self) -> Result<&mut Trainer, TrainerError> {
        if let Some(trainer) = &mut self.trainer
            && !trainer.is_alive()
        {
            warn!(device = %self.device, "the idle trainer ended; starting another");
            self.discard().await;
        }
        if self.trainer.is_none() {
            tokio::time::sleep(self.wait).await;
            match Trainer::start(&self.program, self.device, self.timing.trainer_start).await {
                Ok(trainer) => self.trainer = Some(trainer),
                Err(error) => {
                    self.wait = self.backoff.next();
                    return Err(error);
                }
            }
        }
        let missing = self.missing();
        self.trainer.as_mut().ok_or(missing)
    }

    /// The next thing that the trainer says of its run.
    pub(crate) async fn next_event(&mut self) -> Result<Event, TrainerError> {
        match &mut self.trainer {
            Some(trainer) => trainer.next_event(self.timing.trainer_silence).await,
            None => Err(self.missing()),
        }
    }

    fn missing(&self) -> TrainerError {
        TrainerError::Start {
            program: self.program.program.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        }
    }

    /// Waits until there is a trainer, however often starting one fails. A slot without one takes
    /// no work, which could only fail there.
    pub(crate) async fn prepare(&mut self) {
        let device = self.device;
        let mut failed = false;
        while let Err(problem) = self.trainer().await {
            if !failed {
                error!(%device, %problem, "no trainer, so this slot takes no work; trying again");
            }
            failed = true;
        }
        if failed {
            info!(%device, "the trainer is ready at last");
        }
    }

    /// A name for the next run, unlike that of any run before it, so that late events are told apart.
    pub(crate) fn next_run(&mut self, id: SearchAttempt) -> String {
        self.runs += 1;
        format!("{}/{}#{}", id.search, id.attempt, self.runs)
    }

    /// Notes that the trainer ended a run as it should.
    pub(crate) const fn proved(&mut self) {
        self.backoff.reset();
        self.wait = Duration::ZERO;
    }

    /// Kills the trainer, if there is one.
    pub(crate) async fn discard(&mut self) {
        if let Some(trainer) = self.trainer.take() {
            trainer.kill().await;
        }
        self.wait = self.backoff.next();
    }

    /// Has the trainer end a run; one that does not obey is killed.
    pub(crate) async fn stop(&mut self, run: &str) {
        self.end(&Command::Stop { id: run.to_owned() }, run, &mut |_| ()).await;
    }

    /// Has the trainer end a run after a last checkpoint, and passes on what it says meanwhile; one
    /// that does not obey is killed.
    pub(crate) async fn suspend(&mut self, run: &str, hear: &mut (dyn FnMut(&Event) + Send)) {
        self.end(&Command::Suspend { id: run.to_owned() }, run, hear).await;
    }

    async fn end(&mut self, command: &Command, run: &str, hear: &mut (dyn FnMut(&Event) + Send)) {
        let Some(trainer) = &mut self.trainer else {
            return;
        };
        match trainer.end(command, run, self.timing.trainer_stop, hear).await {
            Ok(()) => self.proved(),
            Err(problem) => {
                warn!(device = %self.device, %problem, "the trainer does not stop; replacing it");
                self.discard().await;
            }
        }
    }

    /// Ends the trainer.
    pub(crate) async fn close(self) {
        if let Some(trainer) = self.trainer {
            trainer.close().await;
        }
    }
}
