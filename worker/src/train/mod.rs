//! The training engine: a pure function of hyperparameters, seeds and a dataset, but for the time
//! that it measures.
//!
//! Trials of the same shape can be trained as one model: parameters and activations carry a leading
//! `lanes` dimension, the lanes share the batches, and each lane gets the same bits that it would
//! get alone. One lane is the ordinary case.
//!
//! This module must not know where trials come from or where metrics go: no network, no async
//! runtime, no wire format. Callers hear of progress through a callback and stop training by its
//! answer.

pub mod augment;
pub mod average;
pub mod checkpoint;
#[cfg(feature = "cuda")]
mod cuda;
pub mod data;
pub mod device;
pub mod early_stopping;
mod element;
pub mod evaluate;
#[cfg(test)]
mod golden;
pub mod hyper;
pub mod init;
mod lanes;
pub mod layer;
pub mod machine;
mod matrix;
pub mod model;
pub mod ops;
pub mod optim;
pub mod params;
pub mod rng;
pub mod save;
pub mod schedule;
mod simd;
pub mod state;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
mod transpose;
pub mod weights;

use std::mem;
use std::ops::ControlFlow;
use std::time::Instant;

use fittingroom_common::trial::Report;

use self::augment::{Augmenter, ShiftTooLarge};
use self::checkpoint::{Checkpoint, CheckpointError};
use self::data::{Batch, Data, Placed, Standardization};
use self::evaluate::{Tally, evaluate};
use self::hyper::{Group, SettingsError};
use self::lanes::{LaneEpoch, Next, finite};
use self::model::{ImageShape, Model, ModelError};
use self::ops::Tape;
use self::ops::cross_entropy::mixed_cross_entropy;
use self::rng::Moment;
use self::schedule::Place;
use self::state::{EpochReports, State};

/// When the test images are looked at. They never take part in a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testing {
    /// Not at all.
    Never,
    /// After the last epoch, of each lane.
    AtTheEnd,
    /// After every epoch.
    EveryEpoch,
}

/// What a caller hears while training.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A step is done.
    Step {
        /// The epoch in progress, from 1.
        epoch: u32,
        /// Steps done in it.
        step: usize,
        /// Steps that it has.
        steps: usize,
        /// What a checkpoint holds: see [`checkpoint::save`].
        state: &'a State,
    },
    /// An epoch is done; the lanes in order.
    Epoch(&'a [Result<Report, Ended>]),
}

/// A caller's wish that training end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// A lane's loss became infinite or NaN. This is a result, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("the loss became infinite or NaN in epoch {epoch}")]
pub struct Divergence {
    /// The epoch in which it was seen, from 1.
    pub epoch: u32,
}

/// Why a lane reports no more epochs, though others of its group go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Ended {
    /// Its validation loss has not become lower for as long as its patience. It holds a trained model.
    #[error("training stopped early, after epoch {epoch}")]
    Early {
        /// The last epoch that it reported, from 1.
        epoch: u32,
    },
    /// Its loss became infinite or NaN.
    #[error(transparent)]
    Diverged(#[from] Divergence),
}

/// How training ended.
#[derive(Debug)]
pub enum Outcome {
    /// All epochs are done, or no lane is left to train.
    Finished(Box<Trained>),
    /// The caller stopped it.
    Stopped,
}

/// A trained model.
#[derive(Debug)]
pub struct Trained {
    /// The model of all lanes; with averaged weights where a lane asks for them.
    pub model: Model,
    /// What it takes as input.
    pub images: ImageShape,
    /// How grey values become its input.
    pub input: Standardization,
    /// Which of the lanes hold a trained model.
    pub lanes: Vec<Result<(), Divergence>>,
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The hyperparameters cannot be trained with.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The model does not fit on the images, or the given weights on the model.
    #[error(transparent)]
    Model(ModelError),
    /// The augmentation does not fit on the images.
    #[error(transparent)]
    Augmentation(#[from] ShiftTooLarge),
    /// There are too few images to train on.
    #[error("the dataset has {images} training images: at least {needed} are needed to train and validate")]
    TooFewImages {
        /// How many there are.
        images: usize,
        /// How many it takes.
        needed: usize,
    },
    /// The checkpoint does not hold this training.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device or the machine had too little memory.
    #[error("{0}. Take a smaller model or batch_size")]
    OutOfMemory(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        // Candle wraps drivers' errors in text: there is no variant to match.
        let text = error.to_string();
        let lower = text.to_lowercase();
        if lower.contains("out of memory") || lower.contains("out_of_memory") {
            Self::OutOfMemory(text)
        } else {
            Self::Device(text)
        }
    }
}

impl From<ModelError> for TrainError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Tensor(error) => error.into(),
            ModelError::ImagesTooSmall { .. }
            | ModelError::UnfitGroups { .. }
            | ModelError::SinglePixels { .. }
            | ModelError::Weights(_) => Self::Model(error),
            ModelError::TooLarge { .. } => Self::OutOfMemory(error.to_string()),
        }
    }
}

/// Trains a group of trials, where the dataset is.
///
/// The training loss is the mean of the objective as it was minimised: with dropout, with label
/// smoothing, without weight decay or L1 penalty, each image at the step that trained on it.
/// Validation and test losses are plain cross-entropy in evaluation. The last batch of an epoch may
/// be smaller than the others; where batch normalisation is used, one of a single image is left out.
/// With mixup and cutmix the training accuracy counts the class with the larger share of each image.
///
/// A lane that stops early keeps the weights of the epoch after which it stopped, not those of its
/// best epoch: what is trained is what was last reported.
pub fn train(
    group: &Group,
    placed: &Placed,
    testing: Testing,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<Stop>,
) -> Result<Outcome, TrainError> {
    run(None, group, placed, testing, on_progress)
}

