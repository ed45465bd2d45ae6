//! What passes between the coordinator and its workers: assignments, heartbeats, outcomes.

use crate::checkpoint::{Checkpoint, CheckpointRule};
use crate::dataset::Manifest;
use crate::hyperparameter::Hyperparameters;
use crate::id::{ArtifactHash, Attempt, Name, SearchId, SlotNumber, WorkerId};
use crate::trial::{Failure, Score, Seeds};
use crate::view::Progress;

/// What a worker says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// This run of its agent.
    pub id: WorkerId,
    /// What people call it.
    pub name: Name,
    /// Its places to train.
    pub slots: u32,
    /// What it trains on, for people.
    pub device: String,
    /// The version of its program.
    pub program_version: String,
}

/// One slot of one worker: who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The run of the agent.
    pub worker: WorkerId,
    /// What people call the worker.
    pub name: Name,
    /// Its slot.
    pub slot: SlotNumber,
}

/// One attempt at one trial of one search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchAttempt {
    /// The search.
    pub search: SearchId,
    /// The attempt.
    pub attempt: Attempt,
}

/// What a lease hands to a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// What the lease is about; every later call names it.
    pub id: SearchAttempt,
    /// The search's name, for people.
    pub search_name: Name,
    /// What to train or evaluate on.
    pub dataset: Manifest,
    /// What to do.
    pub work: Work,
}

/// What to do with an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Train a model.
    Train {
        /// Every hyperparameter of the catalogue.
        hyperparameters: Hyperparameters,
        /// The trial's random streams.
        seeds: Seeds,
        /// Whether the test set is evaluated after each epoch.
        track_test: bool,
        /// When checkpoints are made.
        checkpoint: CheckpointRule,
        /// What to go on from, the newest first. One that cannot be used is told, then the next is
        /// taken; with none of them, training begins at its first step.
        resume_from: Vec<Checkpoint>,
    },
    /// Evaluate a trained model on the test set.
    Evaluate {
        /// The stored model.
        model: ArtifactHash,
    },
}

/// An attempt that a worker holds, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it holds.
    pub id: SearchAttempt,
    /// How far it is; `None` before training begins.
    pub progress: Option<Progress>,
}

/// What to do with an attempt that a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Go on.
    Continue,
    /// Drop the work: the attempt is superseded or cancelled.
    Drop,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every epoch was trained.
    Trained {
        /// The uploaded model, if it was asked for.
        model: Option<ArtifactHash>,
    },
    /// The model was evaluated on the test set.
    Evaluated(Score),
    /// There is no result.
    Failed(Failure),
    /// The worker drains and gives the attempt back unharmed.
    Released,
}
