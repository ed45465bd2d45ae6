//! Images as a model takes them: split by class, standardised, gathered into batches.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use fittingroom_common::dataset::{Dataset, Part, Shape};
use rand::seq::SliceRandom;

use super::hyper::{InputStandardization, Visiting};
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
pub enum Standardization {
    /// With the same numbers for all images.
    Fixed {
        /// Mean of pixel / 255 over the images trained on; 0 where inputs stay from 0 to 1.
        mean: f64,
        /// Its standard deviation; 1 where all pixels are alike or inputs stay from 0 to 1.
        deviation: f64,
    },
    /// With the mean of pixel / 255 over the image itself, and its standard deviation or, if that is
    /// larger, the inverse root of its pixels, as `tf.image.per_image_standardization` does it.
    PerImage,
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
        Self::Fixed { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
    }

    /// The factor and the offset that take an image's grey values from 0 to 255 to the input.
    fn affine(self, image: &[u8]) -> (f64, f64) {
        match self {
            Self::Fixed { mean, deviation } => affine(mean, deviation),
            Self::PerImage => {
                // Whole numbers: the sums are exact.
                let sum: u64 = image.iter().map(|&grey| u64::from(grey)).sum();
                let squares: u64 = image.iter().map(|&grey| u64::from(grey).pow(2)).sum();
                let count = image.len() as f64;
                let mean = sum as f64 / count;
                let variance = (squares as f64 / count - mean * mean).max(0.0);
                affine(mean / 255.0, (variance.sqrt() / 255.0).max(count.sqrt().recip()))
            }
        }
    }

    /// The input of images of `[images, pixels]` grey values from 0 to 255, in candle's ops.
    fn composed(self, grey: &Tensor) -> Result<Tensor> {
        match self {
            Self::Fixed { mean, deviation } => {
                let (factor, offset) = affine(mean, deviation);
                grey.affine(factor, offset)
            }
            Self::PerImage => {
                let values = (grey / 255.0)?;
                let centred = values.broadcast_sub(&values.mean_keepdim(1)?)?;
                let deviation = centred.sqr()?.mean_keepdim(1)?.sqrt()?;
                let least = (grey.dim(1)? as f64).sqrt().recip();
                centred.broadcast_div(&deviation.maximum(least)?)
            }
        }
    }
}

fn affine(mean: f64, deviation: f64) -> (f64, f64) {
    (1.0 / (255.0 * deviation), -mean / deviation)
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
        let pixels = self.height * self.width;
        let images = match &self.on_device {
            Some(all) => {
                let indices = Tensor::new(indices, &self.device)?;
                self.input.composed(&all.index_select(&indices, 0)?.to_dtype(candle_core::DType::F32)?)?
            }
            None => {
                let mut images = vec![0f32; indices.len() * pixels];
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for (image, &index) in images.chunks_exact_mut(pixels).zip(indices) {
                            let grey = &self.part.pixels[index as usize * pixels..][..pixels];
                            let (factor, offset) = self.input.affine(grey);
                            let (factor, offset) = (factor as f32, offset as f32);
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
    /// Splits a dataset and standardises it, by its training images if by any.
    pub fn new(
        dataset: &'a Dataset,
        split_seed: u64,
        standardization: InputStandardization,
        device: &Device,
    ) -> Result<Self> {
        let shape = &dataset.shape;
        let split = Split::stratified(&dataset.train.labels, split_seed);
        let input = match standardization {
            InputStandardization::Dataset => {
                Standardization::of(&dataset.train, shape.pixels(), &split.training)
            }
            InputStandardization::Unit => Standardization::Fixed { mean: 0.0, deviation: 1.0 },
            InputStandardization::PerImage => Standardization::PerImage,
        };
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
        let Standardization::Fixed { mean, deviation } = input else { panic!("{input:?}") };
        assert_close("mean", &[mean], &[0.4], 1e-12);
        let shape = Shape { height: 1, width: 2, classes: 2, train_images: 3, test_images: 0 };
        let images = Images::new(&part, &shape, input, &Device::Cpu).expect("good");
        let batch = images.batch(&[1, 0]).expect("good");
        assert_eq!((batch.images.dims(), &*batch.labels), (&[1, 2, 1, 2, 1][..], &[1, 0][..]));
        let expected = [0.2, 0.4, 0.0, 1.0].map(|grey| (grey - mean) / deviation);
        assert_close("batch", &flat(&batch.images), &expected, 1e-6);
    }

    #[test]
    fn inputs_are_standardised_as_asked() {
        // The least deviation of an image of 4 pixels is 1/2.
        let pixels = [[0, 255, 0, 255], [255, 0, 0, 0], [10, 20, 30, 40], [200; 4]];
        let part = Part { pixels: pixels.concat(), labels: vec![0, 1, 0, 1] };
        let shape = Shape { height: 2, width: 2, classes: 2, train_images: 4, test_images: 4 };
        let dataset = Dataset { shape, train: part.clone(), test: part };
        for (standardization, expected) in [
            (
                InputStandardization::Unit,
                pixels.concat().iter().map(|&grey| f64::from(grey) / 255.0).collect(),
            ),
            (
                InputStandardization::PerImage,
                // By tf.image.per_image_standardization's definition; the deviation of the second image
                // is the square root of 3/16, below 1/2.
                vec![
                    -1.0,
                    1.0,
                    -1.0,
                    1.0,
                    1.5,
                    -0.5,
                    -0.5,
                    -0.5,
                    -30.0 / 255.0,
                    -10.0 / 255.0,
                    10.0 / 255.0,
                    30.0 / 255.0,
                    0.0,
                    0.0,
                    0.0,
                    0.0,
                ],
            ),
        ] {
            let data = Data::new(&dataset, 1, standardization, &Device::Cpu).expect("good");
            let batch = data.test.batch(&[0, 1, 2, 3]).expect("good");
            assert_close(&format!("{standardization:?}"), &flat(&batch.images), &expected, 1e-6);
            let grey: Vec<f32> = pixels.concat().into_iter().map(f32::from).collect();
            let grey = Tensor::from_vec(grey, (4, 4), &Device::Cpu).expect("good");
            let composed = data.input.composed(&grey).expect("good");
            assert_close(&format!("{standardization:?}, composed"), &flat(&composed), &expected, 1e-6);
        }
    }

    #[test]
    fn an_image_by_itself_has_mean_0_and_deviation_1() {
        let part = Part {
            pixels: (0..128).map(|pixel| (pixel * pixel * 37 % 251) as u8).collect(),
            labels: vec![0, 1],
        };
        let shape = Shape { height: 8, width: 8, classes: 2, train_images: 2, test_images: 2 };
        let images = Images::new(&part, &shape, Standardization::PerImage, &Device::Cpu).expect("good");
        for index in [0, 1] {
            let values = flat(&images.batch(&[index]).expect("good").images);
            let moment = |power| values.iter().map(|value| value.powi(power)).sum::<f64>() / 64.0;
            assert_close("moments", &[moment(1), moment(2)], &[0.0, 1.0], 1e-6);
        }
    }
}
