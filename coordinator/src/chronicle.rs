//! Tells the coordinator's own log, for people, what became of a search.

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::Name;
use tracing::{debug, info, warn};

/// Writes a line for an event that was decided.
pub(crate) fn tell(search: &Name, event: &Event) {
    match &event.fact {
        Fact::SearchCreated(_) => info!(%search, "search created"),
        Fact::TrialPlanned { trial, .. } => debug!(%search, %trial, "trial planned"),
        Fact::AttemptStarted { attempt, holder } => {
            debug!(%search, %attempt, worker = %holder.name, slot = %holder.slot, "attempt started");
        }
        Fact::EpochReported { attempt, report } => {
            debug!(%search, %attempt, epoch = report.epoch, "epoch reported")
        }
        // A line for each of a million trials would drown the others.
        Fact::TrialCompleted { attempt, model: None } => debug!(%search, %attempt, "trial complete"),
        Fact::TrialCompleted { attempt, model: Some(_) } => {
            info!(%search, %attempt, "trial complete, the best so far");
        }
        Fact::AttemptFailed { attempt, failure } => warn!(%search, %attempt, %failure, "attempt failed"),
        Fact::AttemptReleased { attempt } => info!(%search, %attempt, "attempt given back"),
        Fact::TrialFailed { trial, failure } => {
            warn!(%search, %trial, reason = %failure.reason, "trial failed")
        }
        Fact::TrialCancelled { trial } => info!(%search, %trial, "trial cancelled"),
        Fact::EvaluationStarted { attempt, holder } => {
            info!(%search, %attempt, worker = %holder.name, "evaluating the best model on the test set");
        }
        Fact::EvaluationFailed { attempt, failure } => {
            warn!(%search, %attempt, %failure, "evaluation failed")
        }
        Fact::BestEvaluated { trial, test } => {
            info!(%search, %trial, test_accuracy = test.accuracy.get(), "best model evaluated");
        }
        Fact::CheckpointKept { attempt, checkpoint } => {
            debug!(%search, %attempt, epoch = checkpoint.place.epoch, step = checkpoint.place.step, "checkpoint kept");
        }
        Fact::CheckpointLost { attempt, hash, problem } => {
            warn!(%search, %attempt, %hash, problem, "checkpoint lost, going on from the one before");
        }
        Fact::SearchPaused => info!(%search, "search paused"),
        Fact::SearchResumed => info!(%search, "search resumed"),
        Fact::SearchStopping { reason } => info!(%search, reason, "search stopping"),
        Fact::SearchCancelled => info!(%search, "search cancelled"),
        Fact::SearchCompleted => info!(%search, "search complete"),
        Fact::SearchFailed { reason } => warn!(%search, reason, "search failed"),
    }
}
