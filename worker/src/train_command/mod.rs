//! `fittingroom-worker train`: one trial, without a coordinator.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use fittingroom_common::dataset::{Dataset, DatasetError};
use fittingroom_common::hyperparameter::{Hyperparameters, Parameter, Value};
use fittingroom_common::trial::Report;

use crate::train::data::Split;
use crate::train::device::{DeviceChoice, DeviceError};
use crate::train::hyper::{Group, SettingsError, Visiting};
use crate::train::save::{self, Record, SaveError};
use crate::train::weights::{Start, Weights, WeightsError};
use crate::train::{Divergence, Outcome, Progress, Stop, Testing, TrainError, train};
use crate::trainer::protocol::EpochMetrics;
use fittingroom_common::trial::Seeds;

/// Settings of `fittingroom-worker train`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  fittingroom-worker train --data /usr/share/datasets/fashion-mnist --epochs 3 \\
      --set hidden_sizes=300,200 --set optimizer=sgd --set learning_rate=0.05 --save model.safetensors

The test images are evaluated once, after the last epoch; with --track-test after every epoch.

To run the same training in another program, give both the same --initial-weights, train with
--shuffle off, and take the images that --print-split lists. Inputs are (pixel / 255 - mean) / deviation,
over the pixels of the training images.")]
pub struct TrainArgs {
    /// Folder with the dataset's four IDX files, packed (.gz) or not
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    pub data: PathBuf,

    /// A hyperparameter, as learning_rate=0.01; may be given many times. What is not set has its default
    #[arg(long = "set", value_name = "KEY=VALUE", env = "FITTINGROOM_SET", value_delimiter = ';', value_parser = setting)]
    pub settings: Vec<Setting>,

    /// Passes over the training images: short for --set epochs=N
    #[arg(long, value_name = "N", env = "FITTINGROOM_EPOCHS", value_parser = epochs)]
    pub epochs: Option<Setting>,

    /// Where all randomness comes from: the same seed gives the same bits
    #[arg(long, value_name = "N", env = "FITTINGROOM_SEED", default_value_t = 0)]
    pub seed: u64,

    /// Where to train: cpu, cuda:N, metal or auto
    #[arg(long, env = "FITTINGROOM_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,

    /// Weights to start from, as safetensors with PyTorch's names and layouts, as --save writes them;
    /// running statistics may be left out. Without it they are drawn
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_INITIAL_WEIGHTS")]
    pub initial_weights: Option<PathBuf>,

    /// Whether every epoch visits the training images in another random order; off: by index, the lowest first
    #[arg(long, value_enum, env = "FITTINGROOM_SHUFFLE", default_value_t = Shuffle::On)]
    pub shuffle: Shuffle,

    /// Print which images are trained on and which validate, as one JSON object, and do not train
    #[arg(long, env = "FITTINGROOM_PRINT_SPLIT")]
    pub print_split: bool,

    /// Where to write the trained model, as safetensors
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_SAVE")]
    pub save: Option<PathBuf>,

    /// Evaluate the test images after every epoch
    #[arg(long, env = "FITTINGROOM_TRACK_TEST")]
    pub track_test: bool,

    /// One JSON object per epoch, one a line
    #[arg(long, env = "FITTINGROOM_JSON")]
    pub json: bool,
}

/// Whether the training images are shuffled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shuffle {
    /// Every epoch anew.
    On,
    /// Never.
    Off,
}

/// A hyperparameter that was set.
#[derive(Clone, Debug)]
pub struct Setting(Parameter, Value);

fn setting(text: &str) -> Result<Setting, String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("it takes the form KEY=VALUE, as in learning_rate=0.01".to_owned());
    };
    let parameter = Parameter::find(name.trim()).map_err(|error| error.to_string())?;
    let value = parameter.parse(value.trim()).map_err(|error| error.to_string())?;
    Ok(Setting(parameter, value))
}

fn epochs(text: &str) -> Result<Setting, String> {
    setting(&format!("epochs={text}"))
}