/// Goes on with the training of a group from a checkpoint of it: whatever step it was interrupted
/// at, all that follows has the bits that it would have had. The epochs that were done before are
/// told again first, so that a caller hears the whole story.
///
/// The seconds of a report count all parts of a training, but not the time between them; images per
/// second are those of the part that ended the epoch.
pub fn resume(
    checkpoint: &Checkpoint,
    group: &Group,
    placed: &Placed,
    testing: Testing,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<Stop>,
) -> Result<Outcome, TrainError> {
    run(Some(checkpoint), group, placed, testing, on_progress)
}

fn run(
    checkpoint: Option<&Checkpoint>,
    group: &Group,
    placed: &Placed,
    testing: Testing,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<Stop>,
) -> Result<Outcome, TrainError> {
    let (lanes, epochs) = (group.lanes.len(), group.shape.epochs);
    let smoothing: Vec<f64> = group.lanes.iter().map(|lane| lane.label_smoothing).collect();
    let (dataset, device) = (placed.dataset(), placed.device());
    let data = Data::new(placed, group.split_seed, group.shape.input);
    let smallest_batch = group.shape.smallest_batch();
    if data.split.training.len() < smallest_batch {
        let images = dataset.train.labels.len();
        return Err(TrainError::TooFewImages { images, needed: smallest_batch + 1 });
    }
    let images = ImageShape::of(&dataset.shape);
    let augmenter = Augmenter::new(group.shape.augmentation, group.augmentation_seed, images)?;
    let mut state = State::new(group, images, device)?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.restore(&mut state, epochs)?;
        if state.history.iter().any(|reports| on_progress(Progress::Epoch(reports)).is_break()) {
            return Ok(Outcome::Stopped);
        }
    }

    for epoch in state.epoch..=epochs {
        let epoch_started = Instant::now();
        let trained_before = state.tally.images();
        let order = data.split.order(group.order, epoch);
        let batches = order.chunks(group.shape.batch_size).filter(|batch| batch.len() >= smallest_batch);
        let steps = batches.clone().count();
        for (step, indices) in batches.enumerate().skip(state.step) {
            if state.tally.finite().is_some_and(|mut finite| !finite.any(|finite| finite)) {
                break;
            }
            let moment = Moment { epoch, step };
            let changes = augmenter.draw(moment, indices.len());
            let Batch { images, labels, mixed } = data.images.augmented(indices, changes.as_ref())?;
            let mut tape = Tape::new();
            let logits = state.model.train(&images, moment, &mut tape)?;
            let loss = mixed_cross_entropy(&logits, &labels, mixed.as_ref(), &smoothing, Some(&mut tape))?;
            state.tally.add(&loss, &logits, &labels)?;
            tape.backward(&loss)?;
            state.update(Place { moment, steps, epochs })?;
            if on_progress(Progress::Step { epoch, step: step + 1, steps, state: &state }).is_break() {
                return Ok(Outcome::Stopped);
            }
        }
        let trained = state.tally.images() - trained_before;
        let train = mem::replace(&mut state.tally, Tally::new(lanes, device)?).finish()?;
        let images_per_second = trained as f64 / epoch_started.elapsed().as_secs_f64();

        let evaluated = state.average.as_ref().map_or(&state.model, |average| &average.model);
        let score = |images, indices: &[u32]| evaluate(evaluated, lanes, images, indices, device);
        let validation = score(&data.images, &data.split.validation)?;
        state.scheduler.observe(validation.iter().map(|score| score.loss));
        let ends = state.standing.end_epoch(epoch, &train, &validation, evaluated)?;
        let is_tested = |end: &Result<LaneEpoch, Ended>| end.is_ok_and(|end| testing.is_due(end.next));
        let test = if ends.iter().any(is_tested) {
            Some(score(&data.test, &(0..data.test.count() as u32).collect::<Vec<u32>>())?)
        } else {
            None
        };
        let seconds = state.seconds();
        let report = |(lane, end): (usize, &Result<LaneEpoch, Ended>)| {
            // The test set decides nothing, not even that a trial diverged.
            let test = test.as_deref().filter(|_| is_tested(end)).and_then(|test| finite(test[lane]));
            let LaneEpoch { train, validation, .. } = (*end)?;
            Ok(Report { epoch, train, validation, test, seconds, images_per_second })
        };
        let reports: EpochReports = ends.iter().enumerate().map(report).collect();
        if on_progress(Progress::Epoch(&reports)).is_break() {
            return Ok(Outcome::Stopped);
        }
        state.history.push(reports);
        (state.epoch, state.step) = (epoch + 1, 0);
        if state.standing.is_over() {
            break;
        }
    }
    let (model, lanes) = state.finish()?;
    Ok(Outcome::Finished(Trained { model, images, input: data.input, lanes }.into()))
}

impl Testing {
    fn is_due(self, next: Next) -> bool {
        match self {
            Self::Never => false,
            Self::AtTheEnd => next == Next::Ends,
            Self::EveryEpoch => true,
        }
    }
}

#[cfg(test)]
mod tests;
