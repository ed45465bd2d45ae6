//! Convolution as matrix products: each image is unrolled into one row per window (im2col).
//!
//! The unrolled windows of one image stay in the cache; they are made again for the backward pass
//! rather than kept, since copying them is far cheaper than the products.

use candle_core::{Device, Result, Shape, Tensor};

use super::linear::{add_bias, before_activation};
use super::window::{Window, Windows};
use super::{Activation, Gradients, InputGradient, Leaf, Saved, Weighted, apply_weighted};
use crate::train::element::Element;
use crate::train::matrix::{Matrix, Write, multiply};
use crate::train::simd;

/// A convolution layer.
///
/// `x`: `[lanes, batch, height, width, channels]`, or one lane that all share; `weight`:
/// `[lanes, outputs, size * size * channels]`, rows of the window outermost, channels innermost;
/// `bias`: `[lanes, outputs]`. Gives `[lanes, batch, rows, columns, outputs]`.
pub(crate) fn convolution(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    window: Window,
    activation: Activation,
) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return composed(x, weight.tensor, bias.tensor, window, activation);
    }
    let (x_lanes, batch, height, width, channels) = x.dims5()?;
    let (lanes, outputs, _) = weight.tensor.dims3()?;
    let windows = window.over(height, width, channels)?;
    apply_weighted(Convolution { lanes, x_lanes, batch, outputs, windows, activation }, x, weight, bias)
}

/// [`convolution`] in candle's ops.
pub(crate) fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    activation: Activation,
) -> Result<Tensor> {
    let (x_lanes, batch, height, width, channels) = x.dims5()?;
    let (lanes, outputs, patch) = weight.dims3()?;
    let windows = window.over(height, width, channels)?;
    let patches = windows.gather(x, 0.0)?.reshape((x_lanes, batch * windows.count(), patch))?;
    let y = patches.broadcast_matmul(&weight.transpose(1, 2)?)?.broadcast_add(&bias.unsqueeze(1)?)?;
    activation.composed(y.reshape((lanes, batch, windows.rows, windows.columns, outputs))?)
}

struct Convolution {
    lanes: usize,
    x_lanes: usize,
    batch: usize,
    outputs: usize,
    windows: Windows,
    activation: Activation,
}

impl Weighted for Convolution {
    const NAME: &'static str = "convolution";

    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.windows.rows, self.windows.columns, self.outputs).into()
    }

    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let size = self.windows.count() * self.outputs;
        let mut y = vec![T::zero(); self.lanes * self.batch * size];
        let mut patches = vec![T::zero(); self.windows.count() * self.windows.patch()];
        for image in 0..self.x_lanes * self.batch {
            unroll(&self.windows, &x[image * self.windows.image()..][..self.windows.image()], &mut patches);
            for lane in self.lanes_of(image) {
                let y = &mut y[(lane * self.batch + image % self.batch) * size..][..size];
                let weight = self.weight_of(weight, lane).transposed();
                multiply(y, Write::Replace, self.unrolled(&patches), weight);
                add_bias(y, &bias[lane * self.outputs..][..self.outputs], self.activation);
            }
        }
        y
    }

    fn backward<T: Element>(&self, saved: &Saved<'_, T>, input: InputGradient) -> Gradients<T> {
        let (image_size, patch) = (self.windows.image(), self.windows.patch());
        let size = self.windows.count() * self.outputs;
        let mut dx = match input {
            InputGradient::Wanted => Some(vec![T::zero(); self.x_lanes * self.batch * image_size]),
            InputGradient::Unwanted => None,
        };
        let mut dweight = vec![T::zero(); self.lanes * self.outputs * patch];
        let mut dbias = vec![T::zero(); self.lanes * self.outputs];
        let mut patches = vec![T::zero(); self.windows.count() * patch];
        let mut dpatches = vec![T::zero(); if dx.is_some() { patches.len() } else { 0 }];
        for image in 0..self.x_lanes * self.batch {
            unroll(&self.windows, &saved.x[image * image_size..][..image_size], &mut patches);
            for lane in self.lanes_of(image) {
                let at = (lane * self.batch + image % self.batch) * size;
                let (y, dy) = (&saved.y[at..][..size], &saved.dy[at..][..size]);
                let (dz, bias) = before_activation(y, dy, self.outputs, self.activation);
                for (sum, bias) in dbias[lane * self.outputs..][..self.outputs].iter_mut().zip(bias) {
                    *sum += bias;
                }
                let dz = Matrix::new(&dz, self.windows.count(), self.outputs);
                let dweight = &mut dweight[lane * self.outputs * patch..][..self.outputs * patch];
                multiply(dweight, Write::Add, dz.transposed(), self.unrolled(&patches));
                if let Some(dx) = &mut dx {
                    multiply(&mut dpatches, Write::Replace, dz, self.weight_of(saved.weight, lane));
                    roll(&self.windows, &dpatches, &mut dx[image * image_size..][..image_size]);
                }
            }
        }
        Gradients { x: dx, weight: dweight, bias: dbias }
    }
}

