//! Models in files: safetensors with PyTorch's `state_dict` names and layouts, and in the
//! `__metadata__` all that it takes to build the model again.
//!
//! | key | holds |
//! | --- | --- |
//! | `format` | `fittingroom-model-1` |
//! | `hyperparameters` | JSON object, complete |
//! | `seeds` | JSON object: `split`, `order`, `trial` |
//! | `shape` | JSON object: `height`, `width`, `classes` |
//! | `input` | `fixed` or `per_image`: where the numbers of the next row come from |
//! | `input_mean`, `input_std` | decimal numbers: the input is `(pixel / 255 - mean) / std`. Not there with `per_image`, which takes mean and deviation of each image's own pixels / 255, but no deviation below 1 / sqrt(pixels) |
//! | `program` | version of Fitting Room that wrote the file |
//! | `machine` | JSON object: `device`, `model`, `features` of what it was trained on |
//!
//! The tensors' names are those of [`super::model`].

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Device;
use fittingroom_common::dataset::Idx;
use fittingroom_common::hyperparameter::Hyperparameters;
use safetensors::{Dtype, SafeTensors};

use super::data::Standardization;
use super::hyper::{Group, SettingsError};
use super::machine::machine;
use super::model::{ImageShape, Model, ModelError, Outline, counter};
use super::weights::floats;
use fittingroom_common::trial::Seeds;

const FORMAT: &str = "fittingroom-model-1";
const FIXED: &str = "fixed";
const PER_IMAGE: &str = "per_image";

/// What is kept of a model beside its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The complete set that it was trained with.
    pub hyperparameters: Hyperparameters,
    /// The seeds that it was trained with.
    pub seeds: Seeds,
    /// What it takes as input.
    pub images: ImageShape,
    /// How grey values become its input.
    pub input: Standardization,
}

/// Why a model was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file cannot be written.
    #[error("{path:?} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The tensors cannot be read from the device.
    #[error("the model cannot be read from its device: {0}")]
    Device(#[from] candle_core::Error),
}

/// Why a file is not a model that can be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path:?} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not in the safetensors format.
    #[error("{path:?} is not a safetensors file: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// The metadata does not describe a model.
    #[error("{path:?} is not a model of this program: its metadata {key:?} {problem}")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key in the metadata.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// A tensor of the model is not in the file.
    #[error("{path:?} has no tensor {name:?}, which its hyperparameters call for")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of the file is not in the model.
    #[error("{path:?} has a tensor {name:?} that its hyperparameters know nothing of")]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another type or shape than the model.
    #[error(
        "{path:?} has {name:?} as {found_dtype:?} {found:?}, but the model takes {expected_dtype:?} {expected:?}"
    )]
    Unfitting {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found_dtype: Dtype,
        /// Its shape.
        found: Vec<usize>,
        /// The type that the model takes.
        expected_dtype: Dtype,
        /// The shape that the model takes.
        expected: Vec<usize>,
    },
    /// The metadata calls for a larger model than the file holds: nothing is made room for by a claim.
    #[error(
        "{path:?} has {bytes} bytes, but its hyperparameters call for {parameters} parameters: it is not whole, or not a model"
    )]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: usize,
        /// How many numbers the model has.
        parameters: usize,
    },
    /// The hyperparameters cannot be built from.
    #[error("{path:?} has unusable hyperparameters: {source}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SettingsError,
    },
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Writes one lane of a model: to a temporary file beside `path` first, so that the file is whole
/// or not there. The same model gives the same bytes.
pub fn save(path: &Path, model: &Model, lane: usize, record: &Record) -> Result<(), SaveError> {
    let bytes = encode(model, lane, record)?;
    write_whole(path, &bytes).map_err(|source| SaveError::Write { path: path.to_owned(), source })
}

/// Writes a file so that it is whole, or as it was before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = folder_of(path);
    let mut file = tempfile::Builder::new().prefix(&part_prefix(path)).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The rename itself is durable once the folder is.
    std::fs::File::open(folder)?.sync_all()
}

