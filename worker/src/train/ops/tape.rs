//! The backward pass: each op leaves on a [`Tape`] what it needs for its gradients.
//!
//! Candle's own graph could hold fused ops too, but it adds every gradient to a tensor of zeros,
//! and keeps all activations until the end: that is several passes over each of them. Models are
//! chains of layers with at most two branches, for which a list played backwards is all it takes.
//! Only within an op that is composed of candle's is there a graph, of its own.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};

use super::{InputGradient, Leaf, Saved, Unary, Weighted};
use crate::train::element::{Element, Reading, by_dtype, modify};
use crate::train::simd;

/// What a forward pass leaves for its backward pass.
pub struct Tape {
    steps: Vec<Step>,
    /// Whether the gradient of the activations that the next op takes is asked for.
    input: InputGradient,
}

/// One op's part of the backward pass: from the gradient of its output to that of its input, where it
/// is asked for. Gradients of parameters land in their slots.
type Step = Box<dyn FnOnce(Tensor) -> Result<Option<Tensor>> + Send>;

/// Where the gradient of a parameter lands in the backward pass of a fused op.
#[derive(Clone, Debug, Default)]
pub struct GradientSlot(Arc<Mutex<Option<Tensor>>>);

impl GradientSlot {
    /// Takes the gradient out, if one has landed.
    pub fn take(&self) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn put(&self, gradient: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }
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

    /// Takes the gradients of all parameters to their slots, from the losses of all lanes: `[lanes]`.
    pub fn backward(self, losses: &Tensor) -> Result<()> {
        self.play(losses.ones_like()?).map(drop)
    }

    /// Plays the steps backwards, from the gradient of the last output to that of the first input.
    pub fn play(self, dy: Tensor) -> Result<Option<Tensor>> {
        let mut gradient = Some(dy);
        for step in self.steps.into_iter().rev() {
            // An op is on the tape because something before it wants its gradient.
            let Some(dy) = gradient else { break };
            gradient = step(dy)?;
        }
        Ok(gradient)
    }

    /// Adds the branches that two ways took from the same input, and whose outputs were added.
    pub(crate) fn join(&mut self, branches: [Self; 2]) {
        if self.input == InputGradient::Wanted || branches.iter().any(|branch| !branch.steps.is_empty()) {
            self.push(|dy| play_both(branches, dy));
            self.input = InputGradient::Wanted;
        }
    }

    /// Whether an op without parameters has to leave anything: not if nothing before it wants a gradient.
    pub(super) fn takes_unary(&self) -> bool {
        self.input == InputGradient::Wanted
    }

    /// Whether the gradient of the input of an op with parameters is asked for. That of its output is.
    pub(super) fn take_weighted(&mut self) -> InputGradient {
        mem::replace(&mut self.input, InputGradient::Wanted)
    }

    /// Leaves an op's part of the backward pass.
    pub(super) fn push(&mut self, step: impl FnOnce(Tensor) -> Result<Option<Tensor>> + Send + 'static) {
        self.steps.push(Box::new(step));
    }
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}

