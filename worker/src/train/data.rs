//! Images as a model takes them: split by class, standardised, gathered into batches.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use fittingroom_common::dataset::{Dataset, Part, Shape};
use rand::seq::SliceRandom;

use super::augment::{Changes, Frame, device, host};
#[cfg(feature = "cuda")]
use super::cuda::{File, Gpu, Grid};
use super::element::extend;
use super::hyper::{InputStandardization, Visiting};
use super::ops::cross_entropy::Mixed;
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
        let mut classes = vec![Vec::new(); 256];
        for (index, &label) in labels.iter().enumerate() {
            classes[usize::from(label)].push(index as u32);
        }
        for (class, images) in (0..=u8::MAX).zip(&mut classes) {
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
        let (mut sum, mut squares) = (0, 0);
        for &image in images {
            let of_image = sums(&part.pixels[image as usize * pixels..][..pixels]);
            (sum, squares) = (sum + of_image.0, squares + of_image.1);
        }
        let (mean, deviation) = mean_and_deviation(sum, squares, images.len() * pixels);
        Self::Fixed { mean: mean / 255.0, deviation: if deviation > 0.0 { deviation / 255.0 } else { 1.0 } }
    }

    /// The factor and the offset that take an image's grey values from 0 to 255 to the input.
    fn affine(self, image: &[u8]) -> (f64, f64) {
        match self {
            Self::Fixed { mean, deviation } => affine(mean, deviation),
            Self::PerImage => {
                let (sum, squares) = sums(image);
                let (mean, deviation) = mean_and_deviation(sum, squares, image.len());
                affine(mean / 255.0, (deviation / 255.0).max((image.len() as f64).sqrt().recip()))
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

/// The sums of grey values and of their squares. They are whole numbers, and so exact.
fn sums(grey: &[u8]) -> (u64, u64) {
    /// So few that the sum of their squares fits into 32 bits.
    const RUN: usize = 4096;
    simd::dispatch(
        #[inline(always)]
        || {
            let (mut sum, mut squares) = (0, 0);
            for run in grey.chunks(RUN) {
                let (mut of_run, mut squares_of_run) = (0u32, 0u32);
                for &grey in run {
                    of_run += u32::from(grey);
                    squares_of_run += u32::from(grey) * u32::from(grey);
                }
                sum += u64::from(of_run);
                squares += u64::from(squares_of_run);
            }
            (sum, squares)
        },
    )
}

fn mean_and_deviation(sum: u64, squares: u64, count: usize) -> (f64, f64) {
    let count = count.max(1) as f64;
    let mean = sum as f64 / count;
    (mean, (squares as f64 / count - mean * mean).max(0.0).sqrt())
}

fn affine(mean: f64, deviation: f64) -> (f64, f64) {
    (1.0 / (255.0 * deviation), -mean / deviation)
}

/// A dataset where a device can read it: for the CPU as it lies in memory; any other device has all pixels.
#[derive(Clone, Debug)]
pub struct Placed {
    dataset: Dataset,
    device: Device,
    /// `[images, pixels]`, to train on and to test on, if the device is not the CPU.
    on_device: Option<[Tensor; 2]>,
}

impl Placed {
    /// Brings a dataset to a device.
    pub fn new(dataset: Dataset, device: &Device) -> Result<Self> {
        let bring = |part: &Part| {
            Tensor::from_slice(&part.pixels, (part.labels.len(), dataset.shape.pixels()), device)
        };
        let on_device = match device {
            Device::Cpu => None,
            Device::Cuda(_) | Device::Metal(_) => Some([bring(&dataset.train)?, bring(&dataset.test)?]),
        };
        Ok(Self { dataset, device: device.clone(), on_device })
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The images to train and validate on.
    pub fn training(&self, input: Standardization) -> Images<'_> {
        self.images(&self.dataset.train, input, self.on_device.as_ref().map(|[training, _]| training))
    }

    /// The images to test on.
    pub fn test(&self, input: Standardization) -> Images<'_> {
        self.images(&self.dataset.test, input, self.on_device.as_ref().map(|[_, test]| test))
    }

    fn images<'a>(
        &'a self,
        part: &'a Part,
        input: Standardization,
        on_device: Option<&'a Tensor>,
    ) -> Images<'a> {
        let Shape { height, width, .. } = self.dataset.shape;
        Images { part, height, width, input, on_device, device: &self.device }
    }
}

/// The images of one part of a dataset, where the device can read them, and how they become inputs.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    part: &'a Part,
    height: usize,
    width: usize,
    input: Standardization,
    /// All pixels on the device, if that is not the CPU: `[images, pixels]`.
    on_device: Option<&'a Tensor>,
    device: &'a Device,
}

