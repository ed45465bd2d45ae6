//! What a trainer does for a command: train a trial, or evaluate a model.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use candle_core::Device;
use fittingroom_common::dataset::{Dataset, DatasetError, Manifest};
use fittingroom_common::id::{ArtifactHash, Name};
use fittingroom_common::record::{DatasetRecord, Recipe, Shuffle};
use fittingroom_common::trial::{Failure, FailureReason};
use memmap2::Mmap;

use super::checkpoints::{self, Checkpoints};
use super::protocol::{DatasetFiles, Event, TrainCommand};
use super::wish::{Wish, Wishes};
use crate::train::checkpoint::Checkpoint;
use crate::train::data::Placed;
use crate::train::evaluate::evaluate;
use crate::train::hyper::Group;
use crate::train::model::ImageShape;
use crate::train::save::{self, Record, SaveError};
use crate::train::{Outcome, Progress, Stop, Testing, TrainError, resume, train};

/// The shortest time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Work for a trainer.
#[derive(Debug)]
pub(super) enum Job {
    Train(TrainCommand),
    Evaluate { id: String, dataset: DatasetFiles, model_file: PathBuf },
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Ended {
    Finished {
        model_file: PathBuf,
    },
    Evaluated {
        loss: f64,
        accuracy: f64,
    },
    Stopped,
    /// Because of the checkpoint that it was to go on from.
    Refused(String),
    /// The disk does not take a model of this size.
    Unwritten {
        problem: String,
        bytes: u64,
    },
    Failed(Failure),
}

impl Ended {
    /// The event that ends the command of this id.
    pub(super) fn event(self, id: String) -> Event {
        match self {
            Self::Finished { model_file } => Event::Finished { id, model_file },
            Self::Evaluated { loss, accuracy } => Event::Evaluated { id, loss, accuracy },
            Self::Stopped => Event::Stopped { id },
            Self::Refused(problem) => Event::Refused { id, problem },
            Self::Unwritten { problem, bytes } => Event::Unwritten { id, problem, bytes },
            Self::Failed(Failure { reason, detail }) => Event::Failed { id, reason, detail },
        }
    }
}

/// What a trainer keeps from job to job: the dataset, as long as its files are the same.
#[derive(Debug, Default)]
pub(super) struct Memory(Option<(DatasetFiles, Arc<Known>)>);

/// A dataset where the trainer's device can read it, and what a checkpoint says of it.
#[derive(Debug)]
struct Known {
    placed: Placed,
    record: DatasetRecord,
}

impl Memory {
    fn dataset(&mut self, files: &DatasetFiles, device: &Device) -> Result<Arc<Known>, Failure> {
        if let Some((known, dataset)) = &self.0
            && known == files
        {
            return Ok(dataset.clone());
        }
        // The old one goes first, so that there are never two in memory.
        self.0 = None;
        let dataset = Arc::new(read(files, device)?);
        self.0 = Some((files.clone(), dataset.clone()));
        Ok(dataset)
    }
}

fn read(files: &DatasetFiles, device: &Device) -> Result<Known, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::new(FailureReason::BadData, error.to_string());
    let [a, b, c, d] = files.each_ref().map(|path| {
        let mapped = map(path).map_err(|source| DatasetError::Read { path: path.clone(), source });
        mapped.map_err(|error| bad(&error))
    });
    let files = [a?, b?, c?, d?];
    let hashes = files.each_ref().map(|bytes| ArtifactHash::of(bytes));
    let dataset = Dataset::from_files(files).map_err(|error| bad(&error))?;
    // Agents call the files by their hashes: the content counts.
    let name = Name::sanitised("dataset");
    let manifest = Manifest { name, shape: dataset.shape, files: hashes };
    let placed = Placed::new(dataset, device).map_err(TrainError::from)?;
    Ok(Known { placed, record: DatasetRecord::from(&manifest) })
}

/// A file as it lies in the system's memory, where all trainers of a machine share it.
fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    // SAFETY: what the agent's cache holds is named by its hash and never written again, only
    // replaced as a whole. Where somebody else cuts a file short, the system ends this process, and
    // the agent reports a crash.
    let mapped = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(mapped))
}

impl Job {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Train(command) => &command.id,
            Self::Evaluate { id, .. } => id,
        }
    }

    /// Does the work. An error is one of `tell`: nobody listens any more.
    pub(super) fn run(
        self,
        device: &Device,
        memory: &mut Memory,
        wishes: &Wishes,
        tell: &mut dyn FnMut(Event) -> io::Result<()>,
    ) -> io::Result<Ended> {
        if wishes.now() != Wish::GoOn {
            return Ok(Ended::Stopped);
        }
        let mut unheard = None;
        let ended = match self {
            Self::Train(command) => memory.dataset(&command.dataset, device).and_then(|known| {
                let mut tell = |event| tell(event).map_err(|error| unheard = Some(error)).is_ok();
                train_trial(&command, &known, wishes, &mut tell)
            }),
            Self::Evaluate { dataset, model_file, .. } => {
                memory.dataset(&dataset, device).and_then(|known| test(&model_file, &known.placed))
            }
        };
        match unheard {
            Some(error) => Err(error),
            None => Ok(ended.unwrap_or_else(Ended::Failed)),
        }
    }
}