/// The gradient of an input that two ways were taken from.
fn play_both([first, second]: [Tape; 2], dy: Tensor) -> Result<Option<Tensor>> {
    // Whatever a step gives is its own to change; without steps it is the gradient of the sum.
    let is_own = !first.steps.is_empty();
    let of_first = first.play(dy.clone())?;
    let of_second = second.play(dy)?;
    match (of_first, of_second) {
        (Some(sum), Some(other)) if is_own && matches!(sum.device(), Device::Cpu) => {
            by_dtype!(sum.dtype(), T => add::<T>(&sum, &other))?;
            Ok(Some(sum))
        }
        (Some(one), Some(other)) => (one + other).map(Some),
        (one, other) => Ok(one.or(other)),
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
    if let Some(tape) = tape.filter(|tape| tape.takes_unary()) {
        let y = y.clone();
        tape.push(move |dy| {
            by_dtype!(x.dtype(), T => {
                let dx = {
                    let (x, y, dy) = (Reading::of(&x), Reading::of(&y), Reading::of(&dy));
                    op.backward::<T>(x.slice()?, y.slice()?, dy.slice()?)
                };
                Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
            })
        });
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
        let (weight, bias, y) = (weight.tensor.clone(), bias.tensor.clone(), y.clone());
        let input = tape.take_weighted();
        tape.push(move |dy| {
            let [weight_slot, bias_slot] = slots;
            by_dtype!(x.dtype(), T => {
                let gradients = {
                    let (x, weight) = (Reading::of(&x), Reading::of(&weight));
                    let (y, dy) = (Reading::of(&y), Reading::of(&dy));
                    let saved = Saved { x: x.slice()?, weight: weight.slice()?, y: y.slice()?, dy: dy.slice()? };
                    op.backward::<T>(&saved, input)
                };
                weight_slot.put(Tensor::from_vec(gradients.weight, weight.shape(), weight.device())?);
                bias_slot.put(Tensor::from_vec(gradients.bias, bias.shape(), bias.device())?);
                gradients.x.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()
            })
        });
    }
    Ok(y)
}

/// Applies an op in candle's ops to activations.
pub(super) fn compose_unary(
    x: &Tensor,
    tape: Option<&mut Tape>,
    op: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let Some(tape) = tape.filter(|tape| tape.takes_unary()) else {
        return op(x);
    };
    let x = Var::from_tensor(x)?;
    let y = op(&x)?;
    let result = y.detach();
    tape.push(move |dy| Graph::of(&y, &dy)?.gradient(&x).map(Some));
    Ok(result)
}

/// Applies an op in candle's ops to activations and its parameters.
pub(super) fn compose_weighted(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    tape: Option<&mut Tape>,
    op: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let Some(tape) = tape else {
        return op(x, weight.tensor, bias.tensor);
    };
    let slots = [weight.gradient.clone(), bias.gradient.clone()];
    let x = match tape.take_weighted() {
        InputGradient::Wanted => Ok(Var::from_tensor(x)?),
        InputGradient::Unwanted => Err(x.clone()),
    };
    let parameters = [Var::from_tensor(weight.tensor)?, Var::from_tensor(bias.tensor)?];
    let y = op(x.as_ref().map_or_else(|x| x, Var::as_tensor), &parameters[0], &parameters[1])?;
    let result = y.detach();
    tape.push(move |dy| {
        let mut graph = Graph::of(&y, &dy)?;
        for (parameter, slot) in parameters.iter().zip(slots) {
            slot.put(graph.gradient(parameter)?);
        }
        x.ok().map(|x| graph.gradient(&x)).transpose()
    });
    Ok(result)
}

/// What came of the graph of one composed op.
struct Graph(GradStore);

impl Graph {
    /// From the op's result and its gradient.
    fn of(y: &Tensor, dy: &Tensor) -> Result<Self> {
        (y * dy)?.sum_all()?.backward().map(Self)
    }

    fn gradient(&mut self, of: &Tensor) -> Result<Tensor> {
        match self.0.remove(of) {
            Some(gradient) => gradient.contiguous(),
            None => candle_core::bail!("a tensor of shape {:?} has no gradient", of.dims()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{flat, numbers};
    use crate::train::ops::{Activation, linear, relu};

    /// The gradients of `weight`, of `bias` and, where it is asked for, of `x`, after a layer and a ReLU.
    fn gradients(input: InputGradient, is_composed: bool) -> (Vec<f64>, [Vec<f64>; 2], Option<Vec<f64>>) {
        let (x, dy) = (numbers("x", &[2, 3, 4]), numbers("dy", &[2, 3, 5]));
        let (weight, bias) = (numbers("weight", &[2, 5, 4]), numbers("bias", &[2, 5]));
        let slots = [GradientSlot::default(), GradientSlot::default()];
        let (weight, bias) =
            (Leaf { tensor: &weight, gradient: &slots[0] }, Leaf { tensor: &bias, gradient: &slots[1] });
        let mut tape = Tape::taking(input);
        let y = if is_composed {
            let y = compose_weighted(&x, weight, bias, Some(&mut tape), |x, weight, bias| {
                linear::composed(x, weight, bias, Activation::Identity)
            });
            compose_unary(&y.expect("good"), Some(&mut tape), relu::composed)
        } else {
            let y = linear::linear(&x, weight, bias, Activation::Identity, Some(&mut tape));
            relu::relu(&y.expect("good"), Some(&mut tape))
        };
        let dx = tape.play(dy).expect("gradients");
        (
            flat(&y.expect("good")),
            slots.map(|slot| flat(&slot.take().expect("a gradient"))),
            dx.map(|dx| flat(&dx)),
        )
    }

    #[test]
    fn composed_ops_leave_the_gradients_of_fused_ones() {
        for input in [InputGradient::Wanted, InputGradient::Unwanted] {
            let (fused, composed) = (gradients(input, false), gradients(input, true));
            assert_eq!(composed.2.is_some(), input == InputGradient::Wanted);
            let all = |(y, [weight, bias], x): (Vec<f64>, [Vec<f64>; 2], Option<Vec<f64>>)| {
                [y, weight, bias, x.unwrap_or_default()].concat()
            };
            let (fused, composed) = (all(fused), all(composed));
            assert_eq!(fused.len(), composed.len());
            let apart = fused.iter().zip(&composed).map(|(fused, composed)| (fused - composed).abs());
            assert!(apart.fold(0.0, f64::max) < 1e-14);
        }
    }

    #[test]
    fn a_composed_op_of_images_leaves_nothing_unless_it_has_parameters() {
        let mut tape = Tape::new();
        compose_unary(&numbers("x", &[2, 3]), Some(&mut tape), relu::composed).expect("good");
        assert!(tape.steps.is_empty());
    }
}
