//! The backward pass of fused ops: each leaves on a [`Tape`] what it needs for its gradients.
//!
//! Candle's own graph could hold fused ops too, but it adds every gradient to a tensor of zeros,
//! and keeps all activations until the end: on the CPU that is several passes over each of them.
//! Models are chains of layers with at most two branches, for which a list played backwards is all
//! it takes. Composed ops leave nothing here: they are in candle's graph.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor};

use super::{InputGradient, Leaf, Saved, Unary, Weighted};
use crate::train::element::{Element, Reading, by_dtype, modify};
use crate::train::simd;

/// What a forward pass leaves for its backward pass.
pub struct Tape {
    steps: Vec<Box<dyn Step>>,
    /// Whether the gradient of the activations that the next op takes is asked for.
    input: InputGradient,
}

/// The gradients of a backward pass, for [`super::super::params::Parameter::take_gradient`].
#[derive(Debug)]
pub struct Gradients(Option<GradStore>);

impl Gradients {
    /// Those that candle's graph gave.
    pub(crate) fn of_graph(store: GradStore) -> Self {
        Self(Some(store))
    }

    /// Takes the gradient of a tensor out of candle's graph.
    pub(crate) fn take(&mut self, tensor: &Tensor) -> Option<Tensor> {
        self.0.as_mut()?.remove(tensor)
    }
}

/// Where the gradient of a parameter lands in the backward pass of a fused op.
#[derive(Clone, Debug, Default)]
pub struct GradientSlot(Arc<Mutex<Option<Tensor>>>);

impl GradientSlot {
    /// Takes the gradient out, if one has landed.
    pub fn take(&self) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, gradient: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }
}

/// One op's part of the backward pass.
trait Step: Send {
    /// From the gradient of the output to that of the input, where it is asked for. Gradients of
    /// parameters land in their slots.
    fn backward(self: Box<Self>, dy: Tensor) -> Result<Option<Tensor>>;
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").field("steps", &self.steps.len()).field("input", &self.input).finish()
    }
}

impl Tape {
    /// A blank tape for activations of which the first are images: their gradient is of no use.
    pub fn new() -> Self {
        Self::taking(InputGradient::Unwanted)
    }

    /// A blank tape for activations whose gradient is asked for, or not.
    pub fn taking(input: InputGradient) -> Self {
        Self { steps: Vec::new(), input }
    }

    /// A blank tape for a branch of what comes next.
    pub(crate) fn branch(&self) -> Self {
        Self::taking(self.input)
    }

    /// The gradients of all parameters, from the losses of all lanes: `[lanes]`.
    pub fn backward(self, losses: &Tensor) -> Result<Gradients> {
        match losses.device() {
            Device::Cpu => {
                self.play(losses.ones_like()?)?;
                Ok(Gradients(None))
            }
            Device::Cuda(_) | Device::Metal(_) => Ok(Gradients::of_graph(losses.sum_all()?.backward()?)),
        }
    }

    /// Plays the steps backwards, from the gradient of the last output to that of the first input.
    pub fn play(self, dy: Tensor) -> Result<Option<Tensor>> {
        let mut gradient = Some(dy);
        for step in self.steps.into_iter().rev() {
            // An op is on the tape because something before it wants its gradient.
            let Some(dy) = gradient else { break };
            gradient = step.backward(dy)?;
        }
        Ok(gradient)
    }

    /// Adds the branches that two ways took from the same input, and whose outputs were added.
    pub(crate) fn join(&mut self, branches: [Self; 2]) {
        if self.input == InputGradient::Wanted || branches.iter().any(|branch| !branch.steps.is_empty()) {
            self.steps.push(Box::new(Sum { branches }));
            self.input = InputGradient::Wanted;
        }
    }
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}

struct UnaryStep<O> {
    op: O,
    x: Tensor,
    y: Tensor,
}

