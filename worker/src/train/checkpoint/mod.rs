//! Checkpoints: the state of training in a file, from which it goes on as if it had never stopped.
//!
//! A checkpoint is a safetensors file of all lanes' tensors as the engine lays them out, with this
//! in its `__metadata__`:
//!
//! | key | holds |
//! | --- | --- |
//! | `format` | `fittingroom-checkpoint` |
//! | `checkpoint_version` | the version of what follows |
//! | `content` | JSON object: `program`, `machine`, each lane's `recipes`, and the state's `numbers` |
//! | `blake3` | hash of version, content and tensors |
//!
//! It belongs to one training: hyperparameters, seeds, order, initial weights and dataset are
//! compared when it is read. The bits are the same on the same kind of machine and version.

pub mod cadence;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use fittingroom_common::record::{Machine, Recipe};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

use super::machine::machine;
use super::save::{Entries, Entry, SaveError, to_bytes, write_whole};
use super::state::{Numbers, State};
use super::weights::floats;

const FORMAT: &str = "fittingroom-checkpoint";

/// The version that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// The largest file that is read, in bytes: more than any model that trains takes.
const MAX_BYTES: u64 = 64 << 30;

/// More steps or images than any training counts: from here on sums could overflow.
const MAX_COUNT: u64 = 1 << 48;

/// A checkpoint that was read, and belongs to the training that it was read for.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: Vec<u8>,
    content: Content,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Content {
    program: String,
    machine: Machine,
    recipes: Vec<Recipe>,
    numbers: Numbers,
}

/// Why a checkpoint cannot be gone on from.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint {path:?} cannot be used: {problem}")]
pub struct CheckpointError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(std::io::Error),
    /// The file is larger than any checkpoint.
    #[error("it is larger than {MAX_BYTES} bytes, as no checkpoint is")]
    TooLarge,
    /// The file is not in the safetensors format.
    #[error("it is not a safetensors file: {0}")]
    Format(SafeTensorError),
    /// The file is something else.
    #[error("it is not a checkpoint: its metadata has no {0:?}")]
    Foreign(&'static str),
    /// The file was written by another version.
    #[error(
        "it has checkpoint_version {found}, but this program reads version {VERSION}: go on with the program that wrote it, or delete it to begin anew"
    )]
    Version {
        /// Its version.
        found: String,
    },
    /// The file is not what was written.
    #[error(
        "it is damaged: its content does not have the hash that it was written with. Delete it to begin anew"
    )]
    Damaged,
    /// The content cannot be understood.
    #[error("its content cannot be read: {0}")]
    Content(serde_json::Error),
    /// It belongs to another training.
    #[error(
        "it belongs to another training: {}. Name another file, or delete it to begin anew",
        .0.join("; ")
    )]
    Other(Vec<String>),
    /// The place in training does not exist.
    #[error(
        "it is at epoch {epoch}, step {step}, with {reports} epochs reported, where no training of {epochs} epochs comes by"
    )]
    Place {
        /// The epoch in progress.
        epoch: u32,
        /// Steps done in it.
        step: usize,
        /// How many epochs' reports it holds.
        reports: usize,
        /// How many epochs there are.
        epochs: u32,
    },
    /// The tensors are not those of the state.
    #[error("its tensor {name:?} {problem}: was it written by another version of the program?")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The device did not take the tensors.
    #[error("the device does not take its tensors: {0}")]
    Device(#[from] candle_core::Error),
}

/// Writes the state of a training to a file, which is whole or as it was before. `recipes`: what
/// each lane trains.
pub fn save(path: &Path, state: &State, recipes: &[Recipe]) -> Result<(), SaveError> {
    let unwritable = |source| SaveError::Write { path: path.to_owned(), source };
    let mut entries = Entries::new();
    for (name, tensor) in state.tensors() {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        entries.insert(name, Entry { dtype: "F32", shape: tensor.dims().to_vec(), bytes });
    }
    let content = Content {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine(state.model.device()),
        recipes: recipes.to_vec(),
        numbers: state.numbers()?,
    };
    let content = serde_json::to_string(&content).map_err(|error| unwritable(error.into()))?;
    let tensors = entries.iter().map(|(name, entry)| (name.as_str(), &entry.shape[..], &entry.bytes[..]));
    let metadata = serde_json::json!({
        "format": FORMAT,
        "checkpoint_version": VERSION.to_string(),
        "blake3": hash(&content, tensors),
        "content": content,
    });
    write_whole(path, &to_bytes(&metadata, &entries)).map_err(unwritable)
}

/// The hash of a checkpoint's content; the tensors by name.
fn hash<'a>(content: &str, tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&VERSION.to_le_bytes());
    part(content.as_bytes());
    for (name, shape, bytes) in tensors {
        part(name.as_bytes());
        part(format!("{shape:?}").as_bytes());
        part(bytes);
    }
    hasher.finalize().to_hex().to_string()
}

