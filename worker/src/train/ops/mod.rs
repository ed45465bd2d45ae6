//! The differentiable operations that models are made of, one small file each.
//!
//! Every op has two forms. The *fused* form is a few passes over slices, with its own backward: it
//! runs on the CPU. The *composed* form is written in candle's differentiable ops: it runs on CUDA
//! and Metal, and it is what the tests hold the fused form against.
//!
//! Activations carry the lanes first and the channels last: `[lanes, batch, features]` or
//! `[lanes, batch, height, width, channels]`. Channels come last because then a convolution's
//! window is a few long runs of memory, and normalisation, bias and pooling run along vectors.

pub(crate) mod average_pool;
pub(crate) mod batch_norm;
pub mod convolution;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod group_norm;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod max_pool;
pub(crate) mod relu;
pub(crate) mod response_norm;
pub(crate) mod spatial_dropout;
pub(crate) mod sums;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod upsample;
mod window;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, DType, Layout, Result, Shape, Tensor};

pub use self::window::Window;
use super::element::{Element, Reading, by_dtype, contiguous};

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

/// Where the gradient of a parameter lands in the backward pass of a fused op.
///
/// Candle adds each argument's gradient to a tensor of zeros: two more passes over all weights.
/// A parameter's gradient takes this short cut instead; [`super::params`] looks in both places.
#[derive(Clone, Debug, Default)]
pub struct GradientSlot(Arc<Mutex<Option<Tensor>>>);

impl GradientSlot {
    /// Takes the gradient out, if one has landed.
    pub fn take(&self) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn add(&self, gradient: Tensor) -> Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(match slot.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
        Ok(())
    }
}

/// A parameter as an op takes it.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// Its values; not tracked where no gradient is wanted.
    pub tensor: &'a Tensor,
    /// Where its gradient goes.
    pub gradient: &'a GradientSlot,
}

/// A fused op of one differentiable input.
pub(crate) trait Unary: Send + Sync + 'static {
    const NAME: &'static str;
    fn output_shape(&self) -> Shape;
    fn forward<T: Element>(&self, x: &[T]) -> Vec<T>;
    /// The gradient of `x`, from the input, the output and the output's gradient.
    fn backward<T: Element>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T>;
}

/// A fused op of activations, a weight and a bias, each with its gradient.
pub(crate) trait Weighted: Send + Sync + 'static {
    const NAME: &'static str;
    fn output_shape(&self) -> Shape;
    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T>;
    fn backward<T: Element>(&self, saved: &Saved<'_, T>, input: InputGradient) -> Gradients<T>;
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
pub(crate) enum InputGradient {
    Wanted,
    Unwanted,
}

/// The gradients that a [`Weighted`] op gives.
pub(crate) struct Gradients<T> {
    pub(crate) x: Option<Vec<T>>,
    pub(crate) weight: Vec<T>,
    pub(crate) bias: Vec<T>,
}

struct FusedUnary<O>(O);

impl<O: Unary> CustomOp1 for FusedUnary<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(dtype(x), T => {
            let y = self.0.forward::<T>(contiguous(x, layout)?);
            Ok((storage(y), self.0.output_shape()))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), T => {
            let (x_, y, dy) = (Reading::of(x), Reading::of(y), Reading::of(&dy));
            let dx = self.0.backward::<T>(x_.slice()?, y.slice()?, dy.slice()?);
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        })
    }
}

struct FusedWeighted<O> {
    op: O,
    weight: GradientSlot,
    bias: GradientSlot,
}

impl<O: Weighted> CustomOp3 for FusedWeighted<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(dtype(x), T => {
            let weight = contiguous(weight, weight_layout)?;
            let y = self.op.forward::<T>(contiguous(x, x_layout)?, weight, contiguous(bias, bias_layout)?);
            Ok((storage(y), self.op.output_shape()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let input = if x.track_op() { InputGradient::Wanted } else { InputGradient::Unwanted };
        by_dtype!(x.dtype(), T => {
            let (x_, weight_, y, dy) = (Reading::of(x), Reading::of(weight), Reading::of(y), Reading::of(&dy));
            let saved = Saved { x: x_.slice()?, weight: weight_.slice()?, y: y.slice()?, dy: dy.slice()? };
            let gradients = self.op.backward::<T>(&saved, input);
            self.weight.add(Tensor::from_vec(gradients.weight, weight.shape(), weight.device())?)?;
            self.bias.add(Tensor::from_vec(gradients.bias, bias.shape(), bias.device())?)?;
            let dx = gradients.x.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
            Ok((dx, None, None))
        })
    }
}

fn apply_unary(op: impl Unary, x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(FusedUnary(op))
}

fn apply_weighted(op: impl Weighted, x: &Tensor, weight: Leaf<'_>, bias: Leaf<'_>) -> Result<Tensor> {
    let fused = FusedWeighted { op, weight: weight.gradient.clone(), bias: bias.gradient.clone() };
    x.contiguous()?.apply_op3(weight.tensor, bias.tensor, fused)
}

fn storage<T: Element>(numbers: Vec<T>) -> CpuStorage {
    T::to_cpu_storage_owned(numbers)
}

fn dtype(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}
