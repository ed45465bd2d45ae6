//! Images as a model takes them: split by class, standardised, gathered into batches.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use fittingroom_common::dataset::{Dataset, Part, Shape};
use rand::seq::SliceRandom;

use super::hyper::Visiting;
use super::rng;
use super::simd;

/// Which images are trained on, and which validate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Split {
    /// Indices of the images to train on, ascending.
    pub training: Vec<u32>,
    /// Indices of the images to validate on, ascending.
    pub validation: Vec<u32>,
}

impl Split {
    /// One tenth of each class, rounded, goes to validation, but at least one image in all.
    pub fn stratified(labels: &[u8], seed: u64) -> Self {
        let mut split = Self { training: Vec::new(), validation: Vec::new() };
        for class in 0..=u8::MAX {
            let of_class = |(index, label): (usize, &u8)| (*label == class).then_some(index as u32);
            let mut images: Vec<u32> = labels.iter().enumerate().filter_map(of_class).collect();
            images.shuffle(&mut rng::split(seed, class).generator());
            let validation = (images.len() + 5) / 10;
            split.validation.extend(&images[..validation]);
            split.training.extend(&images[validation..]);
        }
        if split.validation.is_empty() {
            split.validation.extend(split.training.pop());
        }
        split.training.sort_unstable();
        split.validation.sort_unstable();
        split
    }

    /// The training images in the order in which an epoch visits them.
    pub fn order(&self, visiting: Visiting, epoch: u32) -> Vec<u32> {
        let mut order = self.training.clone();
        match visiting {
            Visiting::Shuffled { seed } => order.shuffle(&mut rng::order(seed, epoch).generator()),
            Visiting::Ascending => {}
        }
        order
    }
}

/// How grey values become a model's input: `(pixel / 255 - mean) / deviation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standardization {
    /// Mean of pixel / 255 over the images trained on.
    pub mean: f64,
    /// Its standard deviation; 1 where all pixels are alike.
    pub deviation: f64,
}

impl Standardization {
    /// The statistics of some images of a part.
    pub fn of(part: &Part, pixels: usize, images: &[u32]) -> Self {
        // Counting the 256 grey values first makes the sums exact.
        let mut counts = [0u64; 256];
        for &image in images {
            for &pixel in &part.pixels[image as usize * pixels..][..pixels] {
                counts[usize::from(pixel)] += 1;
            }
        }
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let average = |of: &dyn Fn(f64) -> f64| {
            let sum: f64 = counts
                .iter()
                .zip(0u8..=255)
                .map(|(&count, grey)| count as f64 * of(f64::from(grey) / 255.0))
                .sum();
            sum / total
        };
        let mean = average(&|grey| grey);
        let deviation = average(&|grey| (grey - mean).powi(2)).sqrt();
        Self { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
    }

    /// The factor and the offset that take a grey value from 0 to 255 to the input.
    fn affine(self) -> (f64, f64) {
        (1.0 / (255.0 * self.deviation), -self.mean / self.deviation)
    }
}

/// The images of one part of a dataset, where the device can read them.
#[derive(Debug)]
pub struct Images<'a> {
    part: &'a Part,
    height: usize,
    width: usize,
    input: Standardization,
    /// All pixels on the device, if that is not the CPU: `[images, pixels]`.
    on_device: Option<Tensor>,
    device: Device,
}

/// Images and their classes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[1, batch, height, width, 1]`: all lanes share them.
    pub images: Tensor,
    /// The class of each.
    pub labels: Arc<[u8]>,
}

