//! The events of a search: facts, in the order in which they were decided. What is not in here did not happen.

use crate::checkpoint::Checkpoint;
use crate::dataset::Manifest;
use crate::hyperparameter::Hyperparameters;
use crate::id::{ArtifactHash, Attempt, Name, TrialId};
use crate::space::SearchSpec;
use crate::time::Timestamp;
use crate::trial::{Failure, Report, Score, Seeds};
use crate::work::Holder;

/// One fact, and when it was decided by the coordinator's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub fact: Fact,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A search was launched. The first event of every search, and of no other.
    SearchCreated(Box<Created>),
    /// A trial was drawn.
    TrialPlanned {
        /// Its number: the number of trials drawn before it.
        trial: TrialId,
        /// Which repetition of its point it is, from 0.
        replicate: u32,
        /// Those that the search names.
        hyperparameters: Hyperparameters,
        /// Its random streams.
        seeds: Seeds,
    },
    /// An attempt was handed to a worker.
    AttemptStarted {
        /// The attempt.
        attempt: Attempt,
        /// Where it runs.
        holder: Holder,
    },
    /// An attempt finished an epoch.
    EpochReported {
        /// The attempt.
        attempt: Attempt,
        /// The metrics.
        report: Report,
    },
    /// A trial was trained to its end.
    TrialCompleted {
        /// The attempt that did it.
        attempt: Attempt,
        /// Its model, if it was the best when it ended.
        model: Option<ArtifactHash>,
    },
    /// An attempt ended without a result. Its trial waits again, unless [`Fact::TrialFailed`] follows.
    AttemptFailed {
        /// The attempt.
        attempt: Attempt,
        /// How it failed.
        failure: Failure,
    },
    /// A worker gave an attempt back unharmed. Its trial, or the evaluation, waits again.
    AttemptReleased {
        /// The attempt.
        attempt: Attempt,
    },
    /// A trial has no result and is not tried again.
    TrialFailed {
        /// The trial.
        trial: TrialId,
        /// How its last attempt failed.
        failure: Failure,
    },
    /// A waiting trial will not be tried any more, since its search stops.
    TrialCancelled {
        /// The trial.
        trial: TrialId,
    },
    /// The best trial's model was handed to a worker, to be evaluated on the test set.
    EvaluationStarted {
        /// The attempt.
        attempt: Attempt,
        /// Where it runs.
        holder: Holder,
    },
    /// An evaluation ended without a result.
    EvaluationFailed {
        /// The attempt.
        attempt: Attempt,
        /// How it failed.
        failure: Failure,
    },
    /// The best trial's model was evaluated on the test set.
    BestEvaluated {
        /// The trial.
        trial: TrialId,
        /// On the test set.
        test: Score,
    },
    /// An attempt's checkpoint is stored. The newest two of a trial are kept, and later attempts go on from the newest.
    CheckpointKept {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// An attempt could not go on from the newest checkpoint; it begins at the one before, or at the beginning.
    CheckpointLost {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        hash: ArtifactHash,
        /// Why, for people.
        problem: String,
    },
    /// No new trials for now.
    SearchPaused,
    /// Trials are handed out again.
    SearchResumed,
    /// No new trials any more.
    SearchStopping {
        /// Why, for people.
        reason: String,
    },
    /// The search is over, and what ran or waited is cancelled.
    SearchCancelled,
    /// The search is over, and every trial has its outcome.
    SearchCompleted,
    /// The search is over, since too much failed; what ran or waited is cancelled.
    SearchFailed {
        /// Why, for people.
        reason: String,
    },
}

/// What a search is from its first moment to its last.
#[derive(Clone, Debug, PartialEq)]
pub struct Created {
    /// What people call it.
    pub name: Name,
    /// What was launched.
    pub spec: SearchSpec,
    /// What it trains on.
    pub dataset: Manifest,
    /// Every hyperparameter with the value it has where the search does not name it, as it was at the launch.
    pub defaults: Hyperparameters,
}

impl Fact {
    /// The trial that this is about, if it is about one.
    pub const fn trial(&self) -> Option<TrialId> {
        match self {
            Self::TrialPlanned { trial, .. }
            | Self::TrialFailed { trial, .. }
            | Self::TrialCancelled { trial }
            | Self::BestEvaluated { trial, .. } => Some(*trial),
            Self::AttemptStarted { attempt, .. }
            | Self::EpochReported { attempt, .. }
            | Self::TrialCompleted { attempt, .. }
            | Self::AttemptFailed { attempt, .. }
            | Self::AttemptReleased { attempt }
            | Self::EvaluationStarted { attempt, .. }
            | Self::EvaluationFailed { attempt, .. }
            | Self::CheckpointKept { attempt, .. }
            | Self::CheckpointLost { attempt, .. } => Some(attempt.trial),
            Self::SearchCreated(_)
            | Self::SearchPaused
            | Self::SearchResumed
            | Self::SearchStopping { .. }
            | Self::SearchCancelled
            | Self::SearchCompleted
            | Self::SearchFailed { .. } => None,
        }
    }
}
