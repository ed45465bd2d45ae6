//! Model files, to evaluate and to start from.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use fittingroom_common::trial::Seeds;
use safetensors::tensor::{Dtype, TensorView};

use crate::train::hyper::Group;
use crate::train::model::{ImageShape, Model};
use crate::train::save;
use crate::train::testing::hyperparameters;
use crate::train::weights::{Start, Weights};

/// The metadata that an input's parts are, one after the other, each ended by a zero.
const KEYS: [&str; 7] = ["format", "hyperparameters", "seeds", "shape", "input", "input_mean", "input_std"];

/// The largest images that a model is asked about here, in pixels: the time is for other things.
const MOST_PIXELS: usize = 4_096;

/// A whole file, if the first byte is 0; else the metadata of one whose tensors are named after it: each
/// with a size, ended by a zero. What is loaded is the same after another way through a file, and
/// computes.
pub fn model(bytes: &[u8]) {
    let Some((form, bytes)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    let file = if *form == 0 { bytes.to_vec() } else { described(bytes) };
    std::fs::write(&path, file).expect("writable");
    match save::load(&path, &Device::Cpu) {
        Ok((loaded, record)) => {
            let again = folder.path().join("again.safetensors");
            save::save(&again, &loaded, 0, &record).expect("writable");
            let (read, read_record) = save::load(&again, &Device::Cpu).expect("what was saved");
            assert_eq!((read_record, read.steps), (record.clone(), loaded.steps.clone()));
            let ImageShape { height, width, classes } = record.images;
            if height * width <= MOST_PIXELS {
                let image = Tensor::zeros((1, 1, height, width, 1), DType::F32, &Device::Cpu).expect("small");
                let logits = loaded.evaluate(&image).expect("it computes");
                assert_eq!(logits.dims(), [1, 1, classes]);
            }
        }
        Err(error) => assert!(error.to_string().len() < 4_096, "{error}"),
    }
    start_from(&path);
}

/// The same file as weights to start from.
fn start_from(path: &Path) {
    let Ok(weights) = Weights::read(path) else { return };
    let settings = hyperparameters(&[("hidden_sizes", "4"), ("normalization", "batch")]);
    let mut group = Group::single(&settings, Seeds::from_one(1)).expect("a group");
    group.lanes[0].start = Start::From(weights);
    let images = ImageShape { height: 3, width: 2, classes: 2 };
    if let Err(error) = Model::new(&group.shape, &group.lanes, images, &Device::Cpu) {
        assert!(error.to_string().len() < 4_096, "{error}");
    }
}

/// A file with this metadata and these tensors.
fn described(bytes: &[u8]) -> Vec<u8> {
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut text = || parts.next().map(|part| String::from_utf8_lossy(part).into_owned());
    let metadata = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), text()?))).collect();
    let mut tensors = BTreeMap::new();
    while let Some(name) = text() {
        let shape: Vec<usize> =
            text().unwrap_or_default().split(' ').filter_map(|size| size.parse().ok()).collect();
        let elements = shape.iter().fold(1, |product: usize, size| product.saturating_mul(*size));
        if elements <= 4_096 {
            tensors.insert(name, (shape, vec![7; 4 * elements]));
        }
    }
    let views = tensors.iter().filter_map(|(name, (shape, bytes))| {
        let counts = name.ends_with(".num_batches_tracked") && shape.is_empty();
        let (dtype, bytes) = if counts { (Dtype::I64, &[1; 8][..]) } else { (Dtype::F32, &bytes[..]) };
        Some((name, TensorView::new(dtype, shape.clone(), bytes).ok()?))
    });
    safetensors::serialize(views, Some(metadata)).unwrap_or_default()
}
