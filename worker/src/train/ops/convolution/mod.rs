//! Convolution as matrix products, in the way that takes the least time for its shape.
//!
//! - `unrolled`: every window becomes a row of a matrix (im2col). For all shapes.
//! - `winograd`: windows of 3x3 and 5x5, four results at once with 16 multiplications instead of 36, or
//!   36 instead of 100.

mod unroll;
mod unrolled;
mod winograd;

use candle_core::{Device, Result, Shape, Tensor};

use super::sums::narrowed;
use super::window::{Window, Windows};
use super::{
    Activation, InputGradient, Leaf, Saved, Tape, Weighted, WeightedGradients, apply_weighted,
    compose_weighted,
};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::Element;

/// A convolution layer.
///
/// `x`: `[lanes, batch, height, width, channels]`, or one lane that all share; `weight`:
/// `[lanes, outputs, size * size * channels]`, rows of the window outermost, channels innermost;
/// `bias`: `[lanes, outputs]`. Gives `[lanes, batch, rows, columns, outputs]`.
pub fn convolution(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    window: Window,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    let (x_lanes, batch, height, width, channels) = x.dims5()?;
    let windows = window.over(height, width, channels)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x) {
        return super::cuda::convolution(gpu, x, weight, bias, windows, activation, tape);
    }
    if !matches!(x.device(), Device::Cpu) {
        return compose_weighted(x, weight, bias, tape, |x, weight, bias| {
            composed(x, weight, bias, window, activation)
        });
    }
    let (lanes, outputs, _) = weight.tensor.dims3()?;
    let geometry = Geometry { batch, outputs, windows, activation };
    apply_weighted(Convolution { lanes, x_lanes, geometry }, x, weight, bias, tape)
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
    geometry: Geometry,
}

/// The sizes of one lane.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    batch: usize,
    outputs: usize,
    windows: Windows,
    activation: Activation,
}

/// The slices of one lane that a backward pass reads.
struct LaneSaved<'a, T> {
    x: &'a [T],
    weight: &'a [T],
    y: &'a [T],
    dy: &'a [T],
}

/// The gradients of one lane.
struct LaneGradients<T> {
    x: Vec<T>,
    weight: Vec<T>,
    bias: Vec<f64>,
}

/// The ways to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Unrolled,
    Winograd,
}

impl Geometry {
    /// Depends on the layer alone, so that a model is computed in one way whatever its batches.
    fn method(&self) -> Method {
        if winograd::suits(self) { Method::Winograd } else { Method::Unrolled }
    }

    /// Numbers of one image's result.
    fn result(&self) -> usize {
        self.windows.count() * self.outputs
    }
}

impl Convolution {
    fn x_of<'a, T>(&self, x: &'a [T], lane: usize) -> &'a [T] {
        let size = self.geometry.batch * self.geometry.windows.image();
        &x[lane % self.x_lanes * size..][..size]
    }

    fn weight_of<'a, T>(&self, weight: &'a [T], lane: usize) -> &'a [T] {
        let size = self.geometry.outputs * self.geometry.windows.patch();
        &weight[lane * size..][..size]
    }
}

impl Weighted for Convolution {
    fn output_shape(&self) -> Shape {
        let Geometry { batch, outputs, windows, .. } = self.geometry;
        (self.lanes, batch, windows.rows, windows.columns, outputs).into()
    }

    fn forward<T: Element>(&mut self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let geometry = &self.geometry;
        let mut y = Vec::with_capacity(self.lanes * geometry.batch * geometry.result());
        for (lane, bias) in bias.chunks_exact(geometry.outputs).enumerate() {
            let (x, weight) = (self.x_of(x, lane), self.weight_of(weight, lane));
            match geometry.method() {
                Method::Unrolled => unrolled::forward(geometry, x, weight, bias, &mut y),
                Method::Winograd => winograd::forward(geometry, x, weight, bias, &mut y),
            }
        }
        y
    }

