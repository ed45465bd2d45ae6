//! `y = activation(x · weightᵀ + bias)`: a fully connected layer.

use std::borrow::Cow;

use candle_core::{Device, Result, Shape, Tensor};

use super::columns::{append_mapped, column_sums};
use super::sums::narrowed;
use super::{
    Activation, InputGradient, Leaf, Saved, Tape, Weighted, WeightedGradients, apply_weighted,
    compose_weighted,
};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::Element;
use crate::train::matrix::{Matrix, Write, append_product, multiply};
use crate::train::simd;
use crate::train::transpose::append_transpose;

/// A fully connected layer.
///
/// `x`: `[lanes, batch, …]`, all after the batch flattened to `inputs`, or `[1, batch, …]` if the
/// lanes share it; `weight`: `[lanes, outputs, inputs]`; `bias`: `[lanes, outputs]`.
/// Gives `[lanes, batch, outputs]`.
pub(crate) fn linear(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x) {
        return super::cuda::linear(gpu, x, weight, bias, activation, tape);
    }
    if !matches!(x.device(), Device::Cpu) {
        return compose_weighted(x, weight, bias, tape, |x, weight, bias| {
            composed(x, weight, bias, activation)
        });
    }
    let (lanes, outputs, inputs) = weight.tensor.dims3()?;
    let op = Linear { lanes, x_lanes: x.dim(0)?, batch: x.dim(1)?, inputs, outputs, activation };
    apply_weighted(op, x, weight, bias, tape)
}

/// [`linear`] in candle's ops.
pub(crate) fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let y =
        x.flatten_from(2)?.broadcast_matmul(&weight.transpose(1, 2)?)?.broadcast_add(&bias.unsqueeze(1)?)?;
    activation.composed(y)
}

struct Linear {
    lanes: usize,
    x_lanes: usize,
    batch: usize,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

impl Weighted for Linear {
    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.outputs).into()
    }

    fn forward<T: Element>(&mut self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let Self { batch, inputs, outputs, .. } = *self;
        let mut y = Vec::with_capacity(self.lanes * batch * outputs);
        // A product runs along vectors of one side, which must lie the other way for it: the smaller one moves.
        let (mut moved, mut of_outputs) = (Vec::new(), Vec::new());
        for (lane, bias) in bias.chunks_exact(outputs).enumerate() {
            let first = y.len();
            let (x, weight) = (self.input_of(x, lane), self.weight_of(weight, lane));
            moved.clear();
            if batch < outputs {
                append_transpose(&mut moved, x.numbers(), batch, inputs);
                of_outputs.clear();
                append_product(&mut of_outputs, weight, Matrix::new(&moved, inputs, batch));
                append_transpose(&mut y, &of_outputs, outputs, batch);
            } else {
                append_transpose(&mut moved, weight.numbers(), outputs, inputs);
                append_product(&mut y, x, Matrix::new(&moved, inputs, outputs));
            }
            add_bias(&mut y[first..], bias, self.activation);
        }
        y
    }

    fn backward<T: Element>(&self, saved: &Saved<'_, T>, input: InputGradient) -> WeightedGradients<T> {
        let mut dx = match input {
            InputGradient::Wanted => Some(Vec::with_capacity(self.x_lanes * self.batch * self.inputs)),
            InputGradient::Unwanted => None,
        };
        let mut dweight = Vec::with_capacity(self.lanes * self.outputs * self.inputs);
        let mut dbias = Vec::with_capacity(self.lanes * self.outputs);
        let size = self.batch * self.outputs;
        for lane in 0..self.lanes {
            let (y, dy) = (&saved.y[lane * size..][..size], &saved.dy[lane * size..][..size]);
            let (dz, bias) = before_activation(y, dy, self.outputs, self.activation);
            dbias.extend(narrowed::<T>(&bias));
            let dz = Matrix::new(&dz, self.batch, self.outputs);
            append_product(&mut dweight, dz.transposed(), self.input_of(saved.x, lane));
            match &mut dx {
                Some(dx) if lane < self.x_lanes => {
                    append_product(dx, dz, self.weight_of(saved.weight, lane));
                }
                Some(dx) => {
                    let shared = lane % self.x_lanes;
                    let dx = &mut dx[shared * self.batch * self.inputs..][..self.batch * self.inputs];
                    multiply(dx, Write::Add, dz, self.weight_of(saved.weight, lane));
                }
                None => {}
            }
        }
        WeightedGradients { x: dx, weight: dweight, bias: dbias }
    }
}

impl Linear {
    fn input_of<'a, T>(&self, x: &'a [T], lane: usize) -> Matrix<'a, T> {
        let size = self.batch * self.inputs;
        Matrix::new(&x[lane % self.x_lanes * size..][..size], self.batch, self.inputs)
    }

    fn weight_of<'a, T>(&self, weight: &'a [T], lane: usize) -> Matrix<'a, T> {
        let size = self.outputs * self.inputs;
        Matrix::new(&weight[lane * size..][..size], self.outputs, self.inputs)
    }
}

/// Adds the bias to every row, then applies the activation.
pub(super) fn add_bias<T: Element>(y: &mut [T], bias: &[T], activation: Activation) {
    simd::dispatch(
        #[inline(always)]
        || {
            for row in y.chunks_exact_mut(bias.len()) {
                for (y, bias) in row.iter_mut().zip(bias) {
                    *y = activation.apply(*y + *bias);
                }
            }
        },
    );
}

/// The gradient before the activation, and its sum over the rows, which is the bias's.
pub(super) fn before_activation<'a, T: Element>(
    y: &[T],
    dy: &'a [T],
    outputs: usize,
    activation: Activation,
) -> (Cow<'a, [T]>, Vec<f64>) {
    let dz = match activation {
        Activation::Identity => Cow::Borrowed(dy),
        Activation::Relu => {
            let mut dz = Vec::new();
            simd::dispatch(
                #[inline(always)]
                || append_mapped(&mut dz, outputs, [y, dy], [], |[y, dy], []| activation.backward(y, dy)),
            );
            Cow::Owned(dz)
        }
    };
    let [dbias] = simd::dispatch(
        #[inline(always)]
        || column_sums(outputs, [&dz], [], |[dz], []| [dz]),
    );
    (dz, dbias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{Case, check_weighted};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, x, weight, activation) in [
            ("one lane", vec![1, 4, 3], [1, 5, 3], Activation::Identity),
            ("relu", vec![1, 4, 3], [1, 5, 3], Activation::Relu),
            ("lanes of their own input", vec![2, 3, 4], [2, 5, 4], Activation::Relu),
            ("lanes that share their input", vec![1, 3, 4], [2, 5, 4], Activation::Relu),
            ("one image, one unit", vec![1, 1, 2], [1, 1, 2], Activation::Identity),
            ("an image as input", vec![2, 3, 2, 2, 3], [2, 4, 12], Activation::Relu),
        ] {
            check_weighted(Case {
                name,
                x: &x,
                weight: &weight,
                bias: &[weight[0], weight[1]],
                fused: &|x, weight, bias, tape| linear(x, weight, bias, activation, tape),
                composed: &|x, weight, bias| composed(x, weight, bias, activation),
            });
        }
    }
}
