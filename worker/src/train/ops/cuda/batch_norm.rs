//! Batch normalisation on an NVIDIA GPU.

use candle_core::{Result, Tensor};

use super::{add_runs, flag};
use crate::train::cuda::{File, Gpu, Grid, Runs};
use crate::train::ops::batch_norm::Running;
use crate::train::ops::{Activation, InputGradient, Leaf, Tape};

pub(crate) fn train(
    gpu: Gpu<'_>,
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    running: Running<'_>,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (lanes, columns) = weight.tensor.dims2()?;
    let runs = Runs::over(lanes, x.elem_count() / (lanes * columns), columns);
    let norm = Norm {
        mean: gpu.empty((lanes, columns))?,
        variance: gpu.empty((lanes, columns))?,
        weight: weight.tensor.clone(),
        bias: bias.tensor.clone(),
        activation,
    };
    let y = if runs.are_few() {
        norm.train_at_once(gpu, &x, running, runs)?
    } else {
        norm.measure(gpu, &x, running, runs)?;
        norm.apply(gpu, &x)?
    };
    if let Some(tape) = tape {
        let [weight_slot, bias_slot] = [weight.gradient.clone(), bias.gradient.clone()];
        let input = tape.take_weighted();
        tape.push(move |dy| {
            let gpu = super::gpu(&dy)?;
            let dy = dy.contiguous()?;
            let Gradients { x, weight, bias } = if runs.are_few() {
                norm.backward_at_once(gpu, &x, &dy, runs)?
            } else {
                norm.backward(gpu, &x, &dy, runs)?
            };
            weight_slot.put(weight);
            bias_slot.put(bias);
            Ok(Some(x).filter(|_| input == InputGradient::Wanted))
        });
    }
    Ok(y)
}

pub(crate) fn evaluate(
    gpu: Gpu<'_>,
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    running: Running<'_>,
    activation: Activation,
) -> Result<Tensor> {
    let norm = Norm {
        mean: running.mean.clone(),
        variance: running.variance.clone(),
        weight: weight.tensor.clone(),
        bias: bias.tensor.clone(),
        activation,
    };
    norm.apply(gpu, &x.contiguous()?)
}

/// What numbers are normalised with; tensors of `[lanes, columns]`.
struct Norm {
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

struct Gradients {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn apply(&self, gpu: Gpu<'_>, x: &Tensor) -> Result<Tensor> {
        let (lanes, columns) = self.weight.dims2()?;
        let (y, count) = (gpu.empty(x.shape())?, x.elem_count());
        let tensors = [x, &self.mean, &self.variance, &self.weight, &self.bias, &y];
        let sizes = [count / lanes, columns, count, flag(self.activation)];
        gpu.launch((File::Normalization, "normalize"), Grid::over(count), &tensors, &sizes, &[])?;
        Ok(y)
    }

    /// Mean and variance of a batch; takes them into the running ones.
    fn measure(&self, gpu: Gpu<'_>, x: &Tensor, running: Running<'_>, runs: Runs) -> Result<()> {
        let Runs { rows, columns, .. } = runs;
        let (sums, squares) = (gpu.empty(runs.shape())?, gpu.empty(runs.shape())?);
        let sizes = [rows, columns, runs.length];
        gpu.launch((File::Normalization, "moments"), runs.grid(), &[x, &sums, &squares], &sizes, &[])?;
        let count = runs.lanes * columns;
        let tensors = [x, &sums, &squares, &self.mean, &self.variance, running.mean, running.variance];
        let sizes = [rows, columns, runs.count, count];
        gpu.launch((File::Normalization, "statistics"), Grid::over(count), &tensors, &sizes, &[])
    }

    /// [`Norm::measure`], then [`Norm::apply`].
    fn train_at_once(&self, gpu: Gpu<'_>, x: &Tensor, running: Running<'_>, runs: Runs) -> Result<Tensor> {
        let y = gpu.empty(x.shape())?;
        let Self { mean, variance, weight, bias, activation } = self;
        let tensors = [x, weight, bias, mean, variance, running.mean, running.variance, &y];
        let sizes = [runs.rows, runs.columns, flag(*activation)];
        let kernel = (File::Normalization, "normalize_at_once");
        gpu.launch(kernel, runs.grid_of_columns(), &tensors, &sizes, &[])?;
        Ok(y)
    }

    fn backward(&self, gpu: Gpu<'_>, x: &Tensor, dy: &Tensor, runs: Runs) -> Result<Gradients> {
        let Self { mean, variance, weight, bias, activation } = self;
        let Runs { rows, columns, .. } = runs;
        let (sums, products) = (gpu.empty(runs.shape())?, gpu.empty(runs.shape())?);
        let tensors = [x, dy, mean, variance, weight, bias, &sums, &products];
        let sizes = [rows, columns, runs.length, flag(*activation)];
        gpu.launch((File::Normalization, "normalize_sums"), runs.grid(), &tensors, &sizes, &[])?;
        let (dweight, dbias) = (add_runs(gpu, &products, runs)?, add_runs(gpu, &sums, runs)?);
        let (dx, count) = (gpu.empty(x.shape())?, x.elem_count());
        let tensors = [x, dy, mean, variance, weight, bias, &dweight, &dbias, &dx];
        let sizes = [count / runs.lanes, columns, rows, count, flag(*activation)];
        gpu.launch((File::Normalization, "normalize_gradient"), Grid::over(count), &tensors, &sizes, &[])?;
        Ok(Gradients { x: dx, weight: dweight, bias: dbias })
    }

    fn backward_at_once(&self, gpu: Gpu<'_>, x: &Tensor, dy: &Tensor, runs: Runs) -> Result<Gradients> {
        let Self { mean, variance, weight, bias, activation } = self;
        let (dweight, dbias) = (gpu.empty(weight.shape())?, gpu.empty(bias.shape())?);
        let dx = gpu.empty(x.shape())?;
        let tensors = [x, dy, mean, variance, weight, bias, &dweight, &dbias, &dx];
        let sizes = [runs.rows, runs.columns, flag(*activation)];
        let kernel = (File::Normalization, "normalize_gradient_at_once");
        gpu.launch(kernel, runs.grid_of_columns(), &tensors, &sizes, &[])?;
        Ok(Gradients { x: dx, weight: dweight, bias: dbias })
    }
}
