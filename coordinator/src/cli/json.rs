//! The documents of `--json`. Scripts rely on the names of the fields: they are only ever added to.

mod workers;

use std::path::Path;

use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::Name;
use fittingroom_common::operator::Artifacts;
use fittingroom_common::record::DatasetRecord;
use fittingroom_common::trial::{Failure, Finite, Report};
use fittingroom_common::view::{
    AttemptHistory, EpochRow, LeaderboardView, SearchSummary, TrialHistory, TrialRow,
};
use serde::Serialize;

pub(crate) use self::workers::{Worker, Workers};
use crate::access::Entry;

/// One trial, in `leaderboard`, `export` and wherever else a trial is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Trial<'a> {
    pub(crate) rank: Option<u64>,
    pub(crate) trial: u64,
    pub(crate) state: &'static str,
    pub(crate) attempts: u32,
    pub(crate) worker: Option<&'a str>,
    pub(crate) hyperparameters: &'a Hyperparameters,
    pub(crate) epoch: Option<u32>,
    pub(crate) train_loss: Option<Finite>,
    pub(crate) train_accuracy: Option<Finite>,
    pub(crate) validation_loss: Option<Finite>,
    pub(crate) validation_accuracy: Option<Finite>,
    pub(crate) test_loss: Option<Finite>,
    pub(crate) test_accuracy: Option<Finite>,
    pub(crate) seconds: Option<f64>,
    pub(crate) failure: Option<&'static str>,
}

impl<'a> From<&'a TrialRow> for Trial<'a> {
    fn from(row: &'a TrialRow) -> Self {
        let report = row.report.as_ref();
        // The finished model's own evaluation, or else the newest epoch's where the search tracks it.
        let test = row.test.or_else(|| report.and_then(|report| report.test));
        Self {
            rank: row.rank,
            trial: row.trial.get(),
            state: row.state.name(),
            attempts: row.attempts,
            worker: row.place.as_ref().map(|(name, _)| name.as_str()),
            hyperparameters: &row.hyperparameters,
            epoch: report.map(|report| report.epoch),
            train_loss: report.map(|report| report.train.loss),
            train_accuracy: report.map(|report| report.train.accuracy),
            validation_loss: report.map(|report| report.validation.loss),
            validation_accuracy: report.map(|report| report.validation.accuracy),
            test_loss: test.map(|test| test.loss),
            test_accuracy: test.map(|test| test.accuracy),
            seconds: report.map(|report| report.seconds),
            failure: row.failure.as_ref().map(|failure| failure.reason.name()),
        }
    }
}

/// `leaderboard --json`, and each line of it with `--follow`.
#[derive(Debug, Serialize)]
pub(crate) struct Leaderboard<'a> {
    search: &'a str,
    state: &'static str,
    metric: &'static str,
    trials: Vec<Trial<'a>>,
}

impl<'a> Leaderboard<'a> {
    /// The whole of a leaderboard.
    pub(crate) fn new(search: &'a SearchSummary, trials: impl IntoIterator<Item = &'a TrialRow>) -> Self {
        Self {
            search: search.name.as_str(),
            state: search.state.name(),
            metric: search.metric.name(),
            trials: trials.into_iter().map(Trial::from).collect(),
        }
    }
}

impl<'a> From<&'a LeaderboardView> for Leaderboard<'a> {
    /// The ranked trials, then those that run and have no rank yet.
    fn from(view: &'a LeaderboardView) -> Self {
        let unranked = view
            .running
            .iter()
            .filter(|running| !view.ranked.iter().any(|ranked| ranked.trial == running.trial));
        Self::new(&view.search, view.ranked.iter().chain(unranked))
    }
}

/// `serve --json`: the one line that says that calls are answered.
#[derive(Debug, Serialize)]
pub(crate) struct Serving {
    /// Where workers and commands find the coordinator.
    pub(crate) url: String,
    /// Where monitoring finds its metrics, if anywhere.
    pub(crate) metrics: Option<String>,
}

/// `backup --json`: what was written.
#[derive(Debug, Serialize)]
pub(crate) struct BackedUp<'a> {
    pub(crate) file: &'a Path,
    pub(crate) bytes: u64,
    /// `included` or `left_out`.
    pub(crate) artifacts: Artifacts,
}

/// `restore --json`: what was restored.
#[derive(Debug, Serialize)]
pub(crate) struct Restored<'a> {
    pub(crate) data: &'a Path,
    /// The moment that it is of.
    pub(crate) made: String,
    pub(crate) searches: u64,
    pub(crate) artifacts: u64,
    /// Whether the models, datasets and checkpoints were in the backup.
    pub(crate) complete: bool,
}

/// `export --json`: what was written.
#[derive(Debug, Serialize)]
pub(crate) struct Exported<'a> {
    pub(crate) search: &'a Name,
    /// `trial` or `epoch`.
    pub(crate) unit: &'static str,
    pub(crate) rows: u64,
    pub(crate) out: &'a Path,
}

/// One search, in `list`.
#[derive(Debug, Serialize)]
pub(crate) struct Search<'a> {
    search: &'a str,
    state: &'static str,
    metric: &'static str,
    method: &'static str,
    dataset: &'a str,
    trials: u64,
    waiting: u64,
    running: u64,
    complete: u64,
    pruned: u64,
    failed: u64,
    cancelled: u64,
    created: String,
    ended: Option<String>,
    reason: Option<&'a str>,
    best: Option<Trial<'a>>,
}

