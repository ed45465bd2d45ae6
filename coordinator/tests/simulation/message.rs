//! What passes between the simulated machines and the simulated coordinator.

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::{ArtifactHash, Attempt, SlotNumber, WorkerId};
use fittingroom_common::trial::Report;
use fittingroom_common::work::Outcome;
use fittingroom_coordinator::search::{Command, Rejection};

use crate::store::Blob;

/// Who made a call, so that the answer finds its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) machine: usize,
    pub(crate) worker: WorkerId,
    pub(crate) slot: usize,
    pub(crate) line: Line,
    /// The call's number: an answer to an earlier try is not waited for any more.
    pub(crate) call: u64,
}

/// Which of a slot's conversations a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// What the attempt needs to go on.
    Work,
    /// Bringing its checkpoints, on the side.
    Checkpoints,
}

/// A call as it lies in the coordinator's mailbox.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Lease(Caller, SlotNumber),
    Report(Caller, Attempt, Report),
    Complete(Caller, Attempt, Outcome),
    Heartbeat {
        from: Caller,
        held: Vec<Attempt>,
        draining: bool,
    },
    /// The bytes of a checkpoint follow.
    Upload(Caller, Attempt, Checkpoint),
    /// A checkpoint that is stored counts.
    Keep(Caller, Attempt, Checkpoint),
    /// The bytes of a checkpoint are wanted.
    Fetch(Caller, Attempt, ArtifactHash),
    /// A checkpoint cannot be used.
    Lose(Caller, Attempt, ArtifactHash),
    /// An operator's, or a confused worker's. Nobody waits for the answer.
    Unanswered(Command),
    /// Somebody who holds nothing says that they do. It must change nothing.
    Impostor(Command),
    Tick,
}

/// What a slot is given.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) attempt: Attempt,
    pub(crate) evaluates: bool,
    /// The newest first.
    pub(crate) resume_from: Vec<Checkpoint>,
}

/// What the coordinator says.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Leased(Option<Given>),
    /// Whether the model is wanted.
    Reported(bool),
    Completed,
    Uploaded,
    Kept,
    /// There is no such checkpoint to be kept.
    NotStored,
    Fetched(Option<Blob>),
    Lost,
    Rejected(Rejection),
    /// For each attempt that was named, whether it is still held.
    Renewed(Vec<(Attempt, bool)>),
    /// Nothing was made durable: try again.
    Unavailable,
}
