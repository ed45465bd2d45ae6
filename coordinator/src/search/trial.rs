//! One trial inside a search, and the final evaluation: each state with exactly its own data.

use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{ArtifactHash, Attempt, AttemptNumber, Name, SlotNumber, TrialId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, Report, Score, Seeds};
use fittingroom_common::view::{Progress, TrialState};
use fittingroom_common::work::Holder;

use super::checkpoint::Resumption;

/// The right of one slot to run one attempt, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) holder: Holder,
    pub(super) started: Timestamp,
    /// When it ends unless a heartbeat renews it. In memory only.
    pub(super) expires: Timestamp,
    /// From the last heartbeat. In memory only.
    pub(super) progress: Option<Progress>,
}

/// There may be millions of these, most of them complete: what few of them have is boxed.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) replicate: u32,
    pub(super) hyperparameters: Hyperparameters,
    pub(super) seeds: Seeds,
    /// The newest attempt's number: what names an older one is refused.
    pub(super) newest: Option<AttemptNumber>,
    /// Training attempts so far; evaluations have numbers, but are not tries.
    pub(super) tries: u32,
    /// Attempts that failed. Released ones did not.
    pub(super) failures: u32,
    /// Where it runs or ran last.
    pub(super) place: Option<(Name, SlotNumber)>,
    /// The newest epoch of the newest training attempt.
    pub(super) report: Option<Report>,
    /// None before there is anything to go on from, and when the trial is over. Boxed, since most trials are over.
    pub(super) resumption: Option<Box<Resumption>>,
    pub(super) phase: Phase,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    Waiting,
    Running(Box<Lease>),
    Complete { attempt: AttemptNumber, model: Option<Box<ArtifactHash>> },
    Failed(Box<Failure>),
    Cancelled,
}

impl Trial {
    pub(super) const fn state(&self) -> TrialState {
        match self.phase {
            Phase::Waiting => TrialState::Waiting,
            Phase::Running(_) => TrialState::Running,
            Phase::Complete { .. } => TrialState::Complete,
            Phase::Failed(_) => TrialState::Failed,
            Phase::Cancelled => TrialState::Cancelled,
        }
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Running(lease) => Some(lease),
            Phase::Waiting | Phase::Complete { .. } | Phase::Failed(_) | Phase::Cancelled => None,
        }
    }

    pub(super) fn lease_mut(&mut self) -> Option<&mut Lease> {
        match &mut self.phase {
            Phase::Running(lease) => Some(lease),
            Phase::Waiting | Phase::Complete { .. } | Phase::Failed(_) | Phase::Cancelled => None,
        }
    }

    /// The number that the next attempt gets.
    pub(super) fn next_attempt(&self) -> AttemptNumber {
        self.newest.map_or(AttemptNumber::FIRST, AttemptNumber::next)
    }
}

/// The evaluation of the best model on the test set, at the end of the search.
#[derive(Clone, Debug)]
pub(super) enum Evaluation {
    Idle { failures: u32 },
    Running { attempt: Attempt, lease: Lease, failures: u32 },
    Done { trial: TrialId, test: Score },
}

impl Evaluation {
    pub(super) const fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Running { lease, .. } => Some(lease),
            Self::Idle { .. } | Self::Done { .. } => None,
        }
    }
}