/// `tell` answers whether anybody still listens.
fn train_trial(
    command: &TrainCommand,
    known: &Known,
    wishes: &Wishes,
    tell: &mut dyn FnMut(Event) -> bool,
) -> Result<Ended, Failure> {
    let group = Group::single(&command.hyperparameters, command.seeds).map_err(TrainError::from)?;
    let testing = if command.track_test { Testing::EveryEpoch } else { Testing::Never };
    let recipes = [Recipe {
        hyperparameters: command.hyperparameters.clone(),
        seeds: command.seeds,
        shuffle: Shuffle::On,
        initial_weights: None,
        dataset: known.record.clone(),
    }];
    let from = command.resume_from.as_ref().map(|from| checkpoints::read(from, &recipes)).transpose();
    let from = match from {
        Ok(from) => from,
        Err(problem) => return Ok(Ended::Refused(problem)),
    };
    let begin = from.as_ref().map_or(1, Checkpoint::epoch);
    let mut checkpoints = command.checkpoints.as_ref().map(|it| Checkpoints::new(it, &recipes, begin));
    let mut told: Option<Instant> = None;
    let mut on_progress = |progress: Progress<'_>| {
        let (id, wish) = (|| command.id.clone(), wishes.now());
        let (heard, may_suspend) = match progress {
            Progress::Step { epoch, step, steps, state } => {
                let due = told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY);
                if due {
                    told = Some(Instant::now());
                }
                let mut heard = !due || tell(Event::Progress { id: id(), epoch, step, steps });
                if let Some(checkpoints) = &mut checkpoints
                    && (checkpoints.is_due(state) || wish == Wish::Suspend)
                    && let Some(event) = checkpoints.write(&command.id, state)
                {
                    heard &= tell(event);
                }
                (heard, true)
            }
            // A training that is gone on with tells again of the epochs in its checkpoint.
            Progress::Epoch(lanes) => {
                let mut reports = lanes.iter().flatten().filter(|report| report.epoch >= begin);
                let heard = reports.all(|report| tell(Event::Epoch { id: id(), metrics: report.into() }));
                (heard, checkpoints.is_none())
            }
        };
        match wish {
            Wish::GoOn if heard => ControlFlow::Continue(()),
            Wish::Suspend if heard && !may_suspend => ControlFlow::Continue(()),
            Wish::GoOn | Wish::Suspend | Wish::Stop => ControlFlow::Break(Stop),
        }
    };
    let outcome = match &from {
        Some(from) => resume(from, &group, &known.placed, testing, &mut on_progress),
        None => train(&group, &known.placed, testing, &mut on_progress),
    };
    let outcome = match outcome {
        Err(TrainError::Checkpoint(error)) => return Ok(Ended::Refused(error.to_string())),
        outcome => outcome?,
    };
    let trained = match outcome {
        Outcome::Stopped => return Ok(Ended::Stopped),
        Outcome::Finished(trained) => trained,
    };
    if let Some(Err(divergence)) = trained.lanes.first() {
        return Ok(Ended::Failed(Failure::new(FailureReason::Diverged, divergence.to_string())));
    }
    let record = Record {
        hyperparameters: command.hyperparameters.clone(),
        seeds: command.seeds,
        images: trained.images,
        input: trained.input,
    };
    match save::save(&command.model_file, &trained.model, 0, &record) {
        Ok(()) => Ok(Ended::Finished { model_file: command.model_file.clone() }),
        Err(error @ SaveError::Write { .. }) => {
            let numbers: usize = trained.model.parameters.iter().map(|it| it.values().elem_count()).sum();
            Ok(Ended::Unwritten { problem: error.to_string(), bytes: 4 * numbers as u64 })
        }
        Err(error @ SaveError::Device(_)) => {
            Err(Failure::new(FailureReason::TrainerCrashed, error.to_string()))
        }
    }
}

fn test(model_file: &Path, placed: &Placed) -> Result<Ended, Failure> {
    let crashed = |detail: String| Failure::new(FailureReason::TrainerCrashed, detail);
    let (model, record) =
        save::load(model_file, placed.device()).map_err(|error| crashed(error.to_string()))?;
    let images = ImageShape::of(&placed.dataset().shape);
    if images != record.images {
        let detail = format!("the model is for {:?}, but the dataset has {images:?}", record.images);
        return Err(Failure::new(FailureReason::BadData, detail));
    }
    let images = placed.test(record.input);
    let all: Vec<u32> = (0..images.count() as u32).collect();
    let score = evaluate(&model, 1, &images, &all, placed.device());
    match score.map_err(TrainError::from)?.first() {
        Some(score) if score.loss.is_finite() => {
            Ok(Ended::Evaluated { loss: score.loss, accuracy: score.accuracy })
        }
        _ => Err(Failure::new(FailureReason::Diverged, "the model's loss on the test images is not finite")),
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        let reason = match &error {
            TrainError::Model(_) | TrainError::Augmentation(_) | TrainError::TooFewImages { .. } => {
                FailureReason::BadData
            }
            TrainError::OutOfMemory(_) => FailureReason::OutOfMemory,
            TrainError::Settings(_) | TrainError::Checkpoint(_) | TrainError::Device(_) => {
                FailureReason::TrainerCrashed
            }
        };
        Self::new(reason, error.to_string())
    }
}
