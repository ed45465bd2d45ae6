//! Local response normalisation across channels, after Krizhevsky, Sutskever and Hinton (2012),
//! with their numbers.
//!
//! `y = x / (2 + 1e-4 / 5 * s)^0.75`, `s` being the sum of the squares of the five channels around:
//! this is `torch.nn.LocalResponseNorm(5, k=2)`, which divides by 5 where the paper does not.

use candle_core::{D, Device, Result, Shape, Tensor};

use super::{Tape, Unary, apply_unary, compose_unary};
use crate::train::element::Element;
use crate::train::simd;

/// Channels whose squares are added up: the channel itself and as many on either side.
const SIZE: usize = 2 * SIDE + 1;
const SIDE: usize = 2;
/// What a square counts.
const SHARE: f64 = 1e-4 / SIZE as f64;
/// Of the sum. The fused form knows it as 3/4.
const POWER: f64 = 0.75;
/// Added to the sum.
const OFFSET: f64 = 2.0;

/// Local response normalisation. `x`: `[lanes, batch, height, width, channels]`.
pub(crate) fn response_norm(x: &Tensor, tape: Option<&mut Tape>) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return compose_unary(x, tape, composed);
    }
    apply_unary(ResponseNorm { channels: x.dim(D::Minus1)?, shape: x.shape().clone() }, x, tape)
}

/// [`response_norm`] in candle's ops.
pub(crate) fn composed(x: &Tensor) -> Result<Tensor> {
    let channels = x.dim(D::Minus1)?;
    let squares = x.sqr()?.pad_with_zeros(D::Minus1, SIDE, SIDE)?;
    let mut sum = squares.narrow(D::Minus1, 0, channels)?;
    for first in 1..SIZE {
        sum = (sum + squares.narrow(D::Minus1, first, channels)?)?;
    }
    x * sum.affine(SHARE, OFFSET)?.powf(-POWER)?
}

struct ResponseNorm {
    channels: usize,
    shape: Shape,
}

impl Unary for ResponseNorm {
    fn output_shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        let mut squares = Neighbours::new(self.channels);
        simd::dispatch(
            #[inline(always)]
            || {
                for (x, y) in x.chunks_exact(self.channels).zip(y.chunks_exact_mut(self.channels)) {
                    squares.fill(x.iter().map(|x| *x * *x));
                    for (channel, (x, y)) in x.iter().zip(y).enumerate() {
                        *y = *x * inverse_power(denominator(squares.sum(channel)));
                    }
                }
            },
        );
        y
    }

    /// `dx = dy / d^0.75 - 2 * 0.75 * share * x * s'`, `d` being the denominator's base and `s'` the
    /// sum of `dy * y / d` over the channels whose sums this one is part of.
    fn backward<T: Element>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        let mut dx = vec![T::zero(); x.len()];
        let mut squares = Neighbours::new(self.channels);
        let mut pulls = Neighbours::new(self.channels);
        let mut bases = vec![T::zero(); self.channels];
        let factor = T::from_f64(2.0 * POWER * SHARE);
        simd::dispatch(
            #[inline(always)]
            || {
                let pixels = dx.chunks_exact_mut(self.channels).zip(x.chunks_exact(self.channels));
                let results = y.chunks_exact(self.channels).zip(dy.chunks_exact(self.channels));
                for ((dx, x), (y, dy)) in pixels.zip(results) {
                    squares.fill(x.iter().map(|x| *x * *x));
                    for (channel, base) in bases.iter_mut().enumerate() {
                        *base = denominator(squares.sum(channel));
                    }
                    pulls.fill(y.iter().zip(dy).zip(&bases).map(|((y, dy), base)| *dy * *y / *base));
                    for (channel, dx) in dx.iter_mut().enumerate() {
                        let own = dy[channel] * inverse_power(bases[channel]);
                        *dx = own - factor * x[channel] * pulls.sum(channel);
                    }
                }
            },
        );
        dx
    }
}

/// One number for each channel of a pixel, with zeros on either side.
struct Neighbours<T>(Vec<T>);

impl<T: Element> Neighbours<T> {
    fn new(channels: usize) -> Self {
        Self(vec![T::zero(); channels + 2 * SIDE])
    }

    #[inline(always)]
    fn fill(&mut self, numbers: impl Iterator<Item = T>) {
        for (place, number) in self.0[SIDE..].iter_mut().zip(numbers) {
            *place = number;
        }
    }

    /// The sum over the channels around this one.
    #[inline(always)]
    fn sum(&self, channel: usize) -> T {
        let around = &self.0[channel..][..SIZE];
        around[0] + around[1] + around[2] + around[3] + around[4]
    }
}

#[inline(always)]
fn denominator<T: Element>(squares: T) -> T {
    squares * T::from_f64(SHARE) + T::from_f64(OFFSET)
}

/// 1 / base^(3/4): two roots, which vectors have, where a power is a call for each number.
#[inline(always)]
fn inverse_power<T: Element>(base: T) -> T {
    let root = base.sqrt();
    T::one() / (root * root.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{check_unary, numbers};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        // Small numbers would leave nothing but the offset; so large ones change the results much.
        for (name, shape, scale) in [
            ("small numbers", [1, 1, 2, 2, 6], 1.0),
            ("large numbers", [2, 1, 2, 1, 19], 400.0),
            ("fewer channels than neighbours", [1, 2, 1, 2, 2], 400.0),
        ] {
            let x = (numbers(name, &shape) * scale).expect("good");
            check_unary(name, &x, &response_norm, &composed);
        }
    }
}
