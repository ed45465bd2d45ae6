//! The lines that an agent and its trainer process exchange: JSON objects, one a line.
//!
//! The agent writes [`Command`]s to the trainer's standard input; the trainer writes [`Event`]s to
//! its standard output, and nothing else; what it has to say to people goes to standard error.
//! Commands are carried out one after the other, except that `stop` takes effect at once. At the
//! end of its input the trainer exits at once, so that it never outlives its agent.
//!
//! ```text
//! < {"event":"ready","protocol":1,"device":"cpu"}
//! > {"command":"train","id":"7/1","dataset":["/cache/a","/cache/b","/cache/c","/cache/d"],
//!    "hyperparameters":{"model":"fcn", …},"seeds":{"split":1,"order":2,"trial":3},
//!    "track_test":false,"model_file":"/cache/7-1.safetensors",
//!    "checkpoints":{"folder":"/cache/7-1","every_epochs":null,"every_seconds":60},"resume_from":null}
//! < {"event":"progress","id":"7/1","epoch":1,"step":200,"steps":422}
//! < {"event":"epoch","id":"7/1","epoch":1,"train_loss":0.52, …}
//! < {"event":"checkpoint","id":"7/1","file":"/cache/7-1/checkpoint-1-57","epoch":1,"step":57}
//! < {"event":"finished","id":"7/1","model_file":"/cache/7-1.safetensors"}
//! ```
//!
//! Every `train` is answered by exactly one of `finished`, `stopped`, `refused`, `unwritten` or `failed` in
//! the end, every `evaluate` by `evaluated`, `stopped` or `failed`. A `stop` or `suspend` for an id that is
//! not known, or no longer, is ignored. A line that is no command is answered by `failed` with an empty id.
//!
//! A training that is gone on with tells of the epochs after those in its checkpoint. The file of a
//! checkpoint is whole when it is told of, and from then on the agent's, to take away.

use std::num::NonZeroU32;
use std::path::PathBuf;

use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::trial::{FailureReason, Finite, Report, Score};
use serde::{Deserialize, Deserializer, Serialize};

use fittingroom_common::trial::Seeds;

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// The four unpacked IDX files of a dataset, in the order of
/// [`fittingroom_common::dataset::FileRole::ALL`].
pub type DatasetFiles = [PathBuf; 4];

/// What an agent asks of its trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Train a trial from its beginning, or from a checkpoint.
    Train(TrainCommand),
    /// Evaluate a model on the test images.
    Evaluate {
        /// Names this command in its events.
        id: String,
        /// The files with the test images.
        dataset: DatasetFiles,
        /// The model.
        model_file: PathBuf,
    },
    /// End a command early.
    Stop {
        /// The command.
        id: String,
    },
    /// End a command early, after a last checkpoint if it makes any.
    Suspend {
        /// The command.
        id: String,
    },
}

/// What it takes to train a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainCommand {
    /// Names this command in its events.
    pub id: String,
    /// The files to train on.
    pub dataset: DatasetFiles,
    /// A complete set.
    pub hyperparameters: Hyperparameters,
    /// Where randomness comes from.
    pub seeds: Seeds,
    /// Whether the test images are evaluated after every epoch.
    pub track_test: bool,
    /// Where the trained model goes.
    pub model_file: PathBuf,
    /// When checkpoints are made, and where they go; none if there are to be none.
    #[serde(default)]
    pub checkpoints: Option<Checkpoints>,
    /// What to go on from; `None` for the beginning.
    #[serde(default)]
    pub resume_from: Option<ResumeFrom>,
}

/// When checkpoints are made, and where they go. One is made at the first step after one of these
/// has passed since the last, or since training began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// The folder for their files.
    pub folder: PathBuf,
    /// Epochs that were finished.
    pub every_epochs: Option<NonZeroU32>,
    /// Seconds of training.
    pub every_seconds: Option<NonZeroU32>,
}

/// A checkpoint to go on from. Where it is another than it is said to be, it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeFrom {
    /// The file.
    pub file: PathBuf,
    /// Epochs done in it.
    pub epoch: u32,
    /// Steps done in the epoch after those.
    pub step: u32,
}

