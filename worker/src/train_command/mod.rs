//! `fittingroom-worker train`: one trial, without a coordinator.

mod checkpoints;
mod plan;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::Device;
use fittingroom_common::dataset::DatasetError;
use fittingroom_common::hyperparameter::{Parameter, Value};
use fittingroom_common::record::{self, Metrics, Recipe, Record};
use fittingroom_common::trial::Report;

pub use self::checkpoints::Every;
use self::checkpoints::{Checkpoints, Told};
pub use self::plan::AgainError;
use self::plan::{Asked, Plan};
use crate::train::checkpoint::CheckpointError;
use crate::train::data::{Placed, Split};
use crate::train::device::{DeviceChoice, UnusableDevice};
use crate::train::hyper::SettingsError;
use crate::train::machine::machine;
use crate::train::save::{self, SaveError};
use crate::train::weights::{Weights, WeightsError};
use crate::train::{Divergence, Ended, Outcome, Progress, Stop, Testing, TrainError, Trained, resume, train};
use crate::trainer::protocol::EpochMetrics;

/// Settings of `fittingroom-worker train`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  fittingroom-worker train --data /usr/share/datasets/fashion-mnist --epochs 3 \\
      --set hidden_sizes=300,200 --set optimizer=sgd --set learning_rate=0.05 --save model.safetensors

With --checkpoint FILE the same command goes on where it was killed, crashed or interrupted, and the
run that ends has printed every epoch. Beside the model, --save writes a record of how it was trained:
  fittingroom-worker train --from model.json --save again.safetensors

The test images are evaluated once, after the last epoch; with --track-test after every epoch.

To run the same training in another program, give both the same --initial-weights, train with
--shuffle off, and take the images that --print-split lists. Inputs are (pixel / 255 - mean) / deviation,
over the pixels of the training images.")]
pub struct TrainArgs {
    /// Folder with the dataset's four IDX files, packed (.gz) or not; with --from, where it is not installed
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA", required_unless_present = "from")]
    pub data: Option<PathBuf>,

    /// Run the training of a record again, as --save and `fittingroom best` write it beside a model
    #[arg(long, value_name = "RECORD.json", env = "FITTINGROOM_FROM", conflicts_with_all = ["seed", "shuffle"])]
    pub from: Option<PathBuf>,

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

    /// Where to write the trained model, as safetensors, and beside it (.json) the record of its training
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_SAVE")]
    pub save: Option<PathBuf>,

    /// A file to keep the state of training in: it is gone on from if it is there. It stays in the end
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_CHECKPOINT")]
    pub checkpoint: Option<PathBuf>,

    /// How often to write the checkpoint: a number of steps, as 500, or of seconds, as 30s
    #[arg(
        long,
        value_name = "STEPS|SECONDS",
        env = "FITTINGROOM_CHECKPOINT_EVERY",
        default_value = "30s",
        requires = "checkpoint"
    )]
    pub checkpoint_every: Every,

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

impl From<Shuffle> for record::Shuffle {
    fn from(shuffle: Shuffle) -> Self {
        match shuffle {
            Shuffle::On => Self::On,
            Shuffle::Off => Self::Off,
        }
    }
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
    Device(#[from] UnusableDevice),
    /// The weights to start from cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The training of the record cannot be run again.
    #[error(transparent)]
    Again(#[from] AgainError),
    /// The checkpoint cannot be gone on from.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It was told to end.
    #[error(
        "interrupted in epoch {epoch} after step {step} of {steps}: saved to {path:?}, from which the same command goes on"
    )]
    Interrupted {
        /// The epoch in progress, from 1.
        epoch: u32,
        /// Steps done in it.
        step: usize,
        /// Steps that it has.
        steps: usize,
        /// The checkpoint.
        path: PathBuf,
    },
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
            Self::Train(TrainError::Settings(_))
            | Self::Again(AgainError::Contradiction { .. } | AgainError::Nowhere { .. }) => 2,
            Self::Dataset(_)
            | Self::Device(_)
            | Self::Weights(_)
            | Self::Again(_)
            | Self::Checkpoint(_)
            | Self::Interrupted { .. }
            | Self::Train(_)
            | Self::Diverged(_)
            | Self::Save(_)
            | Self::Output(_) => 1,
        }
    }
}

