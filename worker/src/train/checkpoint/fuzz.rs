//! Checkpoints from strangers; see [`crate::fuzz`].

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::LazyLock;

use fittingroom_common::dataset::Manifest;
use fittingroom_common::id::{ArtifactHash, Name};
use fittingroom_common::record::{DatasetRecord, Recipe, Shuffle};
use fittingroom_common::trial::Seeds;
use safetensors::SafeTensors;

use super::{Checkpoint, Entries, Entry, FORMAT, VERSION, hash, save, to_bytes};
use crate::train::data::Placed;
use crate::train::hyper::Group;
use crate::train::testing::{dataset, group, hyperparameters, placed};
use crate::train::{Progress, Stop, Testing, TrainError, resume, train};

const SETTINGS: &[(&str, &str)] = &[
    ("hidden_sizes", "3"),
    ("batch_size", "16"),
    ("epochs", "3"),
    ("normalization", "batch"),
    ("early_stopping_patience", "1"),
    ("ema_decay", "0.9"),
];
const SEEDS: Seeds = Seeds { split: 1, order: 2, trial: 3 };

/// A small training, and what its checkpoint holds after two steps.
struct Training {
    group: Group,
    recipes: Vec<Recipe>,
    placed: Placed,
    file: Vec<u8>,
}

static TRAINING: LazyLock<Training> = LazyLock::new(|| {
    let placed = placed(&dataset(30, 6));
    let manifest = Manifest {
        name: Name::sanitised("spots"),
        shape: placed.dataset().shape,
        files: [ArtifactHash::of(b"the files"); 4],
    };
    let recipe = Recipe {
        hyperparameters: hyperparameters(SETTINGS),
        seeds: SEEDS,
        shuffle: Shuffle::On,
        initial_weights: None,
        dataset: DatasetRecord::from(&manifest),
    };
    let (group, recipes) = (group(&[(SETTINGS, SEEDS)]), vec![recipe]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("checkpoint");
    let mut stop_after_two = |progress: Progress<'_>| match progress {
        Progress::Step { state, step: 2, .. } => {
            save(&path, state, &recipes).expect("writable");
            ControlFlow::Break(Stop)
        }
        Progress::Step { .. } | Progress::Epoch(_) => ControlFlow::Continue(()),
    };
    train(&group, &placed, Testing::Never, &mut stop_after_two).expect("it trains");
    let file = std::fs::read(&path).expect("it was written");
    Training { group, recipes, placed, file }
});

/// A whole file, if the first byte is 0; else the content of one with the right hash, ended by a zero, and
/// then what its tensors hold. What is read is refused, or trained with for a step and kept again.
pub fn checkpoint(bytes: &[u8]) {
    let Some((form, bytes)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("checkpoint");
    std::fs::write(&path, if *form == 0 { bytes.to_vec() } else { sealed(bytes) }).expect("writable");
    let checkpoint = match Checkpoint::read(&path, &TRAINING.recipes) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert!(error.to_string().len() < 8_192, "{error}"),
    };
    let again = folder.path().join("again");
    match go_on(&checkpoint, &again) {
        Ok(true) => drop(Checkpoint::read(&again, &TRAINING.recipes).expect("what was saved")),
        Ok(false) => {}
        Err(TrainError::Checkpoint(error)) => assert!(error.to_string().len() < 4_096, "{error}"),
        Err(error) => panic!("it is neither refused nor trained with: {error}"),
    }
}

/// Goes on with the training for a step and keeps what it comes to; answers whether there was a step left.
fn go_on(checkpoint: &Checkpoint, path: &Path) -> Result<bool, TrainError> {
    let Training { group, recipes, placed, .. } = &*TRAINING;
    let mut is_kept = false;
    let mut keep = |progress: Progress<'_>| match progress {
        Progress::Step { state, .. } => {
            save(path, state, recipes).expect("writable");
            is_kept = true;
            ControlFlow::Break(Stop)
        }
        Progress::Epoch(_) => ControlFlow::Continue(()),
    };
    resume(checkpoint, group, placed, Testing::Never, &mut keep)?;
    Ok(is_kept)
}

/// A checkpoint with this content, and these bytes again and again in its tensors.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let (content, values) = match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let content = String::from_utf8_lossy(content);
    let tensors = SafeTensors::deserialize(&TRAINING.file).expect("a checkpoint");
    let mut values = values.iter().copied().cycle();
    let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let bytes = view.data().iter().map(|byte| values.next().unwrap_or(*byte)).collect();
        (name.to_owned(), Entry { dtype: "F32", shape: view.shape().to_vec(), bytes })
    };
    let entries: Entries = tensors.iter().map(entry).collect();
    let parts = entries.iter().map(|(name, entry)| (name.as_str(), &entry.shape[..], &entry.bytes[..]));
    let metadata = serde_json::json!({
        "format": FORMAT,
        "checkpoint_version": VERSION.to_string(),
        "blake3": hash(&content, parts),
        "content": content,
    });
    to_bytes(&metadata, &entries)
}
