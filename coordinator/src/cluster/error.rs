//! Why the coordinator did not do what it was asked for.

use fittingroom_common::id::{ArtifactHash, Attempt, Name, SearchId};

use crate::artifacts::ArtifactError;
use crate::log::LogError;
use crate::runner::Refusal;
use crate::workers::WorkerError;

/// Why the coordinator did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No search has the name.
    #[error("there is no search named {name}; `fittingroom list` shows those that there are")]
    NoSuchSearch {
        /// The name.
        name: Name,
    },
    /// No search has the number.
    #[error("there is no search {0}")]
    NoSuchSearchId(SearchId),
    /// The dataset is not held.
    #[error(
        "the coordinator does not hold the dataset {name}; fetch it with `fittingroom dataset fetch {name}`"
    )]
    NoSuchDataset {
        /// The dataset.
        name: Name,
    },
    /// A model was named that was not uploaded.
    #[error("there is no artifact {hash}: upload the model before completing the trial")]
    NoSuchModel {
        /// The hash that was named.
        hash: ArtifactHash,
    },
    /// A checkpoint was named that was not uploaded.
    #[error("attempt {attempt} has no checkpoint {hash}: upload it before naming it")]
    NoSuchCheckpoint {
        /// The attempt.
        attempt: Attempt,
        /// The hash that was named.
        hash: ArtifactHash,
    },
    /// The search refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The worker is not one.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The artifact store failed.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A stored search does not begin with its creation.
    #[error("the log of search {name} does not begin with its creation: the log is damaged")]
    Damaged {
        /// The search.
        name: Name,
    },
}