impl Convolution {
    /// The lanes that look at an image: its own, or all if they share their input.
    fn lanes_of(&self, image: usize) -> impl Iterator<Item = usize> + use<> {
        (image / self.batch..self.lanes).step_by(self.x_lanes)
    }

    fn weight_of<'a, T>(&self, weight: &'a [T], lane: usize) -> Matrix<'a, T> {
        let size = self.outputs * self.windows.patch();
        Matrix::new(&weight[lane * size..][..size], self.outputs, self.windows.patch())
    }

    fn unrolled<'a, T>(&self, patches: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(patches, self.windows.count(), self.windows.patch())
    }
}

/// Copies every window of an image into a row of its own; zeros stand beyond the borders.
fn unroll<T: Element>(windows: &Windows, image: &[T], patches: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            each_run(
                windows,
                #[inline(always)]
                |run| {
                    let (before, rest) = patches[run.patch..][..run.length].split_at_mut(run.before);
                    let (inside, after) = rest.split_at_mut(run.inside);
                    before.fill(T::zero());
                    inside.copy_from_slice(&image[run.image..][..run.inside]);
                    after.fill(T::zero());
                },
            );
        },
    );
}

/// The transpose of [`unroll`]: adds every window's numbers to the pixels that they came from.
fn roll<T: Element>(windows: &Windows, patches: &[T], image: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            each_run(
                windows,
                #[inline(always)]
                |run| {
                    let pixels = &mut image[run.image..][..run.inside];
                    for (pixel, number) in pixels.iter_mut().zip(&patches[run.patch + run.before..]) {
                        *pixel += *number;
                    }
                },
            );
        },
    );
}

/// One row of one window: a run of numbers that lie side by side in the window and in the image.
struct Run {
    /// Where the run starts in the unrolled windows.
    patch: usize,
    /// Its length there.
    length: usize,
    /// How many numbers at its start lie beyond the border.
    before: usize,
    /// How many after those lie inside of the image.
    inside: usize,
    /// Where the first of these lies in the image.
    image: usize,
}

#[inline(always)]
fn each_run(windows: &Windows, mut act: impl FnMut(Run)) {
    let (size, channels) = (windows.window.size, windows.channels);
    let length = size * channels;
    let mut patch = 0;
    for row in 0..windows.rows {
        for column in 0..windows.columns {
            let (first, last, image_column) = windows.inside(column);
            for inner in 0..size {
                let run = match windows.image_row(row, inner) {
                    Some(image_row) => Run {
                        patch,
                        length,
                        before: first * channels,
                        inside: (last - first) * channels,
                        image: (image_row * windows.width + image_column) * channels,
                    },
                    None => Run { patch, length, before: length, inside: 0, image: 0 },
                };
                act(run);
                patch += length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{Case, check_weighted};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, x, weight, window) in [
            ("plain", [1, 2, 4, 3, 2], [1, 3, 8], Window { size: 2, stride: 1, padding: 0 }),
            ("padded", [1, 2, 4, 4, 1], [1, 3, 9], Window { size: 3, stride: 1, padding: 1 }),
            ("strided", [1, 2, 5, 5, 2], [1, 2, 18], Window { size: 3, stride: 2, padding: 1 }),
            (
                "padding beyond the window's middle",
                [1, 1, 2, 2, 1],
                [1, 2, 9],
                Window { size: 3, stride: 1, padding: 2 },
            ),
            ("lanes", [2, 2, 3, 3, 2], [2, 2, 8], Window { size: 2, stride: 1, padding: 1 }),
            (
                "lanes that share their images",
                [1, 2, 3, 3, 1],
                [2, 2, 4],
                Window { size: 2, stride: 1, padding: 0 },
            ),
        ] {
            for activation in [Activation::Identity, Activation::Relu] {
                check_weighted(Case {
                    name,
                    x: &x,
                    weight: &weight,
                    bias: &[weight[0], weight[1]],
                    fused: &|x, weight, bias| convolution(x, weight, bias, window, activation),
                    composed: &|x, weight, bias| composed(x, weight, bias, window, activation),
                });
            }
        }
    }

    #[test]
    fn the_definition_of_a_convolution_is_met() {
        // One channel, a window of 2: y = a*1 + b*10 + c*100 + d*1000 over [[a, b], [c, d]].
        let x = Tensor::new(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &Device::Cpu)
            .and_then(|x| x.reshape((1, 1, 2, 3, 1)));
        let weight = Tensor::new(&[[[1.0f32, 10.0, 100.0, 1000.0]]], &Device::Cpu).expect("good");
        let bias = Tensor::new(&[[0.5f32]], &Device::Cpu).expect("good");
        let gradient = Default::default();
        let leaf = |tensor| Leaf { tensor, gradient: &gradient };
        let window = Window { size: 2, stride: 1, padding: 0 };
        let y = convolution(&x.expect("good"), leaf(&weight), leaf(&bias), window, Activation::Identity);
        let y = y.and_then(|y| y.flatten_all()).and_then(|y| y.to_vec1::<f32>()).expect("good");
        assert_eq!(y, [5421.5, 6532.5]);
    }
}
