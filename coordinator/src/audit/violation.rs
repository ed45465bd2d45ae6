//! What a log may not say, in words.

use fittingroom_common::id::{Attempt, AttemptNumber, SlotNumber, TrialId, WorkerId};
use fittingroom_common::view::SearchState;

/// A violation, and the event that is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {version}: {violation}")]
pub struct Finding {
    /// The event's place in its search, from 1.
    pub version: u64,
    /// What is wrong.
    pub violation: Violation,
}

/// One rule that a log breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An event is missing, or is there twice.
    #[error("event {expected} comes next")]
    VersionGap {
        /// The version that follows from the event before.
        expected: u64,
    },
    /// The first event does not create the search.
    #[error("the search was not created before")]
    NotCreated,
    /// A later event creates the search again.
    #[error("the search was created already")]
    CreatedTwice,
    /// Something happens although the search is over.
    #[error("the search is {state} already")]
    AfterTheEnd {
        /// How it ended.
        state: SearchState,
    },
    /// The search cannot go from the one state to the other.
    #[error("a search that is {from} cannot become {to}")]
    WrongTransition {
        /// Where it stands.
        from: SearchState,
        /// Where it is said to go.
        to: SearchState,
    },
    /// A fact is about a trial that was never drawn.
    #[error("trial {trial} was never drawn")]
    UnknownTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A trial is drawn twice, or one before it is missing.
    #[error("trial {trial} is drawn where trial {expected} comes next")]
    DrawnOutOfOrder {
        /// The trial.
        trial: TrialId,
        /// The one that comes next.
        expected: TrialId,
    },
    /// The method has no such trial, or gives it another point, replicate or other seeds.
    #[error("trial {trial} is not the one that the search's method gives for its number")]
    NotWhatTheMethodGives {
        /// The trial.
        trial: TrialId,
    },
    /// Work begins in a search that gives none out.
    #[error("work begins while the search is {state}")]
    StartedWhileClosed {
        /// Where it stands.
        state: SearchState,
    },
    /// An attempt's number is not the one after the trial's newest.
    #[error("attempt {attempt} begins where number {expected} comes next")]
    AttemptNumber {
        /// The attempt.
        attempt: Attempt,
        /// The number that comes next.
        expected: AttemptNumber,
    },
    /// An attempt begins while another attempt at the trial, or another evaluation, is out.
    #[error("attempt {attempt} begins while attempt {running} is out")]
    StillRunning {
        /// The attempt that begins.
        attempt: Attempt,
        /// The one that is out.
        running: Attempt,
    },
    /// An attempt is given to a slot that holds another.
    #[error("attempt {attempt} is given to slot {slot} of worker {worker}, which holds attempt {held}")]
    SlotTaken {
        /// The attempt.
        attempt: Attempt,
        /// The worker.
        worker: WorkerId,
        /// The slot.
        slot: SlotNumber,
        /// What it holds.
        held: Attempt,
    },
    /// An attempt begins although the trial has failed as often as it may.
    #[error("attempt {attempt} begins although the trial's tries are used up")]
    TriedTooOften {
        /// The attempt.
        attempt: Attempt,
    },
    /// A fact is about an attempt that is not the trial's newest.
    #[error("attempt {attempt} is not the newest of its trial")]
    Superseded {
        /// The attempt.
        attempt: Attempt,
    },
    /// A fact is about an attempt that is not out.
    #[error("attempt {attempt} has ended, or never began")]
    NotRunning {
        /// The attempt.
        attempt: Attempt,
    },
    /// An epoch is missing, or is there twice.
    #[error("attempt {attempt} reports epoch {found} where epoch {expected} comes next")]
    EpochGap {
        /// The attempt.
        attempt: Attempt,
        /// The epoch.
        found: u32,
        /// The one that comes next.
        expected: u32,
    },
    /// A checkpoint was kept before the epochs in it were reported.
    #[error("attempt {attempt} keeps a checkpoint after epoch {epoch}, but has reported {reported}")]
    CheckpointAhead {
        /// The attempt.
        attempt: Attempt,
        /// Epochs done in the checkpoint.
        epoch: u32,
        /// Epochs reported.
        reported: u32,
    },
    /// A checkpoint is no further than the one before it.
    #[error("attempt {attempt} keeps a checkpoint that is no further than the one before")]
    CheckpointOutOfOrder {
        /// The attempt.
        attempt: Attempt,
    },
    /// A checkpoint is lost that the attempt did not begin at.
    #[error("attempt {attempt} loses a checkpoint that it did not begin at")]
    LostNotBegunAt {
        /// The attempt.
        attempt: Attempt,
    },
    /// A trial has more epochs than its hyperparameters say.
    #[error("attempt {attempt} reports epoch {found} of {epochs}")]
    BeyondLastEpoch {
        /// The attempt.
        attempt: Attempt,
        /// The epoch.
        found: u32,
        /// How many there are.
        epochs: u32,
    },
    /// A trial is complete although it has epochs left.
    #[error("attempt {attempt} is complete after {epochs} epochs, which is too early")]
    EndedEarly {
        /// The attempt.
        attempt: Attempt,
        /// How many it has reported.
        epochs: u32,
    },
    /// A trial that was the best when it ended has no model.
    #[error("trial {trial} is the best when it is complete, and has no model")]
    BestWithoutModel {
        /// The trial.
        trial: TrialId,
    },
    /// A trial that has its outcome gets another, or another attempt.
    #[error("trial {trial} has its outcome already")]
    OutcomeTwice {
        /// The trial.
        trial: TrialId,
    },
    /// A trial is given up with tries left, or without a failure.
    #[error("trial {trial} is given up although it may be tried again")]
    GivenUpEarly {
        /// The trial.
        trial: TrialId,
    },
    /// A trial is cancelled while it runs, or in a search that does not stop.
    #[error("trial {trial} is cancelled although nothing cancels it")]
    CancelledWithoutCause {
        /// The trial.
        trial: TrialId,
    },
    /// The search is complete although a trial has no outcome.
    #[error("the search is complete, and trial {trial} has no outcome")]
    NoOutcome {
        /// The trial.
        trial: TrialId,
    },
    /// The search is complete although trials were never drawn.
    #[error("the search is complete with {drawn} of {expected} trials")]
    MissingTrials {
        /// How many were drawn.
        drawn: u64,
        /// How many the method gives.
        expected: u64,
    },
    /// The search is complete although its best model was not evaluated.
    #[error("the search is complete, and its best trial, {trial}, was not evaluated on the test set")]
    NotEvaluated {
        /// The best trial.
        trial: TrialId,
    },
    /// A model is evaluated before every trial has ended.
    #[error("trial {trial} is evaluated on the test set before every trial has ended")]
    EvaluatedEarly {
        /// The trial that is evaluated.
        trial: TrialId,
    },
    /// The test set is used for another trial than the best.
    #[error("trial {trial} is evaluated on the test set, and is not the best")]
    EvaluatedNotBest {
        /// The trial.
        trial: TrialId,
    },
    /// The test set is used once more.
    #[error("trial {trial} is evaluated on the test set after that was done")]
    EvaluatedTwice {
        /// The trial.
        trial: TrialId,
    },
}