/// Why nothing was trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainCommandError {
    /// The dataset cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The weights to start from cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The loss became infinite or NaN.
    #[error("diverged: {0}. A smaller learning_rate may help")]
    Diverged(#[from] Divergence),
    /// The model was not saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The results cannot be written.
    #[error("the results cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

impl From<SettingsError> for TrainCommandError {
    fn from(error: SettingsError) -> Self {
        Self::Train(error.into())
    }
}

impl TrainCommandError {
    /// The process's exit code: 2 where what was asked for makes no sense, 1 where it failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Train(TrainError::Settings(_)) => 2,
            Self::Dataset(_)
            | Self::Device(_)
            | Self::Weights(_)
            | Self::Train(_)
            | Self::Diverged(_)
            | Self::Save(_)
            | Self::Output(_) => 1,
        }
    }
}

/// Trains, and writes a line to `out` after every epoch; what is not a result goes to `notes`.
pub fn run(args: &TrainArgs, out: &mut dyn Write, notes: &mut dyn Write) -> Result<(), TrainCommandError> {
    let mut hyperparameters = Hyperparameters::defaults();
    for Setting(parameter, value) in args.settings.iter().chain(&args.epochs) {
        hyperparameters.set(*parameter, value).map_err(SettingsError::from)?;
    }
    let seeds = Seeds::from_one(args.seed);
    if args.print_split {
        let dataset = Dataset::from_folder(&args.data)?;
        let split = Split::stratified(&dataset.train.labels, seeds.split);
        writeln!(out, "{}", serde_json::json!(split))?;
        return Ok(());
    }
    let mut group = Group::single(&hyperparameters, seeds)?;
    match args.shuffle {
        Shuffle::On => {}
        Shuffle::Off => group.order = Visiting::Ascending,
    }
    if let Some(path) = &args.initial_weights {
        let weights = Weights::read(path)?;
        group.lanes.iter_mut().for_each(|lane| lane.start = Start::From(weights.clone()));
    }
    let opened = args.device.open()?;
    if let Some(note) = &opened.note {
        writeln!(notes, "{note}")?;
    }
    let dataset = Dataset::from_folder(&args.data)?;
    if !args.json {
        writeln!(notes, "training on {} with {hyperparameters}", opened.choice)?;
    }

    let testing = if args.track_test { Testing::EveryEpoch } else { Testing::AtTheEnd };
    let mut unwritten = None;
    let outcome = train(&group, &dataset, &opened.device, testing, &mut |progress| {
        let Progress::Epoch([Ok(report)]) = progress else {
            return ControlFlow::Continue(());
        };
        let line = if args.json { json_line(report) } else { line(report, group.shape.epochs) };
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                unwritten = Some(error);
                ControlFlow::Break(Stop)
            }
        }
    })?;
    if let Some(error) = unwritten {
        return Err(error.into());
    }
    // Training is stopped above alone, where writing failed.
    let Outcome::Finished(trained) = outcome else {
        return Ok(());
    };
    trained.lanes.iter().copied().collect::<Result<(), Divergence>>()?;
    if let Some(path) = &args.save {
        let record = Record { hyperparameters, seeds, images: trained.images, input: trained.input };
        save::save(path, &trained.model, 0, &record)?;
        if !args.json {
            writeln!(notes, "saved {}", path.display())?;
        }
    }
    Ok(())
}

fn json_line(report: &Report) -> String {
    serde_json::json!(EpochMetrics::from(report)).to_string()
}

fn line(report: &Report, epochs: u32) -> String {
    let metrics = EpochMetrics::from(report);
    let score = |loss: f64, accuracy: f64| format!("{loss:.4} {:6.2} %", accuracy * 100.0);
    let test = match (metrics.test_loss, metrics.test_accuracy) {
        (Some(loss), Some(accuracy)) => format!("   test {}", score(loss, accuracy)),
        _ => String::new(),
    };
    format!(
        "epoch {:>width$}/{epochs}   train {}   validation {}{test}   {:.1} s   {:.0} images/s",
        metrics.epoch,
        score(metrics.train_loss, metrics.train_accuracy),
        score(metrics.validation_loss, metrics.validation_accuracy),
        metrics.seconds,
        metrics.images_per_second,
        width = epochs.to_string().len(),
    )
}