/// What a trainer tells its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The trainer takes commands: its first line.
    Ready {
        /// [`VERSION`].
        protocol: u32,
        /// What it trains on: `cpu`, `cuda:N` or `metal`.
        device: String,
    },
    /// Training moves; at most about four times a second.
    Progress {
        /// Of the command.
        id: String,
        /// The epoch in progress, from 1.
        epoch: u32,
        /// Steps done in it.
        step: usize,
        /// Steps that it has.
        steps: usize,
    },
    /// An epoch is done.
    Epoch {
        /// Of the command.
        id: String,
        /// Its metrics.
        #[serde(flatten)]
        metrics: EpochMetrics,
    },
    /// A checkpoint is written.
    Checkpoint {
        /// Of the command.
        id: String,
        /// Where it lies, whole.
        file: PathBuf,
        /// Epochs done in it; each was told before.
        epoch: u32,
        /// Steps done in the epoch after those.
        step: u32,
    },
    /// The checkpoint to go on from cannot be used; nothing was trained.
    Refused {
        /// Of the command.
        id: String,
        /// What is wrong with it, for people.
        problem: String,
    },
    /// Something could not be done that training goes on without: a checkpoint.
    Warned {
        /// Of the command.
        id: String,
        /// What is wrong, for people.
        problem: String,
    },
    /// Training is done, but this machine's disk does not take the model. Elsewhere it may well be trained.
    Unwritten {
        /// Of the command.
        id: String,
        /// What is wrong, for people.
        problem: String,
        /// About how many bytes the model has.
        bytes: u64,
    },
    /// Training is done.
    Finished {
        /// Of the command.
        id: String,
        /// Where the model lies, whole.
        model_file: PathBuf,
    },
    /// Evaluation is done.
    Evaluated {
        /// Of the command.
        id: String,
        /// Mean cross-entropy over the test images, in nats per image.
        loss: f64,
        /// Share of test images classified rightly, from 0 to 1.
        accuracy: f64,
    },
    /// The command was ended by `stop` or `suspend`.
    Stopped {
        /// Of the command.
        id: String,
    },
    /// The command failed.
    Failed {
        /// Of the command; empty for a line that was no command.
        id: String,
        /// The kind of failure.
        #[serde(deserialize_with = "reason_by_name")]
        reason: FailureReason,
        /// What happened, for people.
        detail: String,
    },
}

/// The metrics of an epoch by their names in JSON: also what `train --json` prints. Losses are in
/// nats per image, accuracies from 0 to 1; what was not evaluated is null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Epochs done, from 1.
    pub epoch: u32,
    /// See [`Report::train`].
    pub train_loss: f64,
    /// See [`Report::train`].
    pub train_accuracy: f64,
    /// See [`Report::validation`].
    pub validation_loss: f64,
    /// See [`Report::validation`].
    pub validation_accuracy: f64,
    /// See [`Report::test`].
    pub test_loss: Option<f64>,
    /// See [`Report::test`].
    pub test_accuracy: Option<f64>,
    /// See [`Report::seconds`].
    pub seconds: f64,
    /// See [`Report::images_per_second`].
    pub images_per_second: f64,
}

impl From<&Report> for EpochMetrics {
    fn from(report: &Report) -> Self {
        Self {
            epoch: report.epoch,
            train_loss: report.train.loss.get(),
            train_accuracy: report.train.accuracy.get(),
            validation_loss: report.validation.loss.get(),
            validation_accuracy: report.validation.accuracy.get(),
            test_loss: report.test.map(|test| test.loss.get()),
            test_accuracy: report.test.map(|test| test.accuracy.get()),
            seconds: report.seconds,
            images_per_second: report.images_per_second,
        }
    }
}

