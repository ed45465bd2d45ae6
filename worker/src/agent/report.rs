//! Sends the epochs of one attempt, and before them the checkpoints that it could not go on from, in
//! order, each until it is answered, while training goes on.

use std::sync::Arc;

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::length::TrainingLength;
use fittingroom_common::trial::{Failure, Report};
use fittingroom_common::work::{Directive, SearchAttempt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::session::{CallError, Session};
use super::{AgentError, cut};

/// What the coordinator made of an attempt's reports.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// All of them are answered.
    Answered {
        /// Whether the last answer asks for the model.
        keep_model: bool,
    },
    /// The work is to be dropped.
    Drop,
    /// A report is refused, and will be refused again.
    Refused(String),
}

/// More epochs came than the attempt has.
#[derive(Debug, thiserror::Error)]
#[error("the trainer reports more than the {epochs} epochs that it was asked for")]
pub(crate) struct TooManyEpochs {
    epochs: u32,
}

/// What the coordinator is told.
#[derive(Debug)]
enum Told {
    Epoch(Report),
    /// The attempt begins after this epoch instead.
    Lost {
        hash: ArtifactHash,
        problem: String,
        epoch: u32,
    },
}

/// The queue of one attempt's reports. Dropping it drops what is not sent.
#[derive(Debug)]
pub(crate) struct Reporter {
    queue: Option<mpsc::Sender<Told>>,
    length: TrainingLength,
    /// The newest epoch in the queue, or the one that the attempt begins after.
    queued: u32,
    answered: watch::Receiver<u32>,
    task: JoinHandle<Result<Verdict, AgentError>>,
}

impl Reporter {
    /// A queue for as many reports as the attempt has epochs, and as many checkpoints as it may go
    /// on from, so that it is never full.
    pub(crate) fn start(
        session: Arc<Session>,
        id: SearchAttempt,
        length: TrainingLength,
        checkpoints: &[Checkpoint],
    ) -> Self {
        let (queue, told) = mpsc::channel((length.epochs.max(1) as usize).saturating_add(checkpoints.len()));
        let begun_after = checkpoints.first().map_or(0, |newest| newest.place.epoch);
        let (answers, answered) = watch::channel(begun_after);
        let task = tokio::spawn(send(session, id, told, answers).in_current_span());
        Self { queue: Some(queue), length, queued: begun_after, answered, task }
    }

    /// The newest epoch that the coordinator knows of, until there is a verdict.
    pub(crate) fn answered(&self) -> watch::Receiver<u32> {
        self.answered.clone()
    }

    /// Queues that a checkpoint is lost. The attempt begins after `epoch` now.
    pub(crate) fn lose(&mut self, hash: ArtifactHash, problem: &str, epoch: u32) {
        let problem = cut(problem.to_owned(), Failure::MAX_DETAIL);
        self.queued = epoch;
        if let Some(queue) = &self.queue {
            // A closed queue means that the verdict is already known, and waits to be looked at.
            let _ = queue.try_send(Told::Lost { hash, problem, epoch });
        }
    }

    /// Queues a report; it never waits.
    pub(crate) fn report(&mut self, report: Report) -> Result<(), TooManyEpochs> {
        if self.queued == self.length.epochs {
            return Err(TooManyEpochs { epochs: self.length.epochs });
        }
        self.queued += 1;
        if let Some(queue) = &self.queue {
            // A closed queue means that the verdict is already known, and waits to be looked at.
            let _ = queue.try_send(Told::Epoch(report));
        }
        Ok(())
    }

    /// Whether the attempt may end with what was queued.
    pub(crate) const fn may_end(&self) -> bool {
        self.length.may_end_after(self.queued)
    }

    /// Waits for a verdict. Before [`close`](Self::close) there is only a bad one.
    pub(crate) async fn verdict(&mut self) -> Result<Verdict, AgentError> {
        (&mut self.task).await?
    }

    /// No more reports will come.
    pub(crate) fn close(&mut self) {
        self.queue = None;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(
    session: Arc<Session>,
    id: SearchAttempt,
    mut queue: mpsc::Receiver<Told>,
    answers: watch::Sender<u32>,
) -> Result<Verdict, AgentError> {
    let mut keep_model = false;
    while let Some(told) = queue.recv().await {
        let (what, answer) = match told {
            Told::Epoch(report) => {
                let answer = session.report(id, report).await.map(|answer| {
                    keep_model = answer.keep_model;
                    (answer.directive, report.epoch)
                });
                (format!("epoch {}", report.epoch), answer)
            }
            Told::Lost { hash, problem, epoch } => {
                let answer = session.lose_checkpoint(id, hash, &problem).await;
                (format!("the loss of checkpoint {hash}"), answer.map(|()| (Directive::Continue, epoch)))
            }
        };
        match answer {
            // Nobody may wait for it.
            Ok((Directive::Continue, epoch)) => drop(answers.send_replace(epoch)),
            Ok((Directive::Drop, _)) => return Ok(Verdict::Drop),
            Err(CallError::Superseded | CallError::GaveUp) => return Ok(Verdict::Drop),
            Err(CallError::Refused(fault)) => return Ok(Verdict::Refused(format!("{what}: {fault}"))),
            Err(CallError::Fatal(error)) => return Err(error),
        }
    }
    Ok(Verdict::Answered { keep_model })
}
