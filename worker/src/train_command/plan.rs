//! What `train` is asked to train: by flags, or by the record of an earlier training.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use candle_core::Device;
use fittingroom_common::dataset::{Dataset, KnownDataset, Manifest, read_folder};
use fittingroom_common::hyperparameter::{Hyperparameters, Parameter};
use fittingroom_common::id::{ArtifactHash, Name};
use fittingroom_common::record::{DatasetRecord, MAX_BYTES, Machine, Recipe, Record, RecordError, Shuffle};
use fittingroom_common::trial::Seeds;

use super::{Setting, TrainArgs, TrainCommandError};
use crate::train::hyper::{Group, SettingsError, Visiting};
use crate::train::machine::machine;
use crate::train::weights::{Start, Weights};

/// A training, ready to begin.
pub(super) struct Plan {
    pub(super) recipe: Recipe,
    pub(super) group: Group,
    pub(super) dataset: Dataset,
}

/// What the flags or a record say, before any data is read.
pub(super) struct Asked {
    pub(super) hyperparameters: Hyperparameters,
    pub(super) seeds: Seeds,
    shuffle: Shuffle,
    folder: PathBuf,
    record: Option<(PathBuf, Record)>,
}

/// Why a training is not run again.
#[derive(Debug, thiserror::Error)]
pub enum AgainError {
    /// The record cannot be read.
    #[error("the record {path:?} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no record.
    #[error("the record {path:?} cannot be used: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A flag says otherwise than the record.
    #[error("{name} is {there} in the record, but {here} is asked for: leave one of them out")]
    Contradiction {
        /// The hyperparameter.
        name: &'static str,
        /// Its value in the record.
        there: String,
        /// Its value in the flags.
        here: String,
    },
    /// The dataset's folder is not known.
    #[error("where the dataset {name:?} lies is not known: name its folder with --data")]
    Nowhere {
        /// What the record calls it.
        name: String,
    },
    /// The dataset or the initial weights are others.
    #[error(
        "the training of {path:?} cannot be run again: {}. Name its dataset with --data, and the weights that it started from, if any, with --initial-weights",
        .differences.join("; ")
    )]
    Other {
        /// The record.
        path: PathBuf,
        /// What differs, in words.
        differences: Vec<String>,
    },
}

impl Asked {
    /// What the flags say, and the record that they name.
    pub(super) fn of(args: &TrainArgs, notes: &mut dyn Write) -> Result<Self, TrainCommandError> {
        let settings = args.settings.iter().chain(&args.epochs);
        let Some(path) = &args.from else {
            let mut hyperparameters = Hyperparameters::defaults();
            for Setting(parameter, value) in settings {
                hyperparameters.set(*parameter, value).map_err(SettingsError::from)?;
            }
            return Ok(Self {
                hyperparameters,
                seeds: Seeds::from_one(args.seed),
                shuffle: args.shuffle.into(),
                // The command line asks for one of --data and --from.
                folder: args.data.clone().unwrap_or_default(),
                record: None,
            });
        };
        let record = read(path)?;
        let recorded = &record.recipe.hyperparameters;
        for Setting(parameter, value) in settings {
            match recorded.get(*parameter) {
                Some(there) if there != value => {
                    let (name, there, here) = (parameter.name(), there.to_string(), value.to_string());
                    return Err(AgainError::Contradiction { name, there, here }.into());
                }
                Some(_) | None => {}
            }
        }
        // A record of an earlier version lacks what came later, whose defaults change nothing.
        for parameter in Parameter::all().filter(|parameter| recorded.get(*parameter).is_none()) {
            let (name, value) = (parameter.name(), parameter.default_value());
            writeln!(notes, "the record {} does not name {name}: taking {value}", path.display())?;
        }
        let folder = match (&args.data, KnownDataset::find(&record.recipe.dataset.name)) {
            (Some(folder), _) => folder.clone(),
            (None, Some(known)) => known.package_folder.into(),
            (None, None) => {
                return Err(AgainError::Nowhere { name: record.recipe.dataset.name.clone() }.into());
            }
        };
        Ok(Self {
            hyperparameters: Hyperparameters::defaults().overlaid(recorded),
            seeds: record.recipe.seeds,
            shuffle: record.recipe.shuffle,
            folder,
            record: Some((path.clone(), record)),
        })
    }

    /// The group to train, without the weights that it may start from.
    pub(super) fn group(&self) -> Result<Group, SettingsError> {
        let mut group = Group::single(&self.hyperparameters, self.seeds)?;
        match self.shuffle {
            Shuffle::On => {}
            Shuffle::Off => group.order = Visiting::Ascending,
        }
        Ok(group)
    }

    /// The dataset, without a look at what the record says of it.
    pub(super) fn dataset(&self) -> Result<(Dataset, DatasetRecord), TrainCommandError> {
        let files = read_folder(&self.folder)?.map(Bytes::from);
        let dataset = Dataset::from_files(files.clone())?;
        let called = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let manifest = Manifest {
            name: Name::sanitised(&called.file_name().unwrap_or_default().to_string_lossy()),
            shape: dataset.shape,
            files: files.each_ref().map(|bytes| ArtifactHash::of(bytes)),
        };
        Ok((dataset, DatasetRecord::from(&manifest)))
    }

    /// Reads the dataset and the weights, and compares them with the record's.
    pub(super) fn plan(
        self,
        mut group: Group,
        weights: Option<&Weights>,
        device: &Device,
        notes: &mut dyn Write,
    ) -> Result<Plan, TrainCommandError> {
        let (dataset, description) = self.dataset()?;
        if let Some(weights) = weights {
            group.lanes.iter_mut().for_each(|lane| lane.start = Start::From(weights.clone()));
        }
        let recipe = Recipe {
            hyperparameters: self.hyperparameters,
            seeds: self.seeds,
            shuffle: self.shuffle,
            initial_weights: weights.map(Weights::hash),
            dataset: description,
        };
        if let Some((path, record)) = self.record {
            let there = Recipe { hyperparameters: recipe.hyperparameters.clone(), ..record.recipe };
            let differences = there.differences(&recipe);
            if !differences.is_empty() {
                return Err(AgainError::Other { path, differences }.into());
            }
            note_other_machine(&path, record.program.as_deref(), record.machine.as_ref(), device, notes)?;
        }
        Ok(Plan { recipe, group, dataset })
    }
}

/// Says where the bits may come out otherwise than they did for what a file tells of.
pub(super) fn note_other_machine(
    path: &Path,
    program: Option<&str>,
    there: Option<&Machine>,
    device: &Device,
    notes: &mut dyn Write,
) -> std::io::Result<()> {
    let (path, version) = (path.display(), env!("CARGO_PKG_VERSION"));
    match program {
        Some(program) if program == version => {}
        other => writeln!(
            notes,
            "warning: {path} is of version {}, this is {version}: the bits may differ",
            other.unwrap_or("unknown")
        )?,
    }
    let here = machine(device);
    if there != Some(&here) {
        let told = |it: &Machine| format!("{} {} [{}]", it.device, it.model, it.features.join(" "));
        let there = there.map_or_else(|| "an unknown machine".to_owned(), told);
        writeln!(notes, "warning: {path} is of {there}, this is {}: the bits may differ", told(&here))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Record, AgainError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
        .map_err(|source| AgainError::Read { path: path.to_owned(), source })?;
    Record::parse(&bytes).map_err(|source| AgainError::Record { path: path.to_owned(), source })
}
