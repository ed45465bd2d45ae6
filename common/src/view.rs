//! What the coordinator shows of its searches: the rows and summaries behind every reading command.

use std::fmt;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::dataset::Manifest;
use crate::gpu::GpuLoad;
use crate::hyperparameter::Hyperparameters;
use crate::id::{ArtifactHash, AttemptNumber, Name, SlotNumber, TrialId, WorkerId};
use crate::space::Method;
use crate::time::Timestamp;
use crate::trial::{Failure, Metric, Report, Score, Seeds};

/// Where a search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchState {
    /// Trials are handed out.
    Running,
    /// No new trials; running ones go on.
    Paused,
    /// No new trials any more; running ones may finish.
    Stopping,
    /// Every trial has its outcome.
    Complete,
    /// Ended by the operator; what ran was cancelled.
    Cancelled,
    /// Too many trials failed.
    Failed,
}

impl SearchState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Paused, Self::Stopping, Self::Complete, Self::Cancelled, Self::Failed];

    /// Its name in JSON and on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Stopping => "STOPPING",
            Self::Complete => "COMPLETE",
            Self::Cancelled => "CANCELLED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether nothing can happen to the search any more.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Stopping => false,
            Self::Complete | Self::Cancelled | Self::Failed => true,
        }
    }
}

impl fmt::Display for SearchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialState {
    /// Drawn, and waiting for a worker.
    Waiting,
    /// A worker trains it.
    Running,
    /// Trained to its end.
    Complete,
    /// Ended early for want of promise.
    Pruned,
    /// Ended without a result, or diverged.
    Failed,
    /// Ended by the operator.
    Cancelled,
}

impl TrialState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Running, Self::Complete, Self::Pruned, Self::Failed, Self::Cancelled];

    /// Its name in JSON and on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Running => "RUNNING",
            Self::Complete => "COMPLETE",
            Self::Pruned => "PRUNED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for TrialState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many trials are in each state. Those not yet drawn are in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrialCounts {
    /// Drawn, and waiting for a worker.
    pub waiting: u64,
    /// On a worker.
    pub running: u64,
    /// Trained to their end.
    pub complete: u64,
    /// Ended early for want of promise.
    pub pruned: u64,
    /// Ended without a result, or diverged.
    pub failed: u64,
    /// Ended by the operator.
    pub cancelled: u64,
}

impl TrialCounts {
    /// Trials that have ended, whichever way.
    pub const fn ended(&self) -> u64 {
        self.complete + self.pruned + self.failed + self.cancelled
    }
}

/// One search at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSummary {
    /// What people call it.
    pub name: Name,
    /// Where it stands.
    pub state: SearchState,
    /// What its trials are ranked by.
    pub metric: Metric,
    /// How its trials are drawn.
    pub method: Method,
    /// The dataset's name.
    pub dataset: Name,
    /// How many trials the method will draw.
    pub trial_count: u64,
    /// Trials by state.
    pub counts: TrialCounts,
    /// When it was launched.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The best complete trial so far.
    pub best: Option<TrialRow>,
    /// Why it stopped or failed, for people; may be empty.
    pub reason: String,
    /// How long all ended attempts took together.
    pub attempt_time: Duration,
    /// How many attempts have ended.
    pub attempts_ended: u64,
}

/// How far a running trial is within its epoch in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The epoch in progress, from 1.
    pub epoch: u32,
    /// Steps done in it.
    pub step: u32,
    /// Steps it has.
    pub steps: u32,
}

/// One trial as the leaderboard shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRow {
    /// Its number.
    pub trial: TrialId,
    /// Its place, from 1; complete trials have one, and diverged trials behind them.
    pub rank: Option<u64>,
    /// Where it stands.
    pub state: TrialState,
    /// Tries so far.
    pub attempts: u32,
    /// Where it runs or ran last.
    pub place: Option<(Name, SlotNumber)>,
    /// The hyperparameters that the search names.
    pub hyperparameters: Hyperparameters,
    /// The metrics of its newest epoch.
    pub report: Option<Report>,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// Its model on the test set, where that was evaluated.
    pub test: Option<Score>,
    /// Epochs that it trains for.
    pub epochs: u32,
    /// How far the epoch in progress is, while it runs.
    pub progress: Option<Progress>,
}

/// The top of a leaderboard at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardView {
    /// The search.
    pub search: SearchSummary,
    /// The best trials, in order.
    pub ranked: Vec<TrialRow>,
    /// The trials that run now, in the order of their numbers; at most a thousand.
    pub running: Vec<TrialRow>,
    /// Workers connected to the coordinator.
    pub workers: u32,
    /// Slots that these workers have together.
    pub slots: u32,
}

/// Everything that happened to one trial.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialHistory {
    /// The trial as it stands now.
    pub row: TrialRow,
    /// Its random streams.
    pub seeds: Seeds,
    /// Which repetition of its point it is, from 0.
    pub replicate: u32,
    /// Its tries, the first one first.
    pub attempts: Vec<AttemptHistory>,
}

/// Everything that happened in one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptHistory {
    /// Which try it was.
    pub number: AttemptNumber,
    /// Where it ran.
    pub place: (Name, SlotNumber),
    /// When it was handed out.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The metrics of its epochs.
    pub epochs: Vec<Report>,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// The checkpoint that it went on from; `None` where it began at the first step.
    pub resumed_from: Option<Checkpoint>,
}

/// The metrics of one epoch, with the trial and attempt that they belong to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochRow {
    /// The trial.
    pub trial: TrialId,
    /// The attempt that counts.
    pub attempt: AttemptNumber,
    /// The metrics.
    pub report: Report,
}

/// One connected worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerRow {
    /// What people call it.
    pub name: Name,
    /// This run of its agent.
    pub id: WorkerId,
    /// What it trains on, for people.
    pub device: String,
    /// Its places to train.
    pub slots: u32,
    /// How many of them have an attempt.
    pub busy: u32,
    /// The version of its program.
    pub program_version: String,
    /// Time since it was last heard.
    pub silent: Duration,
    /// Whether it takes no new work.
    pub draining: bool,
    /// How busy its GPUs are, as far as it told.
    pub gpus: Vec<GpuLoad>,
}

/// The best complete trial of a search, and what its model is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// The trial.
    pub row: TrialRow,
    /// Its random streams.
    pub seeds: Seeds,
    /// The attempt that trained the model.
    pub attempt: AttemptNumber,
    /// Every hyperparameter of the catalogue.
    pub hyperparameters: Hyperparameters,
    /// The stored model.
    pub model: ArtifactHash,
    /// What it was trained on.
    pub dataset: Manifest,
    /// Its search.
    pub search: SearchSummary,
}
