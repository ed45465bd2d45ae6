//! Between the agent's words and the trainer's: domain types on one side, its lines on the other.

use std::path::PathBuf;

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::length::TrainingLength;
use fittingroom_common::trial::{Finite, Score};
use fittingroom_common::view::Progress;
use fittingroom_common::work::Work;
use tempfile::TempDir;

use crate::trainer::protocol::{Checkpoints, Command, ResumeFrom, TrainCommand};

/// The files that an attempt works with.
#[derive(Debug)]
pub(crate) struct Files {
    /// The dataset's four, in the order of its manifest.
    pub(crate) dataset: [PathBuf; 4],
    /// The model: to be written by training, to be read by evaluation.
    pub(crate) model: PathBuf,
    /// Holds what training writes, and takes it away in the end.
    pub(crate) folder: Option<TempDir>,
}

/// The command for a piece of work, and for training what to go on from.
pub(crate) fn command(run: &str, work: &Work, files: &Files, resume_from: Option<ResumeFrom>) -> Command {
    match work {
        Work::Train { hyperparameters, seeds, track_test, checkpoint, .. } => Command::Train(TrainCommand {
            id: run.to_owned(),
            dataset: files.dataset.clone(),
            hyperparameters: hyperparameters.clone(),
            seeds: *seeds,
            track_test: *track_test,
            model_file: files.model.clone(),
            checkpoints: files.folder.as_ref().filter(|_| checkpoint.makes_some()).map(|folder| {
                Checkpoints {
                    folder: folder.path().to_owned(),
                    every_epochs: checkpoint.every_epochs,
                    every_seconds: checkpoint.every_seconds,
                }
            }),
            resume_from,
        }),
        Work::Evaluate { .. } => Command::Evaluate {
            id: run.to_owned(),
            dataset: files.dataset.clone(),
            model_file: files.model.clone(),
        },
    }
}

/// How many epochs the work will report.
pub(crate) fn length(work: &Work) -> TrainingLength {
    match work {
        Work::Train { hyperparameters, .. } => {
            TrainingLength::read(|parameter| hyperparameters.get(parameter))
        }
        Work::Evaluate { .. } => TrainingLength { epochs: 0, patience: 0 },
    }
}

/// The checkpoints that the work may go on from, the newest first.
pub(crate) fn checkpoints(work: &Work) -> &[Checkpoint] {
    match work {
        Work::Train { resume_from, .. } => resume_from,
        Work::Evaluate { .. } => &[],
    }
}

/// How far a run is.
pub(crate) fn progress(epoch: u32, step: usize, steps: usize) -> Option<Progress> {
    Some(Progress { epoch, step: step.try_into().ok()?, steps: steps.try_into().ok()? })
}

/// A model's score.
pub(crate) fn score(loss: f64, accuracy: f64) -> Option<Score> {
    Some(Score { loss: Finite::new(loss)?, accuracy: Finite::new(accuracy)? })
}
