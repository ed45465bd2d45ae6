//! `fittingroom-worker predict`: the class that a saved model gives each test image.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use fittingroom_common::dataset::{Dataset, DatasetError};

use crate::train::data::Placed;
use crate::train::device::{DeviceChoice, UnusableDevice};
use crate::train::evaluate::predict;
use crate::train::model::ImageShape;
use crate::train::save::{self, LoadError};

/// Settings of `fittingroom-worker predict`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  fittingroom best quickstart --out ./best
  fittingroom-worker predict --model ./best/model.safetensors --data /usr/share/datasets/fashion-mnist

A line for each test image, in their order: the number of its class. worker/tests/golden/load_model.py
prints the same with PyTorch.")]
pub struct PredictArgs {
    /// The model, as `fittingroom best` and `train --save` write it
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_MODEL")]
    pub model: PathBuf,

    /// Folder with the dataset's four IDX files, packed (.gz) or not
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    pub data: PathBuf,

    /// Where to compute: cpu, cuda:N, metal or auto
    #[arg(long, env = "FITTINGROOM_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
}

/// Why nothing was predicted.
#[derive(Debug, thiserror::Error)]
pub enum PredictCommandError {
    /// The dataset cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] UnusableDevice),
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The model is for other images.
    #[error(
        "the model is for {model:?}, but the dataset has {dataset:?}: take the dataset that it was trained on"
    )]
    Unfitting {
        /// What the model takes.
        model: ImageShape,
        /// What there is.
        dataset: ImageShape,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// The results cannot be written.
    #[error("the results cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

/// Writes a line to `out` for each test image; how many are right goes to `notes`.
pub fn run(
    args: &PredictArgs,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), PredictCommandError> {
    let opened = args.device.open()?;
    if let Some(note) = &opened.note {
        writeln!(notes, "{note}")?;
    }
    let (model, record) = save::load(&args.model, &opened.device)?;
    let dataset = Dataset::from_folder(&args.data)?;
    let shape = ImageShape::of(&dataset.shape);
    if shape != record.images {
        return Err(PredictCommandError::Unfitting { model: record.images, dataset: shape });
    }
    let placed = Placed::new(dataset, &opened.device)?;
    let images = placed.test(record.input);
    let all: Vec<u32> = (0..images.count() as u32).collect();
    let classes = predict(&model, &images, &all)?;
    let mut out = BufWriter::new(out);
    for class in &classes {
        writeln!(out, "{class}")?;
    }
    out.flush()?;
    let labels = placed.dataset().test.labels.iter().map(|label| usize::from(*label));
    let right = classes.iter().zip(labels).filter(|(class, label)| *class == label).count();
    let share = 100.0 * right as f64 / classes.len().max(1) as f64;
    writeln!(notes, "{right} of {} test images right: {share:.2} %", classes.len())?;
    Ok(())
}
