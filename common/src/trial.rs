//! What is known of a trial: the metrics of its epochs, how it ended, why it failed.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::TrialId;
use crate::rng::Stream;

/// The random streams of one trial, as roots of [`Stream`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seeds {
    /// Splits training from validation images; the same for all trials of a search.
    pub split: u64,
    /// Orders the batches; the same for all trials of a replicate.
    pub order: u64,
    /// Initialisation and dropout; the trial's own.
    pub trial: u64,
}

impl Seeds {
    /// The seeds of a run outside any search: those of the first trial of a search with this seed.
    pub fn from_one(seed: u64) -> Self {
        Self::derive(seed, 0, TrialId::new(0))
    }

    /// The seeds of a trial, from its search's seed, its replicate and its number.
    pub fn derive(search: u64, replicate: u32, trial: TrialId) -> Self {
        let root = Stream::new(search);
        Self {
            split: root.clone().named("split").seed(),
            order: root.clone().named("order").numbered(replicate.into()).seed(),
            trial: root.named("trial").numbered(trial.get()).seed(),
        }
    }
}

/// A number that is neither infinite nor NaN, nor the zero below zero, so that it has an order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct Finite(f64);

/// A number was infinite or NaN.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a finite number")]
pub struct NotFinite(f64);

impl TryFrom<f64> for Finite {
    type Error = NotFinite;

    fn try_from(number: f64) -> Result<Self, NotFinite> {
        Self::new(number).ok_or(NotFinite(number))
    }
}

impl Finite {
    /// The number, unless it is infinite or NaN.
    pub fn new(number: f64) -> Option<Self> {
        // Adding zero turns -0.0 into 0.0 and nothing else into anything else.
        number.is_finite().then_some(Self(number + 0.0))
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Eq for Finite {}

impl Ord for Finite {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Finite {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Loss and accuracy over one part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean cross-entropy in nats per image.
    pub loss: Finite,
    /// Share of images whose class was predicted, from 0 to 1.
    pub accuracy: Finite,
}

/// The metrics of one epoch of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Epochs finished, from 1.
    pub epoch: u32,
    /// Over the training images as they were trained on, during the epoch.
    pub train: Score,
    /// Over the validation images, after the epoch.
    pub validation: Score,
    /// Over the test images, after the epoch, where the search tracks it.
    pub test: Option<Score>,
    /// Seconds of training and evaluation since the attempt began; where it was gone on with from a
    /// checkpoint, those of all parts.
    pub seconds: f64,
    /// Training images per second in this epoch, evaluation not counted.
    pub images_per_second: f64,
}

/// The metric by which trials are ranked. The test set is never one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Share of validation images classified rightly: the higher the better.
    ValidationAccuracy,
    /// Mean cross-entropy over the validation images: the lower the better.
    ValidationLoss,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 2] = [Self::ValidationAccuracy, Self::ValidationLoss];

    /// Its name in search files and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ValidationAccuracy => "validation_accuracy",
            Self::ValidationLoss => "validation_loss",
        }
    }

    /// Its value in a report.
    pub const fn of(self, report: &Report) -> Finite {
        match self {
            Self::ValidationAccuracy => report.validation.accuracy,
            Self::ValidationLoss => report.validation.loss,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The loss became infinite or NaN. This is a result: it ranks last and is not tried again.
    Diverged,
    /// The device or the machine had too little memory.
    OutOfMemory,
    /// The trainer process ended without an outcome.
    TrainerCrashed,
    /// The worker was silent past its lease.
    WorkerLost,
    /// The dataset could not be had or did not match its hash.
    BadData,
    /// The trainer made no progress for too long.
    Timeout,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Diverged,
        Self::OutOfMemory,
        Self::TrainerCrashed,
        Self::WorkerLost,
        Self::BadData,
        Self::Timeout,
    ];

    /// Its name in JSON, in exports and on the trainer's lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Diverged => "diverged",
            Self::OutOfMemory => "out_of_memory",
            Self::TrainerCrashed => "trainer_crashed",
            Self::WorkerLost => "worker_lost",
            Self::BadData => "bad_data",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub reason: FailureReason,
    /// What happened, for people; at most [`Failure::MAX_DETAIL`] bytes.
    pub detail: String,
}

impl Failure {
    /// The longest detail that is kept, in bytes.
    pub const MAX_DETAIL: usize = 4096;

    /// A failure with its detail cut to what is kept.
    pub fn new(reason: FailureReason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > Self::MAX_DETAIL {
            let end = (0..=Self::MAX_DETAIL).rev().find(|&at| detail.is_char_boundary(at)).unwrap_or(0);
            detail.truncate(end);
        }
        Self { reason, detail }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            self.reason.fmt(f)
        } else {
            write!(f, "{}: {}", self.reason, self.detail)
        }
    }
}
