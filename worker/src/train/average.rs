//! The exponential moving average of a model's weights, which is evaluated and exported in the
//! place of the weights themselves: `torch.optim.swa_utils.AveragedModel` with
//! `get_ema_multi_avg_fn`.
//!
//! The running statistics of batch normalisation are averaged too (`use_buffers=True`): those of
//! the last few batches belong to the newest weights and not to averaged ones.

use candle_core::{Device, Tensor};

use super::element::{Reading, modify};
use super::hyper::Group;
use super::model::{ImageShape, Model, ModelError};
use super::simd;

/// A model's average.
#[derive(Debug)]
pub struct Average {
    decays: Vec<f64>,
    /// A model with the averaged weights: all the state that there is.
    pub model: Model,
}

impl Average {
    /// The average of a model of this group before its first step; `None` if no lane averages.
    pub fn new(group: &Group, images: ImageShape, device: &Device) -> Result<Option<Self>, ModelError> {
        if group.lanes.iter().all(|lane| lane.ema_decay == 0.0) {
            return Ok(None);
        }
        let decays = group.lanes.iter().map(|lane| lane.ema_decay).collect();
        let model = Model::new(&group.shape, &group.lanes, images, device)?;
        Ok(Some(Self { decays, model }))
    }

    /// Takes in the weights after a step. The first are taken as they are, as in PyTorch.
    pub fn follow(&mut self, model: &Model) -> candle_core::Result<()> {
        let is_first = self.model.steps.iter().all(|steps| *steps == 0);
        let keep: Vec<f64> = self.decays.iter().map(|decay| if is_first { 0.0 } else { *decay }).collect();
        for (average, newest) in self.model.named.iter().zip(&model.named) {
            mix(&keep, &average.values, &newest.values)?;
        }
        self.model.steps.clone_from(&model.steps);
        Ok(())
    }
}

/// Moves each lane's average towards the newest values, of which 1 - `keep` goes in.
pub(super) fn mix(keep: &[f64], average: &Tensor, newest: &Tensor) -> candle_core::Result<()> {
    match newest.device() {
        Device::Cpu => fused(keep, average, newest),
        Device::Cuda(_) | Device::Metal(_) => composed(keep, average, newest),
    }
}

fn fused(keep: &[f64], average: &Tensor, newest: &Tensor) -> candle_core::Result<()> {
    let newest = Reading::of(newest);
    let newest = newest.slice::<f32>()?;
    let size = newest.len() / keep.len();
    modify(average, |average: &mut [f32]| {
        let lanes = average.chunks_exact_mut(size).zip(newest.chunks_exact(size));
        for ((average, newest), keep) in lanes.zip(keep) {
            if *keep == 0.0 {
                average.copy_from_slice(newest);
                continue;
            }
            let share = (1.0 - keep) as f32;
            simd::dispatch(
                #[inline(always)]
                || {
                    for (average, newest) in average.iter_mut().zip(newest) {
                        *average += (*newest - *average) * share;
                    }
                },
            );
        }
    })
}

fn composed(keep: &[f64], average: &Tensor, newest: &Tensor) -> candle_core::Result<()> {
    for (lane, keep) in keep.iter().enumerate() {
        let (old, new) = (average.narrow(0, lane, 1)?, newest.narrow(0, lane, 1)?);
        let mixed = match *keep {
            0.0 => new,
            keep => (&old + ((new - &old)? * (1.0 - keep))?)?,
        };
        average.slice_set(&mixed.contiguous()?, 0, lane)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::flat;
    use crate::train::testing::group;
    use fittingroom_common::trial::Seeds;

    type Form = fn(&[f64], &Tensor, &Tensor) -> candle_core::Result<()>;

    #[test]
    fn both_forms_move_each_lane_by_its_own_share() {
        let tensor = |numbers: &[f32]| Tensor::from_slice(numbers, (3, 2), &Device::Cpu).expect("fits");
        let newest = tensor(&[8.0, 16.0, 8.0, 16.0, 8.0, 16.0]);
        for (name, form) in [("fused", fused as Form), ("composed", composed)] {
            let average = tensor(&[4.0, 0.0, 4.0, 0.0, 4.0, 0.0]);
            form(&[0.0, 0.75, 0.5], &average, &newest).expect("good");
            assert_eq!(flat(&average), [8.0, 16.0, 5.0, 4.0, 6.0, 8.0], "{name}");
        }
    }

    #[test]
    fn the_average_begins_with_the_weights_after_the_first_step() {
        let settings = &[("ema_decay", "0.9"), ("hidden_sizes", "2"), ("normalization", "batch")];
        let group = group(&[(settings, Seeds::from_one(1))]);
        let images = ImageShape { height: 2, width: 2, classes: 2 };
        let mut average = Average::new(&group, images, &Device::Cpu).expect("fits").expect("it averages");
        let mut model = Model::new(&group.shape, &group.lanes, images, &Device::Cpu).expect("fits");
        for (step, value, expected) in [(1, 1.0f32, 1.0), (2, 2.0, 1.1), (3, 3.0, 1.29)] {
            for named in &model.named {
                modify(&named.values, |numbers: &mut [f32]| numbers.fill(value)).expect("on the CPU");
            }
            model.steps = vec![step];
            average.follow(&model).expect("alike");
            assert_eq!(average.model.steps, [step]);
            for named in &average.model.named {
                let all = flat(&named.values);
                assert!(all.iter().all(|x| (x - expected).abs() < 1e-6), "{}: {all:?}", named.name);
            }
        }
    }
}
