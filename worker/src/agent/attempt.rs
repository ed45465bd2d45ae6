//! Runs one attempt on a slot's trainer, from its dataset to its outcome.
//!
//! ```text
//! fetch files ─► trainer works, epochs reported on the side ─► last report answered ─► upload, if asked for ─► outcome
//!      └───────────────────────┴─────────► dropped, or given back ◄──────┘
//! ```
//!
//! Where there are checkpoints, the trainer goes on from the newest that can be used, and those that
//! it makes are brought to the coordinator on the side. What this machine's disk does not take is no fault
//! of the trial's, which is given back.

use std::time::Duration;

use fittingroom_common::checkpoint::CheckpointPlace;
use fittingroom_common::trial::{Failure, FailureReason, Score};
use fittingroom_common::work::{Assignment, Outcome, Work};
use tracing::{debug, info, warn};

use super::held::Hold;
use super::keeper::Keeper;
use super::provision::{LEAST_ROOM, lose, without};
use super::report::{Reporter, Verdict};
use super::seat::Seat;
use super::session::CallError;
use super::trainer::{TrainerError, run_of, unexpected};
use super::upload::{UploadError, upload};
use super::words::{self, Files};
use super::{AgentError, Shared};
use crate::trainer::protocol::{Command, Event, TrainCommand};

/// How far the signals to the agent and to its trainer may be apart when both are told to end.
const SIGNAL_SKEW: Duration = Duration::from_secs(1);

/// How running an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// With an outcome to tell.
    Complete(Outcome),
    /// The attempt is this worker's no more, or the agent has no time left for it.
    Drop,
    /// This machine's disk does not take what the attempt needs: so many bytes at least.
    NoRoom { problem: String, bytes: u64 },
}

impl End {
    pub(crate) fn failed(reason: FailureReason, detail: impl Into<String>) -> Self {
        Self::Complete(Outcome::Failed(Failure::new(reason, detail)))
    }
}

/// How the trainer's part of an attempt ended.
enum Driven {
    /// With a model, in the file it was told.
    Model,
    /// With a model's score on the test set.
    Score(Score),
    /// Because of the checkpoint that it was to go on from.
    Refused(String),
    /// With a model that the disk does not take.
    Unwritten { problem: String, bytes: u64 },
    /// Without a result.
    Failed(Failure),
    /// The trainer broke.
    Broken(TrainerError),
    /// The trainer is to be stopped.
    Interrupted(End),
}

/// One attempt while it runs.
pub(crate) struct Run<'a> {
    /// What all slots share.
    pub(crate) shared: &'a Shared,
    /// Where it runs.
    pub(crate) seat: &'a mut Seat,
    /// The attempt, as heartbeats see it.
    pub(crate) hold: &'a Hold,
}

