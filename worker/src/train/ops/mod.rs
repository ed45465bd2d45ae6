//! The differentiable operations that models are made of, one small file each.
//!
//! Every op has two forms. The *fused* form is a few passes over slices, with its own backward: it
//! runs on the CPU. The *composed* form is written in candle's differentiable ops: it runs on GPUs,
//! and it is what the tests hold the fused form against. On NVIDIA GPUs the ops that take most of the
//! time have a third form, kernels of their own: see `cuda`.
//!
//! Activations carry the lanes first and the channels last: `[lanes, batch, features]` or
//! `[lanes, batch, height, width, channels]`. Channels come last because then a convolution's
//! window is a few long runs of memory, and normalisation, bias and pooling run along vectors.

pub(crate) mod average_pool;
pub(crate) mod batch_norm;
mod columns;
pub mod convolution;
pub(crate) mod cross_entropy;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod dropout;
pub(crate) mod group_norm;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod max_pool;
pub(crate) mod relu;
pub(crate) mod response_norm;
pub(crate) mod spatial_dropout;
pub(crate) mod sums;
pub(crate) mod tape;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod upsample;
mod window;

use candle_core::{Result, Shape, Tensor};

pub use self::tape::{GradientSlot, Tape};
use self::tape::{apply_unary, apply_weighted, compose_unary, compose_weighted};
pub use self::window::Window;
use super::element::Element;

/// What follows a linear, convolution or normalisation layer within the same op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<T: Element>(self, x: T) -> T {
        // Written so that NaN stays NaN: a diverged run must show as one.
        if self == Self::Relu && x < T::zero() { T::zero() } else { x }
    }

    /// The gradient before the activation, from the one after it and the activation's result.
    #[inline(always)]
    pub(crate) fn backward<T: Element>(self, y: T, dy: T) -> T {
        if self == Self::Relu && y <= T::zero() { T::zero() } else { dy }
    }

    fn composed(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x),
            Self::Relu => x.relu(),
        }
    }
}

/// A parameter as an op takes it.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// Its values.
    pub tensor: &'a Tensor,
    /// Where its gradient goes.
    pub gradient: &'a GradientSlot,
}

/// A fused op of one differentiable input.
pub(crate) trait Unary: Send + 'static {
    fn output_shape(&self) -> Shape;
    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T>;
    /// The gradient of `x`, from the input, the output and the output's gradient.
    fn backward<T: Element>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T>;
}

/// A fused op of activations, a weight and a bias, each with its gradient.
pub(crate) trait Weighted: Send + 'static {
    fn output_shape(&self) -> Shape;
    fn forward<T: Element>(&mut self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T>;
    fn backward<T: Element>(&self, saved: &Saved<'_, T>, input: InputGradient) -> WeightedGradients<T>;
}

/// What a backward pass has to work with.
pub(crate) struct Saved<'a, T> {
    /// The input.
    pub(crate) x: &'a [T],
    /// The weight.
    pub(crate) weight: &'a [T],
    /// The output.
    pub(crate) y: &'a [T],
    /// The gradient of the output.
    pub(crate) dy: &'a [T],
}

/// Whether the gradient of an op's input is asked for: that of the images never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputGradient {
    /// It is.
    Wanted,
    /// It is not.
    Unwanted,
}

/// The gradients that a [`Weighted`] op gives.
pub(crate) struct WeightedGradients<T> {
    pub(crate) x: Option<Vec<T>>,
    pub(crate) weight: Vec<T>,
    pub(crate) bias: Vec<T>,
}