/// Removes what writing this file left behind where the process was killed.
pub(crate) fn remove_parts(path: &Path) {
    let prefix = part_prefix(path);
    for entry in std::fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // Whoever else removed it did the same.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn part_prefix(path: &Path) -> String {
    format!(".{}.part-", path.file_name().unwrap_or_default().to_string_lossy())
}

/// The model's file.
fn encode(model: &Model, lane: usize, record: &Record) -> Result<Vec<u8>, candle_core::Error> {
    let mut tensors = Entries::new();
    for named in &model.named {
        let values = named.values.get(lane)?.flatten_all()?.to_vec1::<f32>()?;
        let values = named.order.to_pytorch(&values);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.insert(named.name.clone(), Entry { dtype: "F32", shape: named.shape.clone(), bytes });
    }
    for layer in model.counting_layers() {
        let bytes = (model.steps[lane] as i64).to_le_bytes().to_vec();
        tensors.insert(counter(layer), Entry { dtype: "I64", shape: Vec::new(), bytes });
    }
    Ok(to_bytes(&metadata(record, model.device()), &tensors))
}

/// The tensors of a safetensors file, by name.
pub(super) type Entries = BTreeMap<String, Entry>;

/// One tensor of a safetensors file.
pub(super) struct Entry {
    /// The type of its numbers, by the format's name.
    pub(super) dtype: &'static str,
    /// The size of each dimension.
    pub(super) shape: Vec<usize>,
    /// Its numbers, little-endian.
    pub(super) bytes: Vec<u8>,
}

/// A safetensors file. Written here rather than by the safetensors crate, which keeps the metadata in
/// a hash map: its order would differ from run to run.
pub(super) fn to_bytes(metadata: &serde_json::Value, tensors: &Entries) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), metadata.clone());
    let mut end = 0;
    for (name, Entry { dtype, shape, bytes }) in tensors {
        let start = end;
        end += bytes.len();
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // The tensors begin at a multiple of 8 bytes.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    for entry in tensors.values() {
        file.extend(&entry.bytes);
    }
    file
}

fn metadata(record: &Record, device: &Device) -> serde_json::Value {
    let text = |value: serde_json::Value| value.to_string();
    let mut metadata = serde_json::json!({
        "format": FORMAT,
        "hyperparameters": text(serde_json::json!(record.hyperparameters)),
        "seeds": text(serde_json::json!(record.seeds)),
        "shape": text(serde_json::json!(record.images)),
        "program": env!("CARGO_PKG_VERSION"),
        "machine": text(serde_json::json!(machine(device))),
    });
    match record.input {
        Standardization::Fixed { mean, deviation } => {
            metadata["input"] = FIXED.into();
            metadata["input_mean"] = mean.to_string().into();
            metadata["input_std"] = deviation.to_string().into();
        }
        // Without the numbers, whoever knows nothing of `input` finds out.
        Standardization::PerImage => metadata["input"] = PER_IMAGE.into(),
    }
    metadata
}

