//! Global average pooling, after Lin, Chen and Yan (2014): each channel's mean over an image.

use candle_core::{Device, Result, Shape, Tensor};

use super::columns::column_sums;
use super::{Tape, Unary, apply_unary, compose_unary};
use crate::train::element::Element;
use crate::train::simd;

/// The mean over rows and columns. `x`: `[lanes, batch, height, width, channels]`; gives
/// `[lanes, batch, channels]`.
pub(crate) fn average_pool(x: &Tensor, tape: Option<&mut Tape>) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return compose_unary(x, tape, composed);
    }
    let (lanes, batch, height, width, channels) = x.dims5()?;
    apply_unary(AveragePool { lanes, batch, pixels: height * width, channels }, x, tape)
}

/// [`average_pool`] in candle's ops.
pub(crate) fn composed(x: &Tensor) -> Result<Tensor> {
    x.flatten(2, 3)?.mean(2)
}

struct AveragePool {
    lanes: usize,
    batch: usize,
    pixels: usize,
    channels: usize,
}

impl Unary for AveragePool {
    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.channels).into()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        let (pixels, channels) = (self.pixels, self.channels);
        let mut y = Vec::with_capacity(self.lanes * self.batch * channels);
        for image in x.chunks_exact(pixels * channels) {
            let [sums] = simd::dispatch(
                #[inline(always)]
                || column_sums(channels, [image], [], |[x], []| [x]),
            );
            y.extend(sums.into_iter().map(|sum| T::from_f64(sum / pixels as f64)));
        }
        y
    }

    fn backward<T: Element>(&self, x: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        let share = T::from_f64(1.0 / self.pixels as f64);
        let mut dx = Vec::with_capacity(x.len());
        for dy in dy.chunks_exact(self.channels) {
            let first = dx.len();
            dx.extend(dy.iter().map(|dy| *dy * share));
            for _ in 1..self.pixels {
                dx.extend_from_within(first..first + self.channels);
            }
        }
        dx
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{check_unary, numbers};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, shape) in
            [("one pixel", [1, 3, 1, 1, 4]), ("an image", [1, 2, 3, 2, 3]), ("lanes", [2, 2, 2, 3, 17])]
        {
            check_unary(name, &numbers(name, &shape), &average_pool, &composed);
        }
    }
}
