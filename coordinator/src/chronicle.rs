//! Tells the coordinator's own log, for people, what became of a search.

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::Name;
use tracing::{Span, debug, error_span, info, warn};

/// The span of everything that is about a search. It says which in every line, whatever the log's level.
pub(crate) fn span(search: &Name) -> Span {
    error_span!(parent: None, "search", %search)
}

/// Writes a line for an event that was decided. To be called in the span of its search.
pub(crate) fn tell(event: &Event) {
    match &event.fact {
        Fact::SearchCreated(_) => info!("search created"),
        Fact::TrialPlanned { trial, .. } => debug!(trial = trial.get(), "trial planned"),
        Fact::AttemptStarted { attempt: at, holder } => {
            debug!(trial = at.trial.get(), attempt = at.number.get(), worker = %holder.name, slot = holder.slot.get(), "attempt started");
        }
        Fact::EpochReported { attempt: at, report } => {
            debug!(trial = at.trial.get(), attempt = at.number.get(), epoch = report.epoch, "epoch reported")
        }
        // A line for each of a million trials would drown the others.
        Fact::TrialCompleted { attempt: at, model: None } => {
            debug!(trial = at.trial.get(), attempt = at.number.get(), "trial complete")
        }
        Fact::TrialCompleted { attempt: at, model: Some(_) } => {
            info!(trial = at.trial.get(), attempt = at.number.get(), "trial complete, the best so far");
        }
        Fact::AttemptFailed { attempt: at, failure } => {
            warn!(trial = at.trial.get(), attempt = at.number.get(), %failure, "attempt failed")
        }
        Fact::AttemptReleased { attempt: at } => {
            info!(trial = at.trial.get(), attempt = at.number.get(), "attempt given back")
        }
        Fact::TrialFailed { trial, failure } => {
            warn!(trial = trial.get(), reason = %failure.reason, "trial failed")
        }
        Fact::TrialCancelled { trial } => info!(trial = trial.get(), "trial cancelled"),
        Fact::EvaluationStarted { attempt: at, holder } => {
            info!(trial = at.trial.get(), attempt = at.number.get(), worker = %holder.name, "evaluating the best model on the test set");
        }
        Fact::EvaluationFailed { attempt: at, failure } => {
            warn!(trial = at.trial.get(), attempt = at.number.get(), %failure, "evaluation failed")
        }
        Fact::BestEvaluated { trial, test } => {
            info!(trial = trial.get(), test_accuracy = test.accuracy.get(), "best model evaluated");
        }
        Fact::CheckpointKept { attempt: at, checkpoint } => {
            debug!(
                trial = at.trial.get(),
                attempt = at.number.get(),
                epoch = checkpoint.place.epoch,
                step = checkpoint.place.step,
                "checkpoint kept"
            );
        }
        Fact::CheckpointLost { attempt: at, hash, problem } => {
            warn!(trial = at.trial.get(), attempt = at.number.get(), %hash, problem, "checkpoint lost, going on from the one before");
        }
        Fact::SearchPaused => info!("search paused"),
        Fact::SearchResumed => info!("search resumed"),
        Fact::SearchStopping { reason } => info!(reason, "search stopping"),
        Fact::SearchCancelled => info!("search cancelled"),
        Fact::SearchCompleted => info!("search complete"),
        Fact::SearchFailed { reason } => warn!(reason, "search failed"),
    }
}