impl<'a> From<&'a SearchSummary> for Search<'a> {
    fn from(it: &'a SearchSummary) -> Self {
        Self {
            search: it.name.as_str(),
            state: it.state.name(),
            metric: it.metric.name(),
            method: it.method.name(),
            dataset: it.dataset.as_str(),
            trials: it.trial_count,
            waiting: it.counts.waiting,
            running: it.counts.running,
            complete: it.counts.complete,
            pruned: it.counts.pruned,
            failed: it.counts.failed,
            cancelled: it.counts.cancelled,
            created: it.created.to_string(),
            ended: it.ended.map(|ended| ended.to_string()),
            reason: (!it.reason.is_empty()).then_some(it.reason.as_str()),
            best: it.best.as_ref().map(Trial::from),
        }
    }
}

/// `list --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Searches<'a> {
    /// Every search.
    pub(crate) searches: Vec<Search<'a>>,
}

/// The metrics of one epoch, in `trial` and in `export --epochs`.
#[derive(Debug, Serialize)]
pub(crate) struct Epoch {
    epoch: u32,
    train_loss: Finite,
    train_accuracy: Finite,
    validation_loss: Finite,
    validation_accuracy: Finite,
    test_loss: Option<Finite>,
    test_accuracy: Option<Finite>,
    seconds: f64,
    images_per_second: f64,
}

impl From<&Report> for Epoch {
    fn from(it: &Report) -> Self {
        Self {
            epoch: it.epoch,
            train_loss: it.train.loss,
            train_accuracy: it.train.accuracy,
            validation_loss: it.validation.loss,
            validation_accuracy: it.validation.accuracy,
            test_loss: it.test.map(|test| test.loss),
            test_accuracy: it.test.map(|test| test.accuracy),
            seconds: it.seconds,
            images_per_second: it.images_per_second,
        }
    }
}

/// One row of `export --epochs`.
#[derive(Debug, Serialize)]
pub(crate) struct TrialEpoch {
    trial: u64,
    attempt: u32,
    #[serde(flatten)]
    epoch: Epoch,
}

impl From<&EpochRow> for TrialEpoch {
    fn from(it: &EpochRow) -> Self {
        Self { trial: it.trial.get(), attempt: it.attempt.get(), epoch: Epoch::from(&it.report) }
    }
}

/// `trial --json`.
#[derive(Debug, Serialize)]
pub(crate) struct History<'a> {
    search: &'a str,
    #[serde(flatten)]
    trial: Trial<'a>,
    failure_detail: Option<&'a str>,
    replicate: u32,
    seeds: fittingroom_common::trial::Seeds,
    attempt_history: Vec<Attempt<'a>>,
}

/// One try at a trial, in `trial`.
#[derive(Debug, Serialize)]
pub(crate) struct Attempt<'a> {
    attempt: u32,
    worker: &'a str,
    slot: u32,
    started: String,
    ended: Option<String>,
    failure: Option<&'static str>,
    failure_detail: Option<&'a str>,
    /// Epochs done in the checkpoint that it went on from; null where it began at the first step.
    continued_from_epoch: Option<u32>,
    /// Steps done in the epoch after those.
    continued_from_step: Option<u32>,
    epochs: Vec<Epoch>,
}

fn detail(failure: Option<&Failure>) -> Option<&str> {
    failure.map(|failure| failure.detail.as_str())
}

impl<'a> History<'a> {
    /// The document of one trial of a search.
    pub(crate) fn new(search: &'a str, it: &'a TrialHistory) -> Self {
        Self {
            search,
            trial: Trial::from(&it.row),
            failure_detail: detail(it.row.failure.as_ref()),
            replicate: it.replicate,
            seeds: it.seeds,
            attempt_history: it.attempts.iter().map(Attempt::from).collect(),
        }
    }
}

impl<'a> From<&'a AttemptHistory> for Attempt<'a> {
    fn from(it: &'a AttemptHistory) -> Self {
        Self {
            attempt: it.number.get(),
            worker: it.place.0.as_str(),
            slot: it.place.1.get(),
            started: it.started.to_string(),
            ended: it.ended.map(|ended| ended.to_string()),
            failure: it.failure.as_ref().map(|failure| failure.reason.name()),
            failure_detail: detail(it.failure.as_ref()),
            continued_from_epoch: it.resumed_from.map(|checkpoint| checkpoint.place.epoch),
            continued_from_step: it.resumed_from.map(|checkpoint| checkpoint.place.step),
            epochs: it.epochs.iter().map(Epoch::from).collect(),
        }
    }
}

/// `dataset list --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Datasets {
    /// Every dataset that the coordinator holds.
    pub(crate) datasets: Vec<DatasetRecord>,
}

/// `certs --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Certificates<'a> {
    pub(crate) fingerprint: String,
    pub(crate) names: &'a [String],
    pub(crate) expires: String,
    pub(crate) made: bool,
}

/// A token, in `token list` and `token revoke`.
#[derive(Debug, Serialize)]
pub(crate) struct Token<'a> {
    pub(crate) name: &'a str,
    pub(crate) role: &'static str,
    pub(crate) id: String,
    pub(crate) created: String,
}

impl<'a> From<&'a Entry> for Token<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            name: entry.name.as_str(),
            role: entry.role.name(),
            id: entry.id().to_string(),
            created: entry.created.to_string(),
        }
    }
}

/// `token create --json`; `token` is null where it went into a file.
#[derive(Serialize)]
pub(crate) struct NewToken<'a> {
    #[serde(flatten)]
    pub(crate) token: Token<'a>,
    #[serde(rename = "token")]
    pub(crate) secret: Option<String>,
    pub(crate) coordinator: &'a str,
    pub(crate) fingerprint: Option<String>,
}

/// `token list --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Tokens<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
}
