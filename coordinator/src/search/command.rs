//! What can be asked of a search, and why it may say no.

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::{ArtifactHash, Attempt, TrialId, WorkerId};
use fittingroom_common::trial::Report;
use fittingroom_common::view::SearchState;
use fittingroom_common::work::{Holder, Outcome};

/// What can be asked of a search.
#[derive(Clone, Debug)]
pub enum Command {
    /// A free slot asks for work.
    Lease {
        /// The slot.
        holder: Holder,
    },
    /// An attempt finished an epoch.
    Report {
        /// The attempt.
        attempt: Attempt,
        /// Who says so.
        worker: WorkerId,
        /// The metrics.
        report: Report,
    },
    /// An attempt ended.
    Complete {
        /// The attempt.
        attempt: Attempt,
        /// Who says so.
        worker: WorkerId,
        /// How it ended.
        outcome: Outcome,
    },
    /// A checkpoint of an attempt is stored.
    KeepCheckpoint {
        /// The attempt.
        attempt: Attempt,
        /// Who says so.
        worker: WorkerId,
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// An attempt cannot go on from the newest checkpoint.
    LoseCheckpoint {
        /// The attempt.
        attempt: Attempt,
        /// Who says so.
        worker: WorkerId,
        /// The checkpoint.
        hash: ArtifactHash,
        /// Why, for people.
        problem: String,
    },
    /// Time has passed: leases and budgets may have run out.
    Tick,
    /// No new trials for now.
    Pause,
    /// Trials again.
    Resume,
    /// No new trials any more; running ones may finish.
    Stop,
    /// The end at once.
    Cancel,
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The attempt is not the one that counts: its lease ran out, or the trial has ended.
    #[error("attempt {attempt} is superseded: drop the work")]
    Superseded {
        /// The attempt.
        attempt: Attempt,
    },
    /// The trial was never drawn.
    #[error("the search has no trial {trial} yet")]
    UnknownTrial {
        /// Its number.
        trial: TrialId,
    },
    /// An epoch was reported before the one that comes first.
    #[error("attempt {attempt} reports epoch {found} where epoch {expected} comes next")]
    EpochGap {
        /// The attempt.
        attempt: Attempt,
        /// The epoch as reported.
        found: u32,
        /// The epoch that comes next.
        expected: u32,
    },
    /// A checkpoint was named before the epochs in it were reported, which would then be missing.
    #[error("attempt {attempt} names a checkpoint after epoch {epoch}, but has reported {reported}")]
    CheckpointAhead {
        /// The attempt.
        attempt: Attempt,
        /// Epochs done in the checkpoint.
        epoch: u32,
        /// Epochs reported.
        reported: u32,
    },
    /// An attempt that trains was called evaluated, or the other way round, or before its last epoch.
    #[error("attempt {attempt} cannot end like this: {problem}")]
    WrongOutcome {
        /// The attempt.
        attempt: Attempt,
        /// What is wrong.
        problem: &'static str,
    },
    /// The search's state does not allow it.
    #[error("the search is {state}; it cannot be {wish}")]
    WrongState {
        /// Where it stands.
        state: SearchState,
        /// What was asked for.
        wish: &'static str,
    },
}