/// Images and their classes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[1, batch, height, width, 1]`: all lanes share them.
    pub images: Tensor,
    /// The class of each; of an image made of two, that with the larger share.
    pub labels: Arc<[u8]>,
    /// The other classes, where images are made of two.
    pub mixed: Option<Mixed>,
}

impl Images<'_> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.part.labels.len()
    }

    /// These images, in this order, standardised.
    pub fn batch(&self, indices: &[u32]) -> Result<Batch> {
        let images = match self.on_device {
            Some(all) => self.gathered(all, &Tensor::new(indices, self.device)?)?,
            None => self.on_host(
                self.standardized(&indices.iter().map(|&index| self.grey(index)).collect::<Vec<_>>()),
            )?,
        };
        let labels = indices.iter().map(|&index| self.label(index)).collect();
        Ok(Batch { images: self.shaped(&images, indices)?, labels, mixed: None })
    }

    /// These images, in this order, changed as drawn, standardised.
    pub fn augmented(&self, indices: &[u32], changes: Option<&Changes>) -> Result<Batch> {
        let Some(Changes { placements, mix }) = changes else {
            return self.batch(indices);
        };
        let frame = Frame { height: self.height, width: self.width };
        let images = match self.on_device {
            Some(all) => {
                let grey = all.index_select(&Tensor::new(indices, self.device)?, 0)?;
                let images = self.input.composed(&device::place(&grey, placements, frame)?)?;
                mix.iter().try_fold(images, |images, mix| device::mix(&images, mix, frame))?
            }
            None => {
                let pixels = self.height * self.width;
                let mut grey = vec![0; indices.len() * pixels];
                let places = grey.chunks_exact_mut(pixels).zip(placements).zip(indices);
                places.for_each(|((out, placement), &index)| {
                    host::place(self.grey(index), placement, frame, out);
                });
                let images = self.standardized(&grey.chunks_exact(pixels).collect::<Vec<_>>());
                self.on_host(mix.iter().fold(images, |images, mix| host::mix(images, mix, frame)))?
            }
        };
        let labels: Arc<[u8]> = indices.iter().map(|&index| self.label(index)).collect();
        let images = self.shaped(&images, indices)?;
        let Some(mix) = mix else {
            return Ok(Batch { images, labels, mixed: None });
        };
        let partners = mix.partners.iter().map(|&place| labels[place as usize]).collect();
        let (labels, other, share) = if mix.own_share < 0.5 {
            (partners, labels, mix.own_share)
        } else {
            (labels, partners, 1.0 - mix.own_share)
        };
        Ok(Batch { images, labels, mixed: Some(Mixed { other, share }) })
    }

    /// Images that are on the device, standardised.
    fn gathered(&self, all: &Tensor, indices: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let (Some(gpu), Standardization::Fixed { mean, deviation }) = (Gpu::on(self.device), self.input) {
            let (count, pixels) = (indices.elem_count(), self.height * self.width);
            let images = gpu.empty((count, pixels))?;
            let ((factor, offset), count) = (affine(mean, deviation), count * pixels);
            let (kernel, sizes) = ((File::Activations, "gather_images"), [pixels, count]);
            let numbers = [factor as f32, offset as f32];
            gpu.launch(kernel, Grid::over(count), &[all, indices, &images], &sizes, &numbers)?;
            return Ok(images);
        }
        self.input.composed(&all.index_select(indices, 0)?.to_dtype(candle_core::DType::F32)?)
    }

    fn grey(&self, index: u32) -> &[u8] {
        let pixels = self.height * self.width;
        &self.part.pixels[index as usize * pixels..][..pixels]
    }

    fn label(&self, index: u32) -> u8 {
        self.part.labels[index as usize]
    }

    /// Standardises images of bytes, one after the other.
    fn standardized(&self, grey: &[&[u8]]) -> Vec<f32> {
        /// Images lie anywhere in the dataset: each is asked for while this many before it are worked on.
        const AHEAD: usize = 2;
        let mut images = Vec::with_capacity(grey.len() * self.height * self.width);
        simd::dispatch(
            #[inline(always)]
            || {
                for (place, image) in grey.iter().enumerate() {
                    if let Some(later) = grey.get(place + AHEAD) {
                        simd::prefetch_from(later, 0);
                    }
                    let (factor, offset) = self.input.affine(image);
                    let (factor, offset) = (factor as f32, offset as f32);
                    extend(&mut images, image.iter().map(|grey| f32::from(*grey) * factor + offset));
                }
            },
        );
        images
    }

    fn on_host(&self, images: Vec<f32>) -> Result<Tensor> {
        let values = images.len();
        Tensor::from_vec(images, values, self.device)
    }

    fn shaped(&self, images: &Tensor, indices: &[u32]) -> Result<Tensor> {
        images.reshape((1, indices.len(), self.height, self.width, 1))
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
    pub fn new(placed: &'a Placed, split_seed: u64, standardization: InputStandardization) -> Self {
        let dataset = placed.dataset();
        let split = Split::stratified(&dataset.train.labels, split_seed);
        let input = match standardization {
            InputStandardization::Dataset => {
                Standardization::of(&dataset.train, dataset.shape.pixels(), &split.training)
            }
            InputStandardization::Unit => Standardization::Fixed { mean: 0.0, deviation: 1.0 },
            InputStandardization::PerImage => Standardization::PerImage,
        };
        Self { images: placed.training(input), test: placed.test(input), split, input }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::augment::Augmenter;
    use crate::train::hyper::Augmentation;
    use crate::train::model::ImageShape;
    use crate::train::ops::testing::{assert_close, flat};
    use crate::train::rng::Moment;
    use crate::train::testing;

    /// A dataset of this part alone.
    fn placed(part: &Part, shape: Shape) -> Placed {
        testing::placed(&Dataset { shape, train: part.clone(), test: part.clone() })
    }

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

    /// The form that runs on GPUs gives what the CPU's gives.
    #[test]
    fn augmentation_in_the_devices_ops_is_that_of_the_host() {
        let shape = Shape { height: 7, width: 9, classes: 5, train_images: 6, test_images: 0 };
        let part = Part {
            pixels: (0..6 * 63).map(|pixel| (pixel * 37 % 251) as u8).collect(),
            labels: vec![0, 1, 2, 3, 4, 0].into(),
        };
        let input = Standardization::of(&part, 63, &[0, 1, 2, 3, 4, 5]);
        let dataset = Dataset { shape, train: part.clone(), test: part.clone() };
        let placed = Placed::new(dataset, &Device::Cpu).expect("nothing moves");
        let on_host = placed.training(input);
        let device = testing::device();
        let all = Tensor::from_slice(&part.pixels, (6, 63), device).expect("good");
        let on_device = Images { on_device: Some(&all), device, ..on_host };
        let images = ImageShape::of(&shape);
        let indices = [5, 0, 3, 1, 4];
        let values = |batch: &Batch| {
            batch.images.flatten_all().and_then(|images| images.to_vec1::<f32>()).expect("f32")
        };
        // A GPU may round the product and the sum of the standardisation once, where the CPU rounds twice.
        let assert_same = |name: &str, host: &Batch, on_device: &Batch| {
            if device.is_cpu() {
                assert_eq!(values(host), values(on_device), "{name}");
            } else {
                assert_close(name, &flat(&on_device.images), &flat(&host.images), 1e-6);
            }
        };
        let plain = on_host.batch(&indices).expect("good");
        assert_same("no augmentation", &plain, &on_device.batch(&indices).expect("good"));
        let all =
            Augmentation { flip: true, shift: 3, random_erasing: 0.7, mixup: Some(1.0), cutmix: Some(1.0) };
        let off = Augmentation::default();
        for (name, settings) in [
            ("flip", Augmentation { flip: true, ..off }),
            ("shift", Augmentation { shift: 6, ..off }),
            ("erasing", Augmentation { random_erasing: 1.0, ..off }),
            ("mixup", Augmentation { mixup: Some(0.4), ..off }),
            ("cutmix", Augmentation { cutmix: Some(1.0), ..off }),
            ("all", all),
        ] {
            let augmenter = Augmenter::new(settings, 1, images).expect("fits");
            for step in 0..20 {
                let changes = augmenter.draw(Moment { epoch: 1, step }, indices.len());
                let host = on_host.augmented(&indices, changes.as_ref()).expect("good");
                let other = on_device.augmented(&indices, changes.as_ref()).expect("good");
                assert_eq!(host.images.dims(), [1, 5, 7, 9, 1]);
                assert_same(&format!("{name}, step {step}"), &host, &other);
                assert_eq!((&host.labels, &host.mixed), (&other.labels, &other.mixed), "{name}");
            }
        }
    }

    /// Images of one grey value each show what they are made of: a mixture's share is that of its class.
    #[test]
    fn the_label_of_a_mixed_image_is_that_of_its_larger_part() {
        let (height, width) = (8, 8);
        let shape = Shape { height, width, classes: 4, train_images: 4, test_images: 0 };
        let part = Part {
            pixels: (0..4u8).flat_map(|class| [60 * class + 20; 64]).collect(),
            labels: vec![0, 1, 2, 3].into(),
        };
        let input = Standardization::Fixed { mean: 0.0, deviation: 1.0 / 255.0 };
        let placed = placed(&part, shape);
        let images = placed.training(input);
        let off = Augmentation::default();
        let mut swapped = 0;
        for (name, settings) in [
            ("mixup", Augmentation { mixup: Some(1.0), ..off }),
            ("cutmix", Augmentation { cutmix: Some(1.0), ..off }),
        ] {
            let augmenter = Augmenter::new(settings, 1, ImageShape::of(&shape)).expect("fits");
            for step in 0..50 {
                let changes = augmenter.draw(Moment { epoch: 1, step }, 4).expect("a mixture");
                let batch = images.augmented(&[2, 0, 3, 1], Some(&changes)).expect("good");
                let Mixed { other, share } = batch.mixed.expect("mixed");
                assert!((0.0..=0.5).contains(&share), "{name}: {share}");
                swapped += usize::from(batch.labels[..] != [2, 0, 3, 1]);
                let means: Vec<f64> = flat(&batch.images)
                    .chunks_exact(64)
                    .map(|image| image.iter().sum::<f64>() / 64.0)
                    .collect();
                for ((mean, label), other) in means.iter().zip(&*batch.labels).zip(&*other) {
                    let grey = |class: u8| f64::from(60 * class + 20);
                    let expected = (1.0 - share) * grey(*label) + share * grey(*other);
                    assert!((mean - expected).abs() < 1e-3, "{name}, step {step}: {mean}, not {expected}");
                }
            }
        }
        assert!((20..80).contains(&swapped), "{swapped} of 100 batches were mostly their partners'");
    }

    #[test]
    fn inputs_have_mean_0_and_deviation_1_over_the_training_images() {
        let part = Part { pixels: vec![0, 255, 51, 102, 10, 20].into(), labels: vec![0, 1, 0].into() };
        let input = Standardization::of(&part, 2, &[0, 1]);
        let Standardization::Fixed { mean, deviation } = input else { panic!("{input:?}") };
        assert_close("mean", &[mean], &[0.4], 1e-12);
        let shape = Shape { height: 1, width: 2, classes: 2, train_images: 3, test_images: 0 };
        let placed = placed(&part, shape);
        let images = placed.training(input);
        let batch = images.batch(&[1, 0]).expect("good");
        assert_eq!((batch.images.dims(), &*batch.labels), (&[1, 2, 1, 2, 1][..], &[1, 0][..]));
        let expected = [0.2, 0.4, 0.0, 1.0].map(|grey| (grey - mean) / deviation);
        assert_close("batch", &flat(&batch.images), &expected, 1e-6);
    }

    #[test]
    fn inputs_are_standardised_as_asked() {
        // The least deviation of an image of 4 pixels is 1/2.
        let pixels = [[0, 255, 0, 255], [255, 0, 0, 0], [10, 20, 30, 40], [200; 4]];
        let part = Part { pixels: pixels.concat().into(), labels: vec![0, 1, 0, 1].into() };
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
            let placed = testing::placed(&dataset);
            let data = Data::new(&placed, 1, standardization);
            let batch = data.test.batch(&[0, 1, 2, 3]).expect("good");
            assert_close(&format!("{standardization:?}"), &flat(&batch.images), &expected, 1e-6);
            let grey: Vec<f32> = pixels.concat().into_iter().map(f32::from).collect();
            let grey = Tensor::from_vec(grey, (4, 4), testing::device()).expect("good");
            let composed = data.input.composed(&grey).expect("good");
            assert_close(&format!("{standardization:?}, composed"), &flat(&composed), &expected, 1e-6);
        }
    }

    #[test]
    fn an_image_by_itself_has_mean_0_and_deviation_1() {
        let part = Part {
            pixels: (0..128).map(|pixel| (pixel * pixel * 37 % 251) as u8).collect(),
            labels: vec![0, 1].into(),
        };
        let shape = Shape { height: 8, width: 8, classes: 2, train_images: 2, test_images: 2 };
        let placed = placed(&part, shape);
        let images = placed.training(Standardization::PerImage);
        for index in [0, 1] {
            let values = flat(&images.batch(&[index]).expect("good").images);
            let moment = |power| values.iter().map(|value| value.powi(power)).sum::<f64>() / 64.0;
            assert_close("moments", &[moment(1), moment(2)], &[0.0, 1.0], 1e-6);
        }
    }
}