impl Run<'_> {
    /// Runs the attempt to its end.
    pub(crate) async fn run(mut self, assignment: &Assignment) -> Result<End, AgentError> {
        let files = tokio::select! {
            files = self.fetch(assignment) => files,
            end = interrupted(self.shared, self.hold) => return Ok(end),
        };
        let files = match files {
            Ok(files) => files,
            Err(error) => return Ok(without(&error)),
        };
        let (session, id, work) = (&self.shared.session, self.hold.id, &assignment.work);
        let mut candidates = words::checkpoints(work);
        let mut reporter = Reporter::start(session.clone(), id, words::length(work), candidates);
        let mut keeper = Keeper::start(session.clone(), id, reporter.answered());
        let (run, driven) = loop {
            let from = tokio::select! {
                biased;
                end = interrupted(self.shared, self.hold) => return Ok(end),
                from = self.resume_from(&mut candidates, &files, &mut reporter) => from,
            };
            let from = match from {
                Ok(from) => from,
                Err(error) => return Ok(without(&error)),
            };
            let run = self.seat.next_run(id);
            let command = words::command(&run, work, &files, from);
            match self.drive(&run, &command, &mut reporter, &keeper).await? {
                Driven::Refused(problem) if !candidates.is_empty() => {
                    lose(&mut candidates, &problem, &mut reporter);
                }
                driven => break (run, driven),
            }
        };
        // Reports go before the outcome, whatever it is, so that no epoch is lost.
        match driven {
            Driven::Refused(problem) => Ok(End::failed(FailureReason::TrainerCrashed, problem)),
            Driven::Score(score) => Ok(End::Complete(Outcome::Evaluated(score))),
            Driven::Model => match self.settle(reporter).await? {
                Settled::Drop => Ok(End::Drop),
                Settled::Refused(why) => Ok(refused(&why)),
                Settled::Discard => Ok(End::Complete(Outcome::Trained { model: None })),
                Settled::Keep => self.keep(&files).await,
            },
            Driven::Failed(failure) => match self.settle(reporter).await? {
                Settled::Drop => Ok(End::Drop),
                Settled::Refused(_) | Settled::Discard | Settled::Keep => {
                    Ok(End::Complete(Outcome::Failed(failure)))
                }
            },
            Driven::Interrupted(End::Complete(Outcome::Released)) if makes_checkpoints(work) => {
                self.suspend(&run, &mut reporter, &mut keeper).await;
                Ok(End::Complete(Outcome::Released))
            }
            Driven::Interrupted(end) => {
                self.seat.stop(&run).await;
                Ok(end)
            }
            Driven::Broken(error) => {
                self.seat.discard().await;
                if self.was_asked_to_end(&error).await {
                    return Ok(End::Complete(Outcome::Released));
                }
                warn!(%error, "trainer lost");
                let failure = Failure::from(&error);
                self.leave(&mut keeper).await;
                match self.settle(reporter).await? {
                    Settled::Drop => Ok(End::Drop),
                    Settled::Refused(_) | Settled::Discard | Settled::Keep => {
                        Ok(End::Complete(Outcome::Failed(failure)))
                    }
                }
            }
            Driven::Unwritten { problem, bytes } => {
                self.leave(&mut keeper).await;
                match self.settle(reporter).await? {
                    Settled::Drop => Ok(End::Drop),
                    Settled::Refused(_) | Settled::Discard | Settled::Keep => {
                        Ok(End::NoRoom { problem, bytes: bytes.max(LEAST_ROOM) })
                    }
                }
            }
        }
    }

    /// Brings what the trainer wrote to the coordinator: the next attempt goes on from it.
    async fn leave(&self, keeper: &mut Keeper) {
        tokio::select! {
            biased;
            _ = interrupted(self.shared, self.hold) => {}
            () = keeper.finish() => {}
        }
    }

    /// Has the trainer make a last checkpoint and stop, and brings that to the coordinator, if there is time.
    async fn suspend(&mut self, run: &str, reporter: &mut Reporter, keeper: &mut Keeper) {
        let mut hear = |event: &Event| match event {
            Event::Epoch { metrics, .. } => {
                // One that cannot be reported is trained again.
                let _ = metrics.report().map(|report| reporter.report(report));
            }
            Event::Checkpoint { file, epoch, step, .. } => {
                keeper.take(file.clone(), CheckpointPlace { epoch: *epoch, step: *step });
            }
            Event::Warned { problem, .. } => warn!(problem, "the last checkpoint is not written"),
            Event::Ready { .. }
            | Event::Progress { .. }
            | Event::Refused { .. }
            | Event::Unwritten { .. }
            | Event::Finished { .. }
            | Event::Evaluated { .. }
            | Event::Stopped { .. }
            | Event::Failed { .. } => {}
        };
        self.seat.suspend(run, &mut hear).await;
        tokio::select! {
            biased;
            () = self.hold.dropped() => {}
            brought = tokio::time::timeout(self.shared.timing.farewell / 4, keeper.finish()) => {
                if brought.is_err() {
                    warn!("there is no time for the last checkpoint; the one before counts");
                }
            }
        }
    }

    /// Has the trainer do the work, and passes on what it says.
    async fn drive(
        &mut self,
        run: &str,
        command: &Command,
        reporter: &mut Reporter,
        keeper: &Keeper,
    ) -> Result<Driven, AgentError> {
        let trainer = tokio::select! {
            biased;
            end = interrupted(self.shared, self.hold) => return Ok(Driven::Interrupted(end)),
            trainer = self.seat.trainer() => trainer,
        };
        match trainer {
            Ok(trainer) => {
                if let Err(error) = trainer.send(command).await {
                    return Ok(Driven::Broken(error));
                }
            }
            Err(error) => return Ok(Driven::Broken(error)),
        }
        loop {
            let event = tokio::select! {
                biased;
                end = interrupted(self.shared, self.hold) => return Ok(Driven::Interrupted(end)),
                // Before the queue is closed, there is only bad news of the reports.
                verdict = reporter.verdict() => return verdict.map(|verdict| Driven::Interrupted(match verdict {
                    Verdict::Refused(why) => refused(&why),
                    Verdict::Drop | Verdict::Answered { .. } => End::Drop,
                })),
                event = self.seat.next_event() => event,
            };
            let event = match event {
                Ok(event) if run_of(&event) == Some(run) => event,
                // A line that it could not read: it cannot say which.
                Ok(event) if run_of(&event) == Some("") => return Ok(Driven::Broken(unexpected(&event))),
                // Left over from the run before.
                Ok(_) => continue,
                Err(error) => return Ok(Driven::Broken(error)),
            };
            if let Some(end) = self.take(&event, command, reporter, keeper) {
                return Ok(end);
            }
        }
    }

    /// Passes on one event; `Some` if it is the last.
    fn take(
        &mut self,
        event: &Event,
        command: &Command,
        reporter: &mut Reporter,
        keeper: &Keeper,
    ) -> Option<Driven> {
        let end = match (event, command) {
            (Event::Progress { epoch, step, steps, .. }, _) => {
                debug!(epoch, step, steps, "training moves");
                if let Some(progress) = words::progress(*epoch, *step, *steps) {
                    self.hold.progress(progress);
                }
                return None;
            }
            (Event::Epoch { metrics, .. }, _) => match metrics.report() {
                Some(report) if reporter.report(report).is_ok() => return None,
                Some(_) | None => Driven::Broken(unexpected(event)),
            },
            (Event::Checkpoint { file, epoch, step, .. }, Command::Train(_)) => {
                keeper.take(file.clone(), CheckpointPlace { epoch: *epoch, step: *step });
                return None;
            }
            (Event::Warned { problem, .. }, Command::Train(_)) => {
                warn!(problem, "training goes on without a checkpoint");
                return None;
            }
            (Event::Unwritten { problem, bytes, .. }, Command::Train(_)) if reporter.may_end() => {
                Driven::Unwritten { problem: problem.clone(), bytes: *bytes }
            }
            (Event::Refused { problem, .. }, Command::Train(TrainCommand { resume_from: Some(_), .. })) => {
                Driven::Refused(problem.clone())
            }
            (Event::Finished { .. }, Command::Train(_)) if reporter.may_end() => Driven::Model,
            (Event::Evaluated { loss, accuracy, .. }, Command::Evaluate { .. }) => {
                match words::score(*loss, *accuracy) {
                    Some(score) => Driven::Score(score),
                    None => Driven::Broken(unexpected(event)),
                }
            }
            (Event::Failed { reason, detail, .. }, _) => {
                Driven::Failed(Failure::new(*reason, detail.as_str()))
            }
            (
                Event::Ready { .. }
                | Event::Checkpoint { .. }
                | Event::Refused { .. }
                | Event::Warned { .. }
                | Event::Unwritten { .. }
                | Event::Finished { .. }
                | Event::Evaluated { .. }
                | Event::Stopped { .. },
                _,
            ) => Driven::Broken(unexpected(event)),
        };
        if !matches!(end, Driven::Broken(_)) {
            self.seat.proved();
        }
        Some(end)
    }

    /// Waits until every report is answered.
    async fn settle(&self, mut reporter: Reporter) -> Result<Settled, AgentError> {
        reporter.close();
        let verdict = tokio::select! {
            biased;
            () = self.hold.dropped() => return Ok(Settled::Drop),
            verdict = reporter.verdict() => verdict?,
        };
        Ok(match verdict {
            Verdict::Drop => Settled::Drop,
            Verdict::Refused(why) => Settled::Refused(why),
            Verdict::Answered { keep_model: true } => Settled::Keep,
            Verdict::Answered { keep_model: false } => Settled::Discard,
        })
    }

    /// Uploads the trained model.
    async fn keep(&self, files: &Files) -> Result<End, AgentError> {
        let stored = tokio::select! {
            biased;
            () = self.hold.dropped() => return Ok(End::Drop),
            stored = upload(&self.shared.session, &files.model) => stored,
        };
        match stored {
            Ok(hash) => {
                info!(%hash, "model uploaded");
                Ok(End::Complete(Outcome::Trained { model: Some(hash) }))
            }
            Err(UploadError::Call(CallError::Superseded | CallError::GaveUp)) => Ok(End::Drop),
            Err(UploadError::Call(CallError::Fatal(error))) => Err(error),
            Err(error) => Ok(End::failed(
                FailureReason::TrainerCrashed,
                format!("the trained model cannot be stored: {error}"),
            )),
        }
    }

    /// Whether the trainer ended because this worker is told to end.
    async fn was_asked_to_end(&self, error: &TrainerError) -> bool {
        let drain = &self.shared.ending.drain;
        matches!(error, TrainerError::Ended { exit, .. } if exit.was_asked_for())
            && tokio::time::timeout(SIGNAL_SKEW, drain.cancelled()).await.is_ok()
    }
}

/// Waits until an attempt must not go on here.
async fn interrupted(shared: &Shared, hold: &Hold) -> End {
    tokio::select! {
        biased;
        () = hold.dropped() => End::Drop,
        () = shared.ending.release.cancelled() => End::Complete(Outcome::Released),
    }
}

fn makes_checkpoints(work: &Work) -> bool {
    matches!(work, Work::Train { checkpoint, .. } if checkpoint.makes_some())
}

/// What the reports came to.
enum Settled {
    Drop,
    Refused(String),
    Discard,
    Keep,
}

fn refused(why: &str) -> End {
    End::failed(
        FailureReason::TrainerCrashed,
        format!("the coordinator does not take the trainer's report: {why}"),
    )
}
