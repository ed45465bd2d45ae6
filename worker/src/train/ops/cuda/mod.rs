//! The ops that have kernels of their own for NVIDIA GPUs. They round otherwise than the CPU does, and
//! a lane may round otherwise in company, for cuBLAS chooses its ways by the whole of a product.

mod batch_norm;
mod convolution;
mod cross_entropy;
mod dropout;
mod linear;
mod max_pool;
mod relu;

pub(super) use self::batch_norm::{evaluate as batch_norm_evaluate, train as batch_norm_train};
pub(super) use self::convolution::convolution;
pub(super) use self::cross_entropy::cross_entropy;
pub(crate) use self::cross_entropy::tally;
pub(super) use self::dropout::dropout;
pub(super) use self::linear::linear;
pub(super) use self::max_pool::max_pool;
pub(super) use self::relu::relu;

use candle_core::{Error, Result, Tensor};

use super::Activation;
use crate::train::cuda::{File, Gpu, Grid, Runs};

/// The GPU of a tensor that came out of one.
fn gpu(tensor: &Tensor) -> Result<Gpu<'_>> {
    Gpu::of(tensor).ok_or_else(|| Error::Msg("a tensor of f32 on the GPU is needed".to_owned()))
}

/// As kernels take it.
fn flag(activation: Activation) -> usize {
    usize::from(activation == Activation::Relu)
}

/// Adds the bias to `[lanes, …, columns]`, and activates, in place.
fn add_bias(gpu: Gpu<'_>, y: &Tensor, bias: &Tensor, activation: Activation) -> Result<()> {
    let (lanes, columns) = bias.dims2()?;
    let count = y.elem_count();
    let sizes = [count / lanes, columns, count, flag(activation)];
    gpu.launch((File::Activations, "add_bias"), Grid::over(count), &[y, bias], &sizes, &[])
}

/// The gradient before the activation, and the bias's: `[lanes, columns]`.
fn bias_gradient(
    gpu: Gpu<'_>,
    y: &Tensor,
    dy: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<(Tensor, Tensor)> {
    let (lanes, columns) = bias.dims2()?;
    let runs = Runs::over(lanes, y.elem_count() / (lanes * columns), columns);
    let dz = match activation {
        Activation::Identity => dy.clone(),
        Activation::Relu => gpu.empty(y.shape())?,
    };
    let sums = gpu.empty(runs.shape())?;
    let sizes = [runs.rows, columns, runs.length, flag(activation)];
    gpu.launch((File::Activations, "bias_gradient"), runs.grid(), &[y, dy, &dz, &sums], &sizes, &[])?;
    Ok((dz, add_runs(gpu, &sums, runs)?))
}

/// The sums of all runs: `[lanes, columns]`.
fn add_runs(gpu: Gpu<'_>, sums: &Tensor, runs: Runs) -> Result<Tensor> {
    if runs.count == 1 {
        return sums.squeeze(1);
    }
    let whole = gpu.empty((runs.lanes, runs.columns))?;
    let count = runs.lanes * runs.columns;
    let sizes = [runs.count, runs.columns, count];
    gpu.launch((File::Activations, "add_runs"), Grid::over(count), &[sums, &whole], &sizes, &[])?;
    Ok(whole)
}