/// Trains, and writes a line to `out` after every epoch; what is not a result goes to `notes`.
pub fn run(args: &TrainArgs, out: &mut dyn Write, notes: &mut dyn Write) -> Result<(), TrainCommandError> {
    let asked = Asked::of(args, notes)?;
    if args.print_split {
        let (dataset, _) = asked.dataset()?;
        let split = Split::stratified(&dataset.train.labels, asked.seeds.split);
        writeln!(out, "{}", serde_json::json!(split))?;
        return Ok(());
    }
    let group = asked.group()?;
    let weights = args.initial_weights.as_deref().map(Weights::read).transpose()?;
    let opened = args.device.open()?;
    if let Some(note) = &opened.note {
        writeln!(notes, "{note}")?;
    }
    let Plan { recipe, group, dataset } = asked.plan(group, weights.as_ref(), &opened.device, notes)?;
    if !args.json {
        writeln!(notes, "training on {} with {}", opened.choice, recipe.hyperparameters)?;
    }
    let recipes = [recipe];
    let (mut checkpoints, checkpoint) = match &args.checkpoint {
        Some(path) => {
            let (opened, there) =
                Checkpoints::open(path, args.checkpoint_every, &recipes, &opened.device, notes)?;
            (Some(opened), there)
        }
        None => (None, None),
    };

    let testing = if args.track_test { Testing::EveryEpoch } else { Testing::AtTheEnd };
    let (mut metrics, mut last) = (Metrics::default(), 0);
    let mut listen = |progress: Progress<'_>| match progress {
        Progress::Epoch([Ok(report)]) => {
            (metrics, last) = (Metrics::from(report), report.epoch);
            let line = if args.json { json_line(report) } else { line(report, group.shape.epochs) };
            writeln!(out, "{line}").and_then(|()| out.flush()).map_err(TrainCommandError::from)
        }
        Progress::Epoch(_) => Ok(()),
        Progress::Step { epoch, step, steps, state } => match &mut checkpoints {
            Some(checkpoints) => match checkpoints.after_step(state)? {
                Told::GoOn => Ok(()),
                Told::End => {
                    let path = args.checkpoint.clone().unwrap_or_default();
                    Err(TrainCommandError::Interrupted { epoch, step, steps, path })
                }
            },
            None => Ok(()),
        },
    };
    let mut ended = None;
    let mut on_progress = |progress: Progress<'_>| match listen(progress) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            ended = Some(error);
            ControlFlow::Break(Stop)
        }
    };
    let placed = Placed::new(dataset, &opened.device).map_err(TrainError::from)?;
    let outcome = match &checkpoint {
        Some(from) => resume(from, &group, &placed, testing, &mut on_progress)?,
        None => train(&group, &placed, testing, &mut on_progress)?,
    };
    if let Some(error) = ended {
        return Err(error);
    }
    // Training is stopped above alone, by an error.
    let Outcome::Finished(trained) = outcome else {
        return Ok(());
    };
    trained.lanes.iter().copied().collect::<Result<(), Divergence>>()?;
    if last < group.shape.epochs && !args.json {
        writeln!(notes, "{}", Ended::Early { epoch: last })?;
    }
    if let Some(path) = &args.save {
        let [recipe] = recipes;
        let record = save_with_record(path, &trained, recipe, metrics, &opened.device)?;
        if !args.json {
            writeln!(notes, "saved {} and {}", path.display(), record.display())?;
        }
    }
    Ok(())
}

/// Writes the model, and beside it the record, whose path is answered.
fn save_with_record(
    path: &Path,
    trained: &Trained,
    recipe: Recipe,
    metrics: Metrics,
    device: &Device,
) -> Result<PathBuf, SaveError> {
    let description = save::Record {
        hyperparameters: recipe.hyperparameters.clone(),
        seeds: recipe.seeds,
        images: trained.images,
        input: trained.input,
    };
    save::save(path, &trained.model, 0, &description)?;
    let record = Record {
        record_version: record::VERSION,
        recipe,
        program: Some(env!("CARGO_PKG_VERSION").to_owned()),
        machine: Some(machine(device)),
        metrics,
    };
    let beside = record_path(path);
    let unwritable = |source| SaveError::Write { path: beside.clone(), source };
    let mut bytes = serde_json::to_vec_pretty(&record).map_err(|error| unwritable(error.into()))?;
    bytes.push(b'\n');
    save::write_whole(&beside, &bytes).map_err(unwritable)?;
    // What those left that were killed while they saved.
    [path, &beside].into_iter().for_each(save::remove_parts);
    Ok(beside)
}

/// The place of a model's record: `model.json` beside `model.safetensors`.
fn record_path(model: &Path) -> PathBuf {
    if model.extension().is_some_and(|extension| extension == "safetensors") {
        return model.with_extension("json");
    }
    let mut name = model.as_os_str().to_owned();
    name.push(".json");
    name.into()
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
