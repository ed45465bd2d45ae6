//! Fully connected layers on an NVIDIA GPU.

use candle_core::{Result, Tensor};

use super::{add_bias, bias_gradient};
use crate::train::cuda::{Gpu, Matrices, multiply};
use crate::train::ops::{Activation, InputGradient, Leaf, Tape};

pub(crate) fn linear(
    gpu: Gpu<'_>,
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (lanes, outputs, inputs) = weight.tensor.dims3()?;
    let y = multiply(gpu, Matrices::of(&x, inputs)?, Matrices::of(weight.tensor, inputs)?.transposed())?;
    add_bias(gpu, &y, bias.tensor, activation)?;
    if let Some(tape) = tape {
        let slots = [weight.gradient.clone(), bias.gradient.clone()];
        let (weight, bias, y) = (weight.tensor.clone(), bias.tensor.clone(), y.clone());
        let input = tape.take_weighted();
        tape.push(move |dy| {
            let gpu = super::gpu(&dy)?;
            let (dz, dbias) = bias_gradient(gpu, &y, &dy.contiguous()?, &bias, activation)?;
            let of_outputs = Matrices::of(&dz, outputs)?;
            slots[0].put(multiply(gpu, of_outputs.transposed(), Matrices::of(&x, inputs)?)?);
            slots[1].put(dbias);
            if input == InputGradient::Unwanted {
                return Ok(None);
            }
            let dx = multiply(gpu, of_outputs, Matrices::of(&weight, inputs)?)?;
            of_lanes(dx, lanes, &x).map(Some)
        });
    }
    Ok(y)
}

/// The gradient of an input that each lane has, or that all share.
pub(super) fn of_lanes(dx: Tensor, lanes: usize, x: &Tensor) -> Result<Tensor> {
    let dx = if x.dim(0)? == lanes { dx } else { dx.sum_keepdim(0)? };
    dx.reshape(x.shape())
}
