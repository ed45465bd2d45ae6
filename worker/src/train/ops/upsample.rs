//! Bilinear interpolation of images to another size, as `torch.nn.functional.interpolate` does it
//! with `mode="bilinear", align_corners=False`: pixels are squares, and what lies beyond the
//! border is as the border is.

use candle_core::{Device, Result, Shape, Tensor};

use super::{Tape, Unary, apply_unary, compose_unary};
use crate::train::element::Element;
use crate::train::simd;

/// Images at another size. `x`: `[lanes, batch, height, width, channels]`; gives
/// `[lanes, batch, to_height, to_width, channels]`.
pub(crate) fn upsample(
    x: &Tensor,
    to_height: usize,
    to_width: usize,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return compose_unary(x, tape, |x| composed(x, to_height, to_width));
    }
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let (rows, columns) = (mixtures(height, to_height), mixtures(width, to_width));
    apply_unary(Upsample { lanes, batch, height, width, channels, rows, columns }, x, tape)
}

/// [`upsample`] in candle's ops: two products with the matrices of mixtures.
pub(crate) fn composed(x: &Tensor, to_height: usize, to_width: usize) -> Result<Tensor> {
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let matrix = |from: usize, to: usize| {
        let mut shares = vec![0.0; to * from];
        for (row, mixture) in shares.chunks_exact_mut(from).zip(mixtures(from, to)) {
            row[mixture.first] += 1.0 - mixture.share;
            row[mixture.second] += mixture.share;
        }
        Tensor::from_vec(shares, (1, to, from), x.device())?.to_dtype(x.dtype())
    };
    let x = x.reshape((lanes * batch, height, width * channels))?;
    let x = matrix(height, to_height)?.broadcast_matmul(&x)?;
    let x = x.reshape((lanes * batch * to_height, width, channels))?;
    let x = matrix(width, to_width)?.broadcast_matmul(&x)?;
    x.reshape((lanes, batch, to_height, to_width, channels))
}

/// What one row or column of the result is mixed from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mixture {
    first: usize,
    second: usize,
    /// Of the second; the first has the rest.
    share: f64,
}

fn mixtures(from: usize, to: usize) -> Vec<Mixture> {
    let scale = from as f64 / to as f64;
    let mixture = |index: usize| {
        let centre = ((index as f64 + 0.5) * scale - 0.5).max(0.0);
        let first = (centre as usize).min(from - 1);
        Mixture { first, second: (first + 1).min(from - 1), share: centre - first as f64 }
    };
    (0..to).map(mixture).collect()
}

struct Upsample {
    lanes: usize,
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    rows: Vec<Mixture>,
    columns: Vec<Mixture>,
}

impl Unary for Upsample {
    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.rows.len(), self.columns.len(), self.channels).into()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        let row_size = self.width * self.channels;
        let mut y = vec![T::zero(); self.output_shape().elem_count()];
        let mut mixed = vec![T::zero(); row_size];
        simd::dispatch(
            #[inline(always)]
            || {
                let mut out = y.chunks_exact_mut(self.columns.len() * self.channels);
                for image in x.chunks_exact(self.height * row_size) {
                    for (row, out) in self.rows.iter().zip(&mut out) {
                        let (keep, take) = (T::from_f64(1.0 - row.share), T::from_f64(row.share));
                        let first = &image[row.first * row_size..][..row_size];
                        let second = &image[row.second * row_size..][..row_size];
                        for ((mixed, first), second) in mixed.iter_mut().zip(first).zip(second) {
                            *mixed = *first * keep + *second * take;
                        }
                        for (column, out) in self.columns.iter().zip(out.chunks_exact_mut(self.channels)) {
                            let (keep, take) = (T::from_f64(1.0 - column.share), T::from_f64(column.share));
                            let first = &mixed[column.first * self.channels..];
                            let second = &mixed[column.second * self.channels..];
                            for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
                                *out = *first * keep + *second * take;
                            }
                        }
                    }
                }
            },
        );
        y
    }

    fn backward<T: Element>(&self, x: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        let row_size = self.width * self.channels;
        let mut dx = vec![T::zero(); x.len()];
        let mut mixed = vec![T::zero(); row_size];
        simd::dispatch(
            #[inline(always)]
            || {
                let mut gradients = dy.chunks_exact(self.columns.len() * self.channels);
                for image in dx.chunks_exact_mut(self.height * row_size) {
                    for (row, dy) in self.rows.iter().zip(&mut gradients) {
                        mixed.fill(T::zero());
                        for (column, dy) in self.columns.iter().zip(dy.chunks_exact(self.channels)) {
                            let (keep, take) = (T::from_f64(1.0 - column.share), T::from_f64(column.share));
                            for (channel, dy) in dy.iter().enumerate() {
                                mixed[column.first * self.channels + channel] += *dy * keep;
                                mixed[column.second * self.channels + channel] += *dy * take;
                            }
                        }
                        let (keep, take) = (T::from_f64(1.0 - row.share), T::from_f64(row.share));
                        for (index, mixed) in mixed.iter().enumerate() {
                            image[row.first * row_size + index] += *mixed * keep;
                            image[row.second * row_size + index] += *mixed * take;
                        }
                    }
                }
            },
        );
        dx
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{check_unary, numbers};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, shape, (height, width)) in [
            ("larger", [1, 2, 3, 4, 1], (7, 9)),
            ("lanes and channels", [2, 1, 2, 3, 3], (5, 4)),
            ("smaller", [1, 1, 7, 5, 2], (3, 2)),
            ("from one pixel", [1, 1, 1, 1, 2], (3, 2)),
        ] {
            let x = numbers(name, &shape);
            check_unary(name, &x, &|x, tape| upsample(x, height, width, tape), &|x| {
                composed(x, height, width)
            });
        }
    }

    #[test]
    fn pixels_are_squares_and_the_border_goes_on() {
        let x = Tensor::new(&[1.0f32, 3.0], &Device::Cpu).and_then(|x| x.reshape((1, 1, 1, 2, 1)));
        let y = upsample(&x.expect("good"), 1, 4, None).and_then(|y| y.flatten_all()).expect("good");
        assert_eq!(y.to_vec1::<f32>().expect("good"), [1.0, 1.5, 2.5, 3.0]);
    }
}
