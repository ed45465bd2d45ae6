//! Dropout, after Srivastava et al. (2014), in PyTorch's inverted form: what is kept is scaled up
//! in training, so that evaluation does nothing.

use candle_core::{Device, Result, Shape, Tensor};
use fittingroom_common::rng::Stream;
use rand::RngCore;

use super::{Tape, Unary, apply_unary, compose_unary};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::{Element, collect, extend};
use crate::train::simd;

/// What dropout does to one lane in one step.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    /// Of a unit to be dropped.
    pub(crate) probability: f64,
    /// Where the draws come from.
    pub(crate) stream: Stream,
}

impl Draw {
    /// A unit is dropped if its 16 random bits, as a number, are below this; what is kept is multiplied by
    /// the other. What 16 bits cannot tell is rounded up or down by chance, so that each unit is dropped
    /// with exactly the probability.
    pub(super) fn threshold(&self, generator: &mut impl RngCore) -> (u32, f32) {
        let chance = f64::from(generator.next_u32()) / 2f64.powi(32);
        let threshold = (self.probability * 65_536.0 + chance) as u32;
        (threshold, (1.0 / (1.0 - self.probability)) as f32)
    }
}

/// Drops units of `x`: `[lanes, …]`, each lane by its own draws.
pub(crate) fn dropout(x: &Tensor, lanes: &[Draw], tape: Option<&mut Tape>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x) {
        return super::cuda::dropout(gpu, x, lanes, tape);
    }
    let factors = factors(lanes, x.elem_count() / lanes.len());
    if matches!(x.device(), Device::Cpu) {
        apply_unary(Dropout { shape: x.shape().clone(), factors }, x, tape)
    } else {
        compose_unary(x, tape, |x| composed(x, factors))
    }
}

fn composed(x: &Tensor, factors: Vec<f32>) -> Result<Tensor> {
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}

/// For each of so many units of each lane, what it is multiplied with: 0, or 1 / (1 - probability).
pub(super) fn factors(lanes: &[Draw], size: usize) -> Vec<f32> {
    let mut factors = Vec::with_capacity(lanes.len() * size);
    let mut bytes = vec![0; size * 2];
    for lane in lanes {
        if lane.probability == 0.0 {
            factors.resize(factors.len() + size, 1.0);
            continue;
        }
        let mut generator = lane.stream.generator();
        let (threshold, kept) = lane.threshold(&mut generator);
        generator.fill_bytes(&mut bytes);
        let factor = |bytes: &[u8; 2]| match u32::from(u16::from_le_bytes(*bytes)) < threshold {
            true => 0.0,
            false => kept,
        };
        simd::dispatch(
            #[inline(always)]
            || extend(&mut factors, bytes.as_chunks().0.iter().map(factor)),
        );
    }
    factors
}

struct Dropout {
    shape: Shape,
    factors: Vec<f32>,
}

impl Dropout {
    fn multiplied<T: Element>(&self, numbers: &[T]) -> Vec<T> {
        let multiplied = |(number, factor): (&T, &f32)| *number * T::from_f64(f64::from(*factor));
        simd::dispatch(
            #[inline(always)]
            || collect(numbers.iter().zip(&self.factors).map(multiplied)),
        )
    }
}

impl Unary for Dropout {
    fn output_shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        self.multiplied(x)
    }

    fn backward<T: Element>(&self, _x: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        self.multiplied(dy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{check_unary, flat, numbers};

    fn draw(probability: f64, seed: u64) -> Draw {
        Draw { probability, stream: Stream::new(seed) }
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        let lanes = [draw(0.5, 1), draw(0.2, 2), draw(0.0, 3)];
        let factors = factors(&lanes, 12);
        let x = numbers("x", &[3, 4, 3]);
        check_unary("dropout", &x, &|x, tape| dropout(x, &lanes, tape), &|x| composed(x, factors.clone()));
    }

    #[test]
    fn the_share_dropped_is_the_probability_and_the_mean_stays() {
        for probability in [0.1, 0.5, 0.9] {
            let ones = Tensor::ones((1, 1_000_000), candle_core::DType::F32, &Device::Cpu).expect("good");
            let y = flat(&dropout(&ones, &[draw(probability, 7)], None).expect("good"));
            let dropped = y.iter().filter(|y| **y == 0.0).count() as f64 / 1e6;
            let mean = y.iter().sum::<f64>() / 1e6;
            // Five deviations of a share of a million draws.
            let deviation = (probability * (1.0 - probability) / 1e6).sqrt();
            assert!((dropped - probability).abs() < 5.0 * deviation, "{probability}: {dropped}");
            assert!((mean - 1.0).abs() < 5.0 * deviation / (1.0 - probability), "{probability}: {mean}");
        }
    }
}
