//! Sends the epochs of one attempt, in order, each until it is answered, while training goes on.

use std::sync::Arc;

use fittingroom_common::length::TrainingLength;
use fittingroom_common::trial::Report;
use fittingroom_common::work::{Directive, SearchAttempt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::AgentError;
use super::session::{CallError, Session};

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

/// The queue of one attempt's reports. Dropping it drops what is not sent.
#[derive(Debug)]
pub(crate) struct Reporter {
    queue: Option<mpsc::Sender<Report>>,
    length: TrainingLength,
    queued: u32,
    task: JoinHandle<Result<Verdict, AgentError>>,
}

impl Reporter {
    /// A queue for as many reports as the attempt has epochs, so that it is never full.
    pub(crate) fn start(session: Arc<Session>, id: SearchAttempt, length: TrainingLength) -> Self {
        let (queue, reports) = mpsc::channel(length.epochs.max(1) as usize);
        Self { queue: Some(queue), length, queued: 0, task: tokio::spawn(send(session, id, reports)) }
    }

    /// Queues a report; it never waits.
    pub(crate) fn report(&mut self, report: Report) -> Result<(), TooManyEpochs> {
        if self.queued == self.length.epochs {
            return Err(TooManyEpochs { epochs: self.length.epochs });
        }
        self.queued += 1;
        if let Some(queue) = &self.queue {
            // A closed queue means that the verdict is already known, and waits to be looked at.
            let _ = queue.try_send(report);
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
    mut reports: mpsc::Receiver<Report>,
) -> Result<Verdict, AgentError> {
    let mut keep_model = false;
    while let Some(report) = reports.recv().await {
        match session.report(id, report).await {
            Ok(answer) if answer.directive == Directive::Drop => return Ok(Verdict::Drop),
            Ok(answer) => keep_model = answer.keep_model,
            Err(CallError::Superseded | CallError::GaveUp) => return Ok(Verdict::Drop),
            Err(CallError::Refused(fault)) => {
                return Ok(Verdict::Refused(format!("epoch {}: {fault}", report.epoch)));
            }
            Err(CallError::Fatal(error)) => return Err(error),
        }
    }
    Ok(Verdict::Answered { keep_model })
}