/// Reads a model back, as a single lane, to evaluate it.
pub fn load(path: &Path, device: &Device) -> Result<(Model, Record), LoadError> {
    let in_file = || path.to_owned();
    let bytes = std::fs::read(path).map_err(|source| LoadError::Read { path: in_file(), source })?;
    let parse = |source| LoadError::Format { path: in_file(), source };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(parse)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(parse)?;
    let record = read_record(path, |key| header.metadata().as_ref().and_then(|all| all.get(key)))?;

    let group = Group::single(&record.hyperparameters, record.seeds)
        .map_err(|source| LoadError::Settings { path: in_file(), source })?;
    let parameters = Outline::of(&group.shape, record.images)?.parameters;
    // Up to twice as many, the tensors that are missing can be named.
    if parameters / 2 > bytes.len() / size_of::<f32>() {
        return Err(LoadError::TooShort { path: in_file(), bytes: bytes.len(), parameters });
    }
    let mut model = Model::new(&group.shape, &group.lanes, record.images, device)?;
    let tensor = |name: &str, dtype: Dtype, shape: &[usize]| {
        let Ok(tensor) = tensors.tensor(name) else {
            return Err(LoadError::MissingTensor { path: in_file(), name: name.to_owned() });
        };
        if (tensor.dtype(), tensor.shape()) != (dtype, shape) {
            return Err(LoadError::Unfitting {
                path: in_file(),
                name: name.to_owned(),
                found_dtype: tensor.dtype(),
                found: tensor.shape().to_vec(),
                expected_dtype: dtype,
                expected: shape.to_vec(),
            });
        }
        Ok(tensor)
    };
    for named in &model.named {
        let values = floats(&tensor(&named.name, Dtype::F32, &named.shape)?);
        named.set_lane(0, &values).map_err(ModelError::from)?;
    }
    let mut steps = 0;
    for layer in model.counting_layers() {
        let bytes = tensor(&counter(layer), Dtype::I64, &[])?;
        steps = bytes.data().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    }
    model.steps = vec![steps];
    match tensors.names().into_iter().find(|name| !model.knows(name)) {
        Some(name) => Err(LoadError::UnknownTensor { path: in_file(), name: name.to_owned() }),
        None => Ok((model, record)),
    }
}

