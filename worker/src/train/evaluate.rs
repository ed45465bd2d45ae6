//! Loss and accuracy: counted up over batches, and measured on images that are not trained on.

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use super::cuda::Gpu;
use super::data::{Batch, Images};
use super::element::Reading;
use super::model::Model;
use super::ops::cross_entropy::{correct, cross_entropy};
#[cfg(feature = "cuda")]
use super::ops::cuda::tally;

/// Images per forward pass of an evaluation.
fn batch_on(device: &Device) -> usize {
    match device {
        // So few that activations stay in the cache.
        Device::Cpu => 128,
        // So many that a GPU has enough to do.
        Device::Cuda(_) | Device::Metal(_) => 512,
    }
}

/// Mean loss and share of right predictions of one lane. The loss may be infinite or NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneScore {
    /// Mean cross-entropy in nats per image.
    pub loss: f64,
    /// Share of images whose class was predicted, from 0 to 1.
    pub accuracy: f64,
}

/// Sums of losses and right predictions of each lane, kept where they arise: reading them from a
/// GPU would stop it, and is done once at the end.
#[derive(Debug)]
pub(crate) struct Tally {
    images: usize,
    sums: Sums,
}

/// A tally in numbers that a file keeps to the bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    images: usize,
    /// Each lane's sum of losses, and its right predictions: the bits of f64, for JSON knows no
    /// infinity.
    sums: Vec<(u64, u64)>,
}

impl Counted {
    /// How many images were counted.
    pub(crate) fn images(&self) -> usize {
        self.images
    }

    /// How many lanes were counted.
    pub(crate) fn lanes(&self) -> usize {
        self.sums.len()
    }
}

#[derive(Debug)]
enum Sums {
    Host { loss: Vec<f64>, correct: Vec<f64> },
    Device { loss: Tensor, correct: Tensor },
}

/// Of sums on a device: Apple's GPUs know no f64.
fn dtype(device: &Device) -> DType {
    if device.is_metal() { DType::F32 } else { DType::F64 }
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new(lanes: usize, device: &Device) -> Result<Self> {
        let sums = match device {
            Device::Cpu => Sums::Host { loss: vec![0.0; lanes], correct: vec![0.0; lanes] },
            Device::Cuda(_) | Device::Metal(_) => {
                let zeros = || Tensor::zeros(lanes, dtype(device), device);
                Sums::Device { loss: zeros()?, correct: zeros()? }
            }
        };
        Ok(Self { images: 0, sums })
    }

    /// A tally that goes on from another's numbers.
    pub(crate) fn taken_up(counted: &Counted, device: &Device) -> Result<Self> {
        let (loss, correct): (Vec<f64>, Vec<f64>) = counted
            .sums
            .iter()
            .map(|&(loss, correct)| (f64::from_bits(loss), f64::from_bits(correct)))
            .unzip();
        let sums = match device {
            Device::Cpu => Sums::Host { loss, correct },
            Device::Cuda(_) | Device::Metal(_) => {
                let on_device = |sums: Vec<f64>| {
                    Tensor::new(sums, &Device::Cpu)?.to_dtype(dtype(device))?.to_device(device)
                };
                Sums::Device { loss: on_device(loss)?, correct: on_device(correct)? }
            }
        };
        Ok(Self { images: counted.images, sums })
    }

    /// What was counted so far.
    pub(crate) fn counted(&self) -> Result<Counted> {
        let (loss, correct) = self.sums.read()?;
        let sums = loss.into_iter().zip(correct).map(|(loss, correct)| (loss.to_bits(), correct.to_bits()));
        Ok(Counted { images: self.images, sums: sums.collect() })
    }

    /// Counts a batch: its mean loss in each lane (`[lanes]`), and its logits.
    pub(crate) fn add(&mut self, loss: &Tensor, logits: &Tensor, labels: &[u8]) -> Result<()> {
        self.images += labels.len();
        match &mut self.sums {
            Sums::Host { loss: losses, correct } => {
                let (loss, reading) = (Reading::of(loss), Reading::of(logits));
                for (sum, mean) in losses.iter_mut().zip(loss.slice::<f32>()?) {
                    *sum += f64::from(*mean) * labels.len() as f64;
                }
                let (_, batch, classes) = logits.dims3()?;
                let lanes = reading.slice::<f32>()?.chunks_exact(batch * classes);
                for (sum, logits) in correct.iter_mut().zip(lanes) {
                    let rows = logits.chunks_exact(classes).zip(labels);
                    let right = rows.filter(|(logits, label)| largest(logits) == usize::from(**label));
                    *sum += right.count() as f64;
                }
            }
            Sums::Device { loss: losses, correct: sum } => {
                #[cfg(feature = "cuda")]
                if let Some(gpu) = Gpu::of(logits) {
                    return tally(gpu, loss, logits, labels, [losses, sum]);
                }
                *losses = (&*losses + (loss.to_dtype(losses.dtype())? * labels.len() as f64)?)?;
                *sum = (&*sum + correct(logits, labels)?.to_dtype(sum.dtype())?)?;
            }
        }
        Ok(())
    }

    /// How many images were counted.
    pub(crate) fn images(&self) -> usize {
        self.images
    }

    /// For each lane whether its loss is finite so far; `None` where looking would stop the device.
    pub(crate) fn finite(&self) -> Option<impl Iterator<Item = bool>> {
        match &self.sums {
            Sums::Host { loss, .. } => Some(loss.iter().map(|loss| loss.is_finite())),
            Sums::Device { .. } => None,
        }
    }

    /// The means.
    pub(crate) fn finish(self) -> Result<Vec<LaneScore>> {
        let (loss, correct) = self.sums.read()?;
        let images = self.images.max(1) as f64;
        let score = |(loss, correct)| LaneScore { loss: loss / images, accuracy: correct / images };
        Ok(loss.into_iter().zip(correct).map(score).collect())
    }
}

impl Sums {
    /// The losses and the right predictions of each lane.
    fn read(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        match self {
            Self::Host { loss, correct } => Ok((loss.clone(), correct.clone())),
            Self::Device { loss, correct } => {
                let read = |sums: &Tensor| -> Result<Vec<f64>> {
                    sums.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
                };
                Ok((read(loss)?, read(correct)?))
            }
        }
    }
}

/// The first index of the largest number.
fn largest(numbers: &[f32]) -> usize {
    let mut best = 0;
    for (index, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = index;
        }
    }
    best
}

/// The class that the first lane of a model gives each of these images.
pub fn predict(model: &Model, images: &Images<'_>, indices: &[u32]) -> Result<Vec<usize>> {
    let mut classes = Vec::with_capacity(indices.len());
    for indices in indices.chunks(batch_on(model.device())) {
        let logits = model.evaluate(&images.batch(indices)?.images)?;
        classes.extend(logits.get(0)?.to_vec2::<f32>()?.iter().map(|logits| largest(logits)));
    }
    Ok(classes)
}

/// Plain cross-entropy and accuracy of every lane over these images.
pub fn evaluate(
    model: &Model,
    lanes: usize,
    images: &Images<'_>,
    indices: &[u32],
    device: &Device,
) -> Result<Vec<LaneScore>> {
    let mut tally = Tally::new(lanes, device)?;
    let smoothing = vec![0.0; lanes];
    for indices in indices.chunks(batch_on(model.device())) {
        let Batch { images, labels, .. } = images.batch(indices)?;
        let logits = model.evaluate(&images)?;
        tally.add(&cross_entropy(&logits, &labels, &smoothing, None)?, &logits, &labels)?;
    }
    tally.finish()
}