    fn backward<T: Element>(&self, saved: &Saved<'_, T>, input: InputGradient) -> WeightedGradients<T> {
        let geometry = &self.geometry;
        let size = geometry.batch * geometry.result();
        let mut gradients = WeightedGradients {
            x: (input == InputGradient::Wanted).then(Vec::new),
            weight: Vec::with_capacity(saved.weight.len()),
            bias: Vec::with_capacity(self.lanes * geometry.outputs),
        };
        for lane in 0..self.lanes {
            let saved = LaneSaved {
                x: self.x_of(saved.x, lane),
                weight: self.weight_of(saved.weight, lane),
                y: &saved.y[lane * size..][..size],
                dy: &saved.dy[lane * size..][..size],
            };
            let of_lane = match geometry.method() {
                Method::Unrolled => unrolled::backward(geometry, &saved, input),
                Method::Winograd => winograd::backward(geometry, &saved, input),
            };
            if let Some(dx) = &mut gradients.x {
                if lane == 0 {
                    *dx = of_lane.x;
                } else if lane < self.x_lanes {
                    dx.extend_from_slice(&of_lane.x);
                } else {
                    dx.iter_mut().zip(&of_lane.x).for_each(|(dx, of_lane)| *dx += *of_lane);
                }
            }
            gradients.weight.extend_from_slice(&of_lane.weight);
            gradients.bias.extend(narrowed::<T>(&of_lane.bias));
        }
        gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{Case, assert_close, check_weighted, flat, numbers};
    use crate::train::ops::{GradientSlot, InputGradient};
    use candle_core::{DType, Var};

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
            ("one place", [1, 2, 3, 4, 3], [1, 2, 3], Window { size: 1, stride: 2, padding: 0 }),
            (
                "wide windows of one channel",
                [1, 1, 9, 8, 1],
                [1, 2, 49],
                Window { size: 7, stride: 3, padding: 2 },
            ),
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
                    fused: &|x, weight, bias, tape| convolution(x, weight, bias, window, activation, tape),
                    composed: &|x, weight, bias| composed(x, weight, bias, window, activation),
                });
            }
        }
    }

    #[test]
    fn windows_after_winograd_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, x, weight, size, padding) in [
            ("padded, an odd row and column left over", [1, 2, 5, 3, 16], [1, 16, 144], 3, 1),
            ("unpadded", [1, 1, 4, 5, 16], [1, 17, 144], 3, 0),
            ("padded by two", [1, 1, 2, 3, 17], [1, 16, 153], 3, 2),
            ("lanes", [2, 1, 4, 3, 16], [2, 16, 144], 3, 1),
            ("lanes that share their images", [1, 1, 3, 4, 16], [2, 16, 144], 3, 1),
            ("5x5, padded", [1, 2, 4, 5, 16], [1, 16, 400], 5, 2),
            ("5x5, unpadded", [1, 1, 7, 6, 16], [1, 17, 400], 5, 0),
            ("5x5, padded by four", [1, 1, 1, 2, 16], [1, 16, 400], 5, 4),
        ] {
            let window = Window { size, stride: 1, padding };
            let windows = window.over(x[2], x[3], x[4]).expect("fits");
            let geometry =
                Geometry { batch: x[1], outputs: weight[1], windows, activation: Activation::Identity };
            assert_eq!(geometry.method(), Method::Winograd, "{name}");
            check_weighted(Case {
                name,
                x: &x,
                weight: &weight,
                bias: &[weight[0], weight[1]],
                fused: &|x, weight, bias, tape| convolution(x, weight, bias, window, Activation::Relu, tape),
                composed: &|x, weight, bias| composed(x, weight, bias, window, Activation::Relu),
            });
        }
    }

    #[test]
    fn winograd_rounds_no_worse_than_is_allowed_to_any_op() {
        for (size, width) in [(3, 13), (5, 14)] {
            winograd_rounds_little(size, width);
        }
    }

    fn winograd_rounds_little(size: usize, width: usize) {
        // Many channels and blocks. ReLU is left out: a rounding may send it the other way.
        let patch = size * size * 64;
        let (x, weight) = (numbers("x", &[1, 24, width, width, 64]), numbers("weight", &[1, 96, patch]));
        let bias = numbers("bias", &[1, 96]);
        let window = Window { size, stride: 1, padding: size / 2 };
        let fused = || {
            let slots = [GradientSlot::default(), GradientSlot::default()];
            let [x, weight, bias] =
                [x.to_dtype(DType::F32)?, weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?];
            let (weight, bias) =
                (Leaf { tensor: &weight, gradient: &slots[0] }, Leaf { tensor: &bias, gradient: &slots[1] });
            let mut tape = Tape::taking(InputGradient::Wanted);
            let y = convolution(&x, weight, bias, window, Activation::Identity, Some(&mut tape))?;
            let dx = tape.play(numbers("objective", y.dims()).to_dtype(DType::F32)?)?;
            let gradients = [slots[0].take(), slots[1].take(), dx];
            let gradients = gradients.map(|gradient| flat(&gradient.expect("a gradient")));
            Ok::<_, candle_core::Error>((flat(&y), gradients))
        };
        let exact = || {
            let [x, weight, bias] =
                [Var::from_tensor(&x)?, Var::from_tensor(&weight)?, Var::from_tensor(&bias)?];
            let y = composed(&x, &weight, &bias, window, Activation::Identity)?;
            let mut store = (&y * numbers("objective", y.dims()))?.sum_all()?.backward()?;
            let gradients = [&weight, &bias, &x].map(|variable| store.remove(variable));
            let gradients = gradients.map(|gradient| flat(&gradient.expect("a gradient")));
            Ok::<_, candle_core::Error>((flat(&y), gradients))
        };
        let (y, gradients) = fused().expect("f32");
        let (exact_y, exact) = exact().expect("f64");
        assert_close(&format!("result of {size}x{size}"), &y, &exact_y, 5e-6);
        for (name, (gradient, exact)) in ["weight", "bias", "x"].iter().zip(gradients.iter().zip(&exact)) {
            assert_close(&format!("{name} of {size}x{size}"), gradient, exact, 5e-6);
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
        let (weight, bias) = (leaf(&weight), leaf(&bias));
        let y = convolution(&x.expect("good"), weight, bias, window, Activation::Identity, None);
        let y = y.and_then(|y| y.flatten_all()).and_then(|y| y.to_vec1::<f32>()).expect("good");
        assert_eq!(y, [5421.5, 6532.5]);
    }
}
