//! Spatial dropout, after Tompson et al. (2015), as `torch.nn.Dropout2d`: whole channels of an
//! image are dropped. Neighbouring pixels say much the same, so that dropping single ones would
//! leave what they say.

use candle_core::{Device, Result, Shape, Tensor};

use super::dropout::{Draw, factors};
use super::{Tape, Unary, apply_unary, compose_unary};
use crate::train::element::Element;
use crate::train::simd;

/// Drops channels of `x`: `[lanes, batch, height, width, channels]`, each lane by its own draws.
pub(crate) fn spatial_dropout(x: &Tensor, lanes: &[Draw], tape: Option<&mut Tape>) -> Result<Tensor> {
    let (_, batch, _, _, channels) = x.dims5()?;
    let factors = factors(lanes, batch * channels);
    if matches!(x.device(), Device::Cpu) {
        apply_unary(SpatialDropout { shape: x.shape().clone(), channels, factors }, x, tape)
    } else {
        compose_unary(x, tape, |x| composed(x, factors))
    }
}

fn composed(x: &Tensor, factors: Vec<f32>) -> Result<Tensor> {
    let (lanes, batch, _, _, channels) = x.dims5()?;
    let factors = Tensor::from_vec(factors, (lanes, batch, 1, 1, channels), x.device())?;
    x.broadcast_mul(&factors.to_dtype(x.dtype())?)
}

struct SpatialDropout {
    shape: Shape,
    channels: usize,
    /// What each channel of each image of each lane is multiplied with.
    factors: Vec<f32>,
}

impl SpatialDropout {
    fn multiplied<T: Element>(&self, x: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        let size = x.len() / self.factors.len() * self.channels;
        let images = x.chunks_exact(size).zip(y.chunks_exact_mut(size));
        for ((x, y), factors) in images.zip(self.factors.chunks_exact(self.channels)) {
            simd::dispatch(
                #[inline(always)]
                || {
                    for (x, y) in x.chunks_exact(self.channels).zip(y.chunks_exact_mut(self.channels)) {
                        for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
                            *y = *x * T::from_f64(f64::from(*factor));
                        }
                    }
                },
            );
        }
        y
    }
}

impl Unary for SpatialDropout {
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
    use candle_core::DType;
    use fittingroom_common::rng::Stream;

    fn draw(probability: f64, seed: u64) -> Draw {
        Draw { probability, stream: Stream::new(seed) }
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        let lanes = [draw(0.5, 1), draw(0.2, 2), draw(0.0, 3)];
        let factors = factors(&lanes, 6);
        assert!(factors.contains(&0.0), "nothing is dropped");
        let x = numbers("x", &[3, 2, 2, 4, 3]);
        check_unary("spatial dropout", &x, &|x, tape| spatial_dropout(x, &lanes, tape), &|x| {
            composed(x, factors.clone())
        });
    }

    #[test]
    fn whole_channels_of_single_images_are_dropped_and_the_others_scaled() {
        const IMAGES: usize = 500;
        const CHANNELS: usize = 19;
        for probability in [0.1, 0.5, 0.9] {
            let ones = Tensor::ones((1, IMAGES, 2, 3, CHANNELS), DType::F32, &Device::Cpu).expect("good");
            let run = |seed| flat(&spatial_dropout(&ones, &[draw(probability, seed)], None).expect("good"));
            let y = run(7);
            assert_eq!(y, run(7));
            assert_ne!(y, run(8));
            let kept = f64::from((1.0 / (1.0 - probability)) as f32);
            let mut dropped = 0;
            for image in y.chunks_exact(6 * CHANNELS) {
                for (channel, &first) in image[..CHANNELS].iter().enumerate() {
                    assert!(first == 0.0 || first == kept, "{probability}: {first}");
                    assert!(image.iter().skip(channel).step_by(CHANNELS).all(|&value| value == first));
                    dropped += usize::from(first == 0.0);
                }
            }
            // Five deviations of a share of as many draws.
            let draws = (IMAGES * CHANNELS) as f64;
            let share = dropped as f64 / draws;
            let deviation = (probability * (1.0 - probability) / draws).sqrt();
            assert!((share - probability).abs() < 5.0 * deviation, "{probability}: {share}");
        }
    }
}