impl Checkpoint {
    /// Reads a checkpoint of the training that these recipes describe, one for each lane.
    pub fn read(path: &Path, recipes: &[Recipe]) -> Result<Self, CheckpointError> {
        let open = || {
            let file = read_file(path)?;
            let content = open(&file)?;
            match differences(&content.recipes, recipes) {
                none if none.is_empty() => Ok((file, content)),
                some => Err(Problem::Other(some)),
            }
        };
        let (file, content) = open().map_err(|problem| CheckpointError { path: path.to_owned(), problem })?;
        Ok(Self { path: path.to_owned(), file, content })
    }

    /// The epoch in progress, from 1.
    pub fn epoch(&self) -> u32 {
        self.content.numbers.epoch
    }

    /// Steps done in that epoch.
    pub fn step(&self) -> usize {
        self.content.numbers.step
    }

    /// The version of the program that wrote it.
    pub fn program(&self) -> &str {
        &self.content.program
    }

    /// What it was trained on so far.
    pub fn machine(&self) -> &Machine {
        &self.content.machine
    }

    /// Puts a new state of the same training into this one.
    pub(super) fn restore(&self, state: &mut State, epochs: u32) -> Result<(), CheckpointError> {
        self.put_into(state, epochs).map_err(|problem| CheckpointError { path: self.path.clone(), problem })
    }

    fn put_into(&self, state: &mut State, epochs: u32) -> Result<(), Problem> {
        let numbers = &self.content.numbers;
        let lanes = self.content.recipes.len();
        let is_whole = numbers.history.iter().all(|reports| reports.len() == lanes)
            && numbers.tally.lanes() == lanes
            && numbers.kept.len() == lanes
            && numbers.history.len() as u64 + 1 == u64::from(numbers.epoch);
        let kept = numbers.kept.iter().flatten().copied();
        let mut counts =
            kept.chain([numbers.model_steps, numbers.optimizer_steps, numbers.tally.images() as u64]);
        if numbers.epoch > epochs || !is_whole || counts.any(|count| count > MAX_COUNT) {
            let (epoch, step, reports) = (numbers.epoch, numbers.step, numbers.history.len());
            return Err(Problem::Place { epoch, step, reports, epochs });
        }
        let device = state.model.device().clone();
        state.set_numbers(numbers, &device)?;
        let tensors = SafeTensors::deserialize(&self.file).map_err(Problem::Format)?;
        let wanted = state.tensors();
        let known = |name: &str| wanted.iter().any(|(wanted, _)| wanted == name);
        if let Some(name) = tensors.names().into_iter().filter(|name| !known(name)).min() {
            let problem = "is not one of this training".to_owned();
            return Err(Problem::Tensor { name: name.to_owned(), problem });
        }
        for (name, target) in &wanted {
            let wrong = |problem: String| Problem::Tensor { name: name.clone(), problem };
            let found = tensors.tensor(name).map_err(|_| wrong("is missing".to_owned()))?;
            if (found.dtype(), found.shape()) != (Dtype::F32, target.dims()) {
                let (dtype, shape) = (found.dtype(), found.shape());
                return Err(wrong(format!("is {dtype:?} {shape:?} in place of F32 {:?}", target.dims())));
            }
            target.slice_set(&Tensor::from_vec(floats(&found), target.dims(), &device)?, 0, 0)?;
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Problem::Read)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Problem::Read)?;
    if bytes.len() as u64 > MAX_BYTES { Err(Problem::TooLarge) } else { Ok(bytes) }
}

/// Checks that a file is a whole checkpoint, and reads what it holds beside tensors.
fn open(file: &[u8]) -> Result<Content, Problem> {
    let (_, header) = SafeTensors::read_metadata(file).map_err(Problem::Format)?;
    let text = |key: &'static str| {
        let value = header.metadata().as_ref().and_then(|all| all.get(key));
        value.map(String::as_str).ok_or(Problem::Foreign(key))
    };
    if text("format")? != FORMAT {
        return Err(Problem::Foreign(FORMAT));
    }
    let version = text("checkpoint_version")?;
    if version != VERSION.to_string() {
        return Err(Problem::Version { found: version.chars().take(40).collect() });
    }
    let tensors = SafeTensors::deserialize(file).map_err(Problem::Format)?;
    let mut views: Vec<(&str, TensorView<'_>)> = tensors.iter().collect();
    views.sort_by_key(|(name, _)| *name);
    let parts = views.iter().map(|(name, view)| (*name, view.shape(), view.data()));
    if hash(text("content")?, parts) != text("blake3")? {
        return Err(Problem::Damaged);
    }
    serde_json::from_str(text("content")?).map_err(Problem::Content)
}

/// What is otherwise there than here, in words.
fn differences(there: &[Recipe], here: &[Recipe]) -> Vec<String> {
    if there.len() != here.len() {
        return vec![format!("it has {} lanes there and {} here", there.len(), here.len())];
    }
    let mut all = Vec::new();
    for (lane, (there, here)) in there.iter().zip(here).enumerate() {
        let differences = there.differences(here).into_iter();
        all.extend(differences.map(|words| match lane {
            0 => words,
            _ => format!("in lane {lane}, {words}"),
        }));
    }
    all
}

#[cfg(test)]
mod tests;
