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
mod matrix;
pub mod model;
pub mod ops;
pub mod optim;
pub mod params;
pub mod rng;
pub mod save;
pub mod schedule;
mod simd;
#[cfg(test)]
pub(crate) mod testing;
pub mod weights;

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::Device;
use fittingroom_common::dataset::Dataset;
use fittingroom_common::trial::Report;

use self::augment::{Augmenter, ShiftTooLarge};
use self::average::Average;
use self::data::{Batch, Data, Standardization};
use self::evaluate::{Tally, evaluate};
use self::hyper::{Group, SettingsError};
use self::lanes::{LaneEpoch, Next, Standing, finite};
use self::layer::Mode;
use self::model::{ImageShape, Model, ModelError};
use self::ops::cross_entropy::mixed_cross_entropy;
use self::optim::Optimizer;
use self::rng::Moment;
use self::schedule::{Place, Scheduler};

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
    },
    /// An epoch is done; the lanes in order.
    Epoch(&'a [Result<Report, Ended>]),
}

/// A caller's wish that training end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// A lane's loss became infinite or NaN. This is a result, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the loss became infinite or NaN in epoch {epoch}")]
pub struct Divergence {
    /// The epoch in which it was seen, from 1.
    pub epoch: u32,
}

/// Why a lane reports no more epochs, though others of its group go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    Finished(Trained),
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
    /// The device or the machine had too little memory.
    #[error("out of memory: {0}. Take a smaller model or batch_size")]
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

/// Trains a group of trials.
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
    dataset: &Dataset,
    device: &Device,
    testing: Testing,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<Stop>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    let lanes = group.lanes.len();
    let smoothing: Vec<f64> = group.lanes.iter().map(|lane| lane.label_smoothing).collect();
    let data = Data::new(dataset, group.split_seed, group.shape.input, device)?;
    let smallest_batch = group.shape.smallest_batch();
    if data.split.training.len() < smallest_batch {
        let images = dataset.train.labels.len();
        return Err(TrainError::TooFewImages { images, needed: smallest_batch + 1 });
    }
    let images = ImageShape::of(&dataset.shape);
    let mut model = Model::new(&group.shape, &group.lanes, images, device)?;
    let mut optimizer = Optimizer::new(group.shape.optimizer, &group.lanes, &model.parameters)?;
    let mut average = Average::new(group, images, device)?;
    let mut scheduler = Scheduler::new(&group.lanes);
    let augmenter = Augmenter::new(group.shape.augmentation, group.augmentation_seed, images)?;
    let mut standing = Standing::new(&group.lanes, group.shape.epochs);

    for epoch in 1..=group.shape.epochs {
        let epoch_started = Instant::now();
        let order = data.split.order(group.order, epoch);
        let batches = order.chunks(group.shape.batch_size).filter(|batch| batch.len() >= smallest_batch);
        let steps = batches.clone().count();
        let mut tally = Tally::new(lanes, device)?;
        for (step, indices) in batches.enumerate() {
            let moment = Moment { epoch, step };
            let changes = augmenter.draw(moment, indices.len());
            let Batch { images, labels, mixed } = data.images.augmented(indices, changes.as_ref())?;
            let logits = model.forward(&images, Mode::Train(moment))?;
            let loss = mixed_cross_entropy(&logits, &labels, mixed.as_ref(), &smoothing)?;
            tally.add(&loss, &logits, &labels)?;
            let rates = scheduler.learning_rates(Place { moment, steps, epochs: group.shape.epochs });
            optimizer.step(&model.parameters, loss.sum_all()?.backward()?, &rates)?;
            model.steps.iter_mut().for_each(|steps| *steps += 1);
            if let Some(average) = &mut average {
                average.follow(&model)?;
            }
            if on_progress(Progress::Step { epoch, step: step + 1, steps }).is_break() {
                return Ok(Outcome::Stopped);
            }
            if tally.finite().is_some_and(|mut finite| !finite.any(|finite| finite)) {
                break;
            }
        }
        let trained = tally.images();
        let train = tally.finish()?;
        let images_per_second = trained as f64 / epoch_started.elapsed().as_secs_f64();

        let evaluated = average.as_ref().map_or(&model, |average| &average.model);
        let score = |images, indices: &[u32]| evaluate(evaluated, lanes, images, indices, device);
        let validation = score(&data.images, &data.split.validation)?;
        scheduler.observe(validation.iter().map(|score| score.loss));
        let ends = standing.end_epoch(epoch, &train, &validation, evaluated)?;
        let is_tested = |end: &Result<LaneEpoch, Ended>| end.is_ok_and(|end| testing.is_due(end.next));
        let test = if ends.iter().any(is_tested) {
            Some(score(&data.test, &(0..data.test.count() as u32).collect::<Vec<u32>>())?)
        } else {
            None
        };
        let seconds = started.elapsed().as_secs_f64();
        let report = |(lane, end): (usize, &Result<LaneEpoch, Ended>)| {
            // The test set decides nothing, not even that a trial diverged.
            let test = test.as_deref().filter(|_| is_tested(end)).and_then(|test| finite(test[lane]));
            let LaneEpoch { train, validation, .. } = (*end)?;
            Ok(Report { epoch, train, validation, test, seconds, images_per_second })
        };
        let reports: Vec<Result<Report, Ended>> = ends.iter().enumerate().map(report).collect();
        if on_progress(Progress::Epoch(&reports)).is_break() {
            return Ok(Outcome::Stopped);
        }
        if standing.is_over() {
            break;
        }
    }
    let mut model = average.map_or(model, |average| average.model);
    let lanes = standing.finish(&mut model)?;
    Ok(Outcome::Finished(Trained { model, images, input: data.input, lanes }))
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