impl EpochMetrics {
    /// The report that these spell out, if all of their numbers are finite.
    pub fn report(&self) -> Option<Report> {
        let score =
            |loss, accuracy| Some(Score { loss: Finite::new(loss)?, accuracy: Finite::new(accuracy)? });
        let test = match (self.test_loss, self.test_accuracy) {
            (Some(loss), Some(accuracy)) => Some(score(loss, accuracy)?),
            _ => None,
        };
        Some(Report {
            epoch: self.epoch,
            train: score(self.train_loss, self.train_accuracy)?,
            validation: score(self.validation_loss, self.validation_accuracy)?,
            test,
            seconds: Finite::new(self.seconds)?.get(),
            images_per_second: Finite::new(self.images_per_second)?.get(),
        })
    }
}

fn reason_by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FailureReason, D::Error> {
    let name = String::deserialize(deserializer)?;
    FailureReason::ALL
        .into_iter()
        .find(|reason| reason.name() == name)
        .ok_or_else(|| serde::de::Error::custom(format!("there is no failure reason {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let report = Report {
            epoch: 2,
            train: score(0.5, 0.75),
            validation: score(0.25, 1.0),
            test: None,
            seconds: 1.5,
            images_per_second: 1000.0,
        };
        for (event, line) in [
            (
                Event::Ready { protocol: 1, device: "cpu".into() },
                r#"{"event":"ready","protocol":1,"device":"cpu"}"#,
            ),
            (
                Event::Epoch { id: "7/1".into(), metrics: (&report).into() },
                r#"{"event":"epoch","id":"7/1","epoch":2,"train_loss":0.5,"train_accuracy":0.75,"validation_loss":0.25,"validation_accuracy":1.0,"test_loss":null,"test_accuracy":null,"seconds":1.5,"images_per_second":1000.0}"#,
            ),
            (
                Event::Checkpoint { id: "7/1".into(), file: "/cache/c".into(), epoch: 1, step: 57 },
                r#"{"event":"checkpoint","id":"7/1","file":"/cache/c","epoch":1,"step":57}"#,
            ),
            (
                Event::Refused { id: "7/1".into(), problem: "it is damaged".into() },
                r#"{"event":"refused","id":"7/1","problem":"it is damaged"}"#,
            ),
            (
                Event::Warned { id: "7/1".into(), problem: "the disk is full".into() },
                r#"{"event":"warned","id":"7/1","problem":"the disk is full"}"#,
            ),
            (
                Event::Unwritten { id: "7/1".into(), problem: "the disk is full".into(), bytes: 7 },
                r#"{"event":"unwritten","id":"7/1","problem":"the disk is full","bytes":7}"#,
            ),
            (
                Event::Failed { id: "a".into(), reason: FailureReason::OutOfMemory, detail: "full".into() },
                r#"{"event":"failed","id":"a","reason":"out_of_memory","detail":"full"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&event).expect("serialises"), line);
            assert_eq!(serde_json::from_str::<Event>(line).expect("reads"), event);
        }
        assert_eq!(EpochMetrics::from(&report).report(), Some(report));
    }

    #[test]
    fn commands_read_back() {
        let dataset: DatasetFiles = ["a", "b", "c", "d"].map(PathBuf::from);
        let train = TrainCommand {
            id: "x".into(),
            dataset: dataset.clone(),
            hyperparameters: Hyperparameters::defaults(),
            seeds: Seeds { split: u64::MAX, order: 1, trial: 2 },
            track_test: true,
            model_file: "m".into(),
            checkpoints: Some(Checkpoints {
                folder: "c".into(),
                every_epochs: None,
                every_seconds: NonZeroU32::new(60),
            }),
            resume_from: Some(ResumeFrom { file: "f".into(), epoch: 3, step: 7 }),
        };
        for command in [
            Command::Train(train),
            Command::Evaluate { id: "y".into(), dataset, model_file: "m".into() },
            Command::Stop { id: "x".into() },
            Command::Suspend { id: "x".into() },
        ] {
            let line = serde_json::to_string(&command).expect("serialises");
            assert_eq!(serde_json::from_str::<Command>(&line).expect("reads"), command, "{line}");
        }
    }

    fn score(loss: f64, accuracy: f64) -> Score {
        let finite = |number| Finite::new(number).expect("finite");
        Score { loss: finite(loss), accuracy: finite(accuracy) }
    }
}