impl<O: Unary> Step for UnaryStep<O> {
    fn backward(self: Box<Self>, dy: Tensor) -> Result<Option<Tensor>> {
        let Self { op, x, y } = *self;
        by_dtype!(x.dtype(), T => {
            let dx = {
                let (x, y, dy) = (Reading::of(&x), Reading::of(&y), Reading::of(&dy));
                op.backward::<T>(x.slice()?, y.slice()?, dy.slice()?)
            };
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        })
    }
}

struct WeightedStep<O> {
    op: O,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    slots: [GradientSlot; 2],
    input: InputGradient,
}

impl<O: Weighted> Step for WeightedStep<O> {
    fn backward(self: Box<Self>, dy: Tensor) -> Result<Option<Tensor>> {
        let Self { op, x, weight, bias, y, slots: [weight_slot, bias_slot], input } = *self;
        by_dtype!(x.dtype(), T => {
            let gradients = {
                let (x, weight, y, dy) = (Reading::of(&x), Reading::of(&weight), Reading::of(&y), Reading::of(&dy));
                let saved = Saved { x: x.slice()?, weight: weight.slice()?, y: y.slice()?, dy: dy.slice()? };
                op.backward::<T>(&saved, input)
            };
            weight_slot.put(Tensor::from_vec(gradients.weight, weight.shape(), weight.device())?);
            bias_slot.put(Tensor::from_vec(gradients.bias, bias.shape(), bias.device())?);
            gradients.x.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()
        })
    }
}

struct Sum {
    branches: [Tape; 2],
}

impl Step for Sum {
    fn backward(self: Box<Self>, dy: Tensor) -> Result<Option<Tensor>> {
        let [first, second] = self.branches;
        // Whatever a step gives is its own to change; without steps it is the gradient of the sum.
        let is_own = !first.steps.is_empty();
        let of_first = first.play(dy.clone())?;
        let of_second = second.play(dy)?;
        match (of_first, of_second) {
            (Some(sum), Some(other)) if is_own => {
                by_dtype!(sum.dtype(), T => add::<T>(&sum, &other))?;
                Ok(Some(sum))
            }
            (Some(one), Some(other)) => (one + other).map(Some),
            (one, other) => Ok(one.or(other)),
        }
    }
}

/// `sum += other`.
fn add<T: Element>(sum: &Tensor, other: &Tensor) -> Result<()> {
    let other = Reading::of(other);
    let other = other.slice::<T>()?;
    modify(sum, |sum: &mut [T]| {
        simd::dispatch(
            #[inline(always)]
            || sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += *other),
        );
    })
}

/// Applies a fused op to activations.
pub(super) fn apply_unary(mut op: impl Unary, x: &Tensor, tape: Option<&mut Tape>) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = by_dtype!(x.dtype(), T => {
        let y = op.forward::<T>(Reading::of(&x).slice()?);
        Tensor::from_vec(y, op.output_shape(), x.device())
    })?;
    if let Some(tape) = tape.filter(|tape| tape.input == InputGradient::Wanted) {
        tape.steps.push(Box::new(UnaryStep { op, x, y: y.clone() }));
    }
    Ok(y)
}

/// Applies a fused op to activations and its parameters.
pub(super) fn apply_weighted(
    mut op: impl Weighted,
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = by_dtype!(x.dtype(), T => {
        let (x, weight, bias) = (Reading::of(&x), Reading::of(weight.tensor), Reading::of(bias.tensor));
        let y = op.forward::<T>(x.slice()?, weight.slice()?, bias.slice()?);
        Tensor::from_vec(y, op.output_shape(), &Device::Cpu)
    })?;
    if let Some(tape) = tape {
        let slots = [weight.gradient.clone(), bias.gradient.clone()];
        let (weight, bias) = (weight.tensor.clone(), bias.tensor.clone());
        let input = std::mem::replace(&mut tape.input, InputGradient::Wanted);
        tape.steps.push(Box::new(WeightedStep { op, x, weight, bias, y: y.clone(), slots, input }));
    }
    Ok(y)
}