impl<'a> Images<'a> {
    /// The images of a part.
    pub fn new(part: &'a Part, shape: &Shape, input: Standardization, device: &Device) -> Result<Self> {
        let on_device = match device {
            Device::Cpu => None,
            Device::Cuda(_) | Device::Metal(_) => {
                Some(Tensor::from_slice(&part.pixels, (part.labels.len(), shape.pixels()), device)?)
            }
        };
        let (height, width) = (shape.height, shape.width);
        Ok(Self { part, height, width, input, on_device, device: device.clone() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.part.labels.len()
    }

    /// These images, in this order, standardised.
    pub fn batch(&self, indices: &[u32]) -> Result<Batch> {
        let (factor, offset) = self.input.affine();
        let pixels = self.height * self.width;
        let images = match &self.on_device {
            Some(all) => {
                let indices = Tensor::new(indices, &self.device)?;
                all.index_select(&indices, 0)?.to_dtype(candle_core::DType::F32)?.affine(factor, offset)?
            }
            None => {
                let mut images = vec![0f32; indices.len() * pixels];
                let (factor, offset) = (factor as f32, offset as f32);
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for (image, &index) in images.chunks_exact_mut(pixels).zip(indices) {
                            let grey = &self.part.pixels[index as usize * pixels..][..pixels];
                            for (value, grey) in image.iter_mut().zip(grey) {
                                *value = f32::from(*grey) * factor + offset;
                            }
                        }
                    },
                );
                Tensor::from_vec(images, (indices.len(), pixels), &self.device)?
            }
        };
        let images = images.reshape((1, indices.len(), self.height, self.width, 1))?;
        let labels = indices.iter().map(|&index| self.part.labels[index as usize]).collect();
        Ok(Batch { images, labels })
    }
}

/// A dataset made ready for training.
#[derive(Debug)]
pub struct Data<'a> {
    /// Which images are trained on, and which validate.
    pub split: Split,
    /// How grey values become inputs.
    pub input: Standardization,
    /// Images to train and validate on.
    pub images: Images<'a>,
    /// Images to test on.
    pub test: Images<'a>,
}

impl<'a> Data<'a> {
    /// Splits a dataset and standardises it by its training images.
    pub fn new(dataset: &'a Dataset, split_seed: u64, device: &Device) -> Result<Self> {
        let shape = &dataset.shape;
        let split = Split::stratified(&dataset.train.labels, split_seed);
        let input = Standardization::of(&dataset.train, shape.pixels(), &split.training);
        let images = Images::new(&dataset.train, shape, input, device)?;
        let test = Images::new(&dataset.test, shape, input, device)?;
        Ok(Self { split, input, images, test })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{assert_close, flat};

    #[test]
    fn a_tenth_of_every_class_validates_and_nothing_is_in_both_parts() {
        let labels: Vec<u8> = (0..6000).map(|index| (index * index % 7) as u8).collect();
        let split = Split::stratified(&labels, 1);
        let mut all = [split.training.clone(), split.validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..6000).collect::<Vec<u32>>());
        for class in 0..7 {
            let count =
                |images: &[u32]| images.iter().filter(|&&image| labels[image as usize] == class).count();
            let (training, validation) = (count(&split.training), count(&split.validation));
            assert_eq!(validation, (training + validation + 5) / 10, "class {class}");
        }
        assert_eq!(split, Split::stratified(&labels, 1));
        assert_ne!(split, Split::stratified(&labels, 2));
    }

    #[test]
    fn a_tiny_dataset_keeps_an_image_to_validate_on() {
        let split = Split::stratified(&[0, 1, 1], 1);
        assert_eq!((split.training.len(), split.validation.len()), (2, 1));
    }

    #[test]
    fn every_epoch_visits_every_training_image_once_in_another_order() {
        let split = Split::stratified(&[0; 100], 1);
        let order = |epoch| split.order(Visiting::Shuffled { seed: 5 }, epoch);
        let (first, second) = (order(1), order(2));
        assert_ne!(first, second);
        assert_eq!(first, order(1));
        assert_eq!(split.order(Visiting::Ascending, 2), split.training);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, split.training);
        }
    }

    #[test]
    fn inputs_have_mean_0_and_deviation_1_over_the_training_images() {
        let part = Part { pixels: vec![0, 255, 51, 102, 10, 20], labels: vec![0, 1, 0] };
        let input = Standardization::of(&part, 2, &[0, 1]);
        assert_close("mean", &[input.mean], &[0.4], 1e-12);
        let shape = Shape { height: 1, width: 2, classes: 2, train_images: 3, test_images: 0 };
        let images = Images::new(&part, &shape, input, &Device::Cpu).expect("good");
        let batch = images.batch(&[1, 0]).expect("good");
        assert_eq!((batch.images.dims(), &*batch.labels), (&[1, 2, 1, 2, 1][..], &[1, 0][..]));
        let expected = [0.2, 0.4, 0.0, 1.0].map(|grey| (grey - input.mean) / input.deviation);
        assert_close("batch", &flat(&batch.images), &expected, 1e-6);
    }
}