fn read_record<'a>(path: &Path, get: impl Fn(&str) -> Option<&'a String>) -> Result<Record, LoadError> {
    let wrong = |key, problem: String| LoadError::Metadata { path: path.to_owned(), key, problem };
    let text = |key: &'static str| get(key).ok_or_else(|| wrong(key, "is missing".to_owned()));
    let number = |key: &'static str| match text(key)?.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(wrong(key, "is not a number".to_owned())),
    };
    if text("format")? != FORMAT {
        return Err(wrong("format", format!("is not {FORMAT:?}, the one that this version reads")));
    }
    let input = match text("input")?.as_str() {
        FIXED => Standardization::Fixed { mean: number("input_mean")?, deviation: number("input_std")? },
        PER_IMAGE => Standardization::PerImage,
        other => {
            return Err(wrong(
                "input",
                format!("is {other:?}, which is neither {FIXED:?} nor {PER_IMAGE:?}"),
            ));
        }
    };
    let images: ImageShape = serde_json::from_str(text("shape")?)
        .map_err(|error| wrong("shape", format!("cannot be read: {error}")))?;
    let sides = 1..=Idx::MAX_SIDE;
    if !sides.contains(&images.height)
        || !sides.contains(&images.width)
        || !(1..=256).contains(&images.classes)
    {
        return Err(wrong("shape", "is of no images that there can be".to_owned()));
    }
    Ok(Record {
        hyperparameters: serde_json::from_str(text("hyperparameters")?)
            .map_err(|error| wrong("hyperparameters", format!("cannot be read: {error}")))?,
        seeds: serde_json::from_str(text("seeds")?)
            .map_err(|error| wrong("seeds", format!("cannot be read: {error}")))?,
        images,
        input,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;
    use crate::train::testing::{group, hyperparameters};

    const IMAGES: ImageShape = ImageShape { height: 6, width: 5, classes: 3 };

    fn made(settings: &[(&str, &str)]) -> (Model, Record) {
        let seeds = Seeds::from_one(4);
        let group = group(&[(settings, seeds)]);
        let mut model = Model::new(&group.shape, &group.lanes, IMAGES, &Device::Cpu).expect("fits");
        let input = Standardization::Fixed { mean: 0.28 + 1e-17, deviation: 0.1 + 0.2 };
        model.steps = vec![77];
        let hyperparameters = hyperparameters(settings);
        (model, Record { hyperparameters, seeds, images: IMAGES, input })
    }

    #[test]
    fn a_model_reads_back_as_it_was_and_is_the_same_bytes_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("model.safetensors");
        for architecture in ["fcn", "lenet"] {
            for normalization in ["none", "batch", "layer", "group", "instance"] {
                let (model, record) = made(&[("model", architecture), ("normalization", normalization)]);
                save(&path, &model, 0, &record).expect("saved");
                let (read, read_record) = load(&path, &Device::Cpu).expect("read");
                assert_eq!(read_record, record);
                if normalization == "batch" {
                    assert_eq!(read.steps, [77]);
                }
                for (read, saved) in read.named.iter().zip(&model.named) {
                    let values =
                        |tensor: &Tensor| tensor.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("f32");
                    assert_eq!(values(&read.values), values(&saved.values), "{}", saved.name);
                }
                assert_eq!(encode(&model, 0, &record).expect("bytes"), std::fs::read(&path).expect("bytes"));
            }
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            1,
            "a temporary file is left"
        );
    }

    #[test]
    fn a_model_says_how_to_feed_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("model.safetensors");
        let (model, fixed) = made(&[]);
        let per_image = Record { input: Standardization::PerImage, ..fixed.clone() };
        for (record, word, numbers) in [(fixed, FIXED, true), (per_image, PER_IMAGE, false)] {
            save(&path, &model, 0, &record).expect("saved");
            assert_eq!(load(&path, &Device::Cpu).expect("read").1, record);
            let bytes = std::fs::read(&path).expect("bytes");
            let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
            let metadata = header.metadata().as_ref().expect("there");
            assert_eq!(metadata["input"], word);
            for key in ["input_mean", "input_std"] {
                assert_eq!(metadata.contains_key(key), numbers, "{word}: {key}");
            }
        }
    }

    #[test]
    fn convolutions_are_saved_in_pytorchs_layout() {
        let (model, record) = made(&[("model", "lenet")]);
        let bytes = encode(&model, 0, &record).expect("bytes");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let view = file.tensor("conv2.weight").expect("there");
        assert_eq!(view.shape(), [64, 32, 5, 5]);
        let at = |out: usize, channel: usize, row: usize, column: usize| {
            let index = ((out * 32 + channel) * 5 + row) * 5 + column;
            f32::from_le_bytes(view.data()[index * 4..][..4].try_into().expect("4 bytes"))
        };
        let named = model.named.iter().find(|named| named.name == "conv2.weight").expect("there");
        let values = named.values.reshape((64, 5, 5, 32)).and_then(|x| x.flatten_all()?.to_vec1::<f32>());
        let values = values.expect("f32");
        for (out, channel, row, column) in [(0, 0, 0, 1), (3, 31, 4, 2), (63, 7, 1, 0)] {
            assert_eq!(at(out, channel, row, column), values[((out * 5 + row) * 5 + column) * 32 + channel]);
        }
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("model.safetensors");
        let (model, record) = made(&[]);
        let wider =
            Record { hyperparameters: hyperparameters(&[("hidden_sizes", "256,64")]), ..record.clone() };
        let deeper =
            Record { hyperparameters: hyperparameters(&[("hidden_sizes", "256,128,3")]), ..record.clone() };
        let normed =
            Record { hyperparameters: hyperparameters(&[("normalization", "batch")]), ..record.clone() };
        let (normed_model, _) = made(&[("normalization", "batch")]);
        for (name, model, record, said) in [
            (
                "another size",
                &model,
                &wider,
                r#""fc2.weight" as F32 [128, 256], but the model takes F32 [64, 256]"#,
            ),
            ("another depth", &model, &deeper, r#"no tensor "fc4.weight""#),
            ("a tensor too few", &model, &normed, r#"no tensor "norm1.weight""#),
            ("a tensor too many", &normed_model, &record, "know nothing of"),
        ] {
            save(&path, model, 0, record).expect("saved");
            let message = load(&path, &Device::Cpu).map(|_| ()).expect_err(name).to_string();
            assert!(message.contains(said), "{name}: {message}");
        }
        let whole = encode(&model, 0, &record).expect("bytes");
        for (name, bytes, said) in [
            ("cut off", &whole[..whole.len() - 1], "not a safetensors file"),
            ("empty", &[][..], "not a safetensors file"),
        ] {
            std::fs::write(&path, bytes).expect("written");
            let message = load(&path, &Device::Cpu).map(|_| ()).expect_err(name).to_string();
            assert!(message.contains(said), "{name}: {message}");
        }
    }
}
