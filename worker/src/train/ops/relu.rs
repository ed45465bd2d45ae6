//! ReLU as an op of its own, for where no layer before it can take it along: `max(x, 0)`.

use candle_core::{Device, Result, Shape, Tensor};

use super::{Activation, Tape, Unary, apply_unary, compose_unary};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::{Element, collect};
use crate::train::simd;

/// ReLU of activations of any shape.
pub(crate) fn relu(x: &Tensor, tape: Option<&mut Tape>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x) {
        return super::cuda::relu(gpu, x, tape);
    }
    if matches!(x.device(), Device::Cpu) {
        apply_unary(Relu { shape: x.shape().clone() }, x, tape)
    } else {
        compose_unary(x, tape, composed)
    }
}

/// [`relu`] in candle's ops.
pub(crate) fn composed(x: &Tensor) -> Result<Tensor> {
    Activation::Relu.composed(x.clone())
}

struct Relu {
    shape: Shape,
}

impl Unary for Relu {
    fn output_shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        simd::dispatch(
            #[inline(always)]
            || collect(x.iter().map(|x| Activation::Relu.apply(*x))),
        )
    }

    fn backward<T: Element>(&self, _x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        simd::dispatch(
            #[inline(always)]
            || collect(y.iter().zip(dy).map(|(y, dy)| Activation::Relu.backward(*y, *dy))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{check_unary, numbers};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for shape in [&[2, 3, 5][..], &[1, 2, 3, 3, 2]] {
            check_unary("relu", &numbers("relu", shape), &relu, &composed);
        }
    }
}
