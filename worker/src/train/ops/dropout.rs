//! Dropout, after Srivastava et al. (2014), in PyTorch's inverted form: what is kept is scaled up
//! in training, so that evaluation does nothing.

use candle_core::{Device, Result, Shape, Tensor};
use fittingroom_common::rng::Stream;
use rand::RngCore;

use super::{Tape, Unary, apply_unary, compose_unary};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::{Element, extend};
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
    let size = x.elem_count() / lanes.len();
    if matches!(x.device(), Device::Cpu) {
        let lanes = lanes.iter().map(|lane| Drawn::of(lane, size)).collect();
        apply_unary(Dropout { shape: x.shape().clone(), lanes }, x, tape)
    } else {
        compose_unary(x, tape, |x| composed(x, factors(lanes, size)))
    }
}

fn composed(x: &Tensor, factors: Vec<f32>) -> Result<Tensor> {
    x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
}

/// For each of so many units of each lane, what it is multiplied with: 0, or 1 / (1 - probability).
pub(super) fn factors(lanes: &[Draw], size: usize) -> Vec<f32> {
    let mut factors = Vec::with_capacity(lanes.len() * size);
    for lane in lanes {
        match Drawn::of(lane, size) {
            Some(drawn) => factors.extend(drawn.factors()),
            None => factors.resize(factors.len() + size, 1.0),
        }
    }
    factors
}

/// What was drawn for one lane in one step.
struct Drawn {
    /// Two for each unit.
    bytes: Vec<u8>,
    threshold: u32,
    kept: f32,
}

impl Drawn {
    /// For so many units; `None` if the lane drops none.
    fn of(lane: &Draw, size: usize) -> Option<Self> {
        if lane.probability == 0.0 {
            return None;
        }
        let mut generator = lane.stream.generator();
        let (threshold, kept) = lane.threshold(&mut generator);
        let mut bytes = vec![0; size * 2];
        generator.fill_bytes(&mut bytes);
        Some(Self { bytes, threshold, kept })
    }

    /// What each unit is multiplied with.
    #[inline(always)]
    fn factors(&self) -> impl ExactSizeIterator<Item = f32> {
        // By value: behind a reference the compiler would load it anew for each unit that is kept.
        let (threshold, kept) = (self.threshold, self.kept);
        let factor = move |bytes: &[u8; 2]| match u32::from(u16::from_le_bytes(*bytes)) < threshold {
            true => 0.0,
            false => kept,
        };
        self.bytes.as_chunks().0.iter().map(factor)
    }
}

struct Dropout {
    shape: Shape,
    lanes: Vec<Option<Drawn>>,
}

impl Dropout {
    fn multiplied<T: Element>(&self, numbers: &[T]) -> Vec<T> {
        let multiplied = |(number, factor): (&T, f32)| *number * T::from_f64(f64::from(factor));
        let mut out = Vec::with_capacity(numbers.len());
        for (lane, numbers) in self.lanes.iter().zip(numbers.chunks_exact(numbers.len() / self.lanes.len())) {
            match lane {
                Some(drawn) => simd::dispatch(
                    #[inline(always)]
                    || extend(&mut out, numbers.iter().zip(drawn.factors()).map(multiplied)),
                ),
                None => out.extend_from_slice(numbers),
            }
        }
        out
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
