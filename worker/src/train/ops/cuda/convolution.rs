//! Convolution on an NVIDIA GPU: every window becomes a row of a matrix.

use candle_core::{Result, Tensor};

use super::linear::of_lanes;
use super::{add_bias, bias_gradient};
use crate::train::cuda::{File, Gpu, Grid, Matrices, multiply, multiply_rows};
use crate::train::ops::window::Windows;
use crate::train::ops::{Activation, InputGradient, Leaf, Tape};

/// The most numbers of rows of windows that are in memory at once, unless one lane alone has more; and the
/// most that are kept for the backward pass, which otherwise makes them again.
const MOST_NUMBERS: usize = 1 << 27;

pub(crate) fn convolution(
    gpu: Gpu<'_>,
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    windows: Windows,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (x_lanes, batch, ..) = x.dims5()?;
    let (lanes, outputs, patch) = weight.tensor.dims3()?;
    let plan = Plan { windows, patch, x_lanes, lanes, batch };
    let (mut parts, mut unrolled) = (Vec::new(), None);
    for (first, count) in plan.parts() {
        let rows = plan.unroll(gpu, &plan.of_input(&x, first, count)?)?;
        let of_weight = weight.tensor.narrow(0, first, count)?;
        parts.push(multiply(
            gpu,
            Matrices::of(&rows, patch)?,
            Matrices::of(&of_weight, patch)?.transposed(),
        )?);
        if count == lanes && rows.elem_count() <= MOST_NUMBERS {
            unrolled = Some(rows);
        }
    }
    let y = joined(parts)?.reshape((lanes, batch, windows.rows, windows.columns, outputs))?;
    add_bias(gpu, &y, bias.tensor, activation)?;
    if let Some(tape) = tape {
        let slots = [weight.gradient.clone(), bias.gradient.clone()];
        let (weight, bias, y) = (weight.tensor.clone(), bias.tensor.clone(), y.clone());
        let input = tape.take_weighted();
        tape.push(move |dy| {
            let gpu = super::gpu(&dy)?;
            let (dz, dbias) = bias_gradient(gpu, &y, &dy.contiguous()?, &bias, activation)?;
            slots[1].put(dbias);
            let (mut dweights, mut inputs) = (Vec::new(), Vec::new());
            for (first, count) in plan.parts() {
                let dz = dz.narrow(0, first, count)?.reshape((count, (), outputs))?;
                let of_outputs = Matrices::of(&dz, outputs)?;
                let rows = match &unrolled {
                    Some(rows) => rows.clone(),
                    None => plan.unroll(gpu, &plan.of_input(&x, first, count)?)?,
                };
                dweights.push(multiply_rows(gpu, &dz, &rows.reshape((rows.dim(0)?, (), patch))?)?);
                drop(rows);
                if input == InputGradient::Wanted {
                    let weight = weight.narrow(0, first, count)?;
                    inputs.push(plan.fold(gpu, &multiply(gpu, of_outputs, Matrices::of(&weight, patch)?)?)?);
                }
            }
            slots[0].put(joined(dweights)?);
            match input {
                InputGradient::Wanted => of_lanes(joined(inputs)?, lanes, &x).map(Some),
                InputGradient::Unwanted => Ok(None),
            }
        });
    }
    Ok(y)
}

/// Tensors one after the other.
fn joined(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => Ok(only),
        (last, _) => Tensor::cat(&parts.into_iter().chain(last).collect::<Vec<Tensor>>(), 0),
    }
}

/// How a convolution is taken apart.
#[derive(Clone, Copy)]
struct Plan {
    windows: Windows,
    patch: usize,
    x_lanes: usize,
    lanes: usize,
    batch: usize,
}

impl Plan {
    /// The first of some lanes and how many they are, so few that their windows fit into memory.
    fn parts(self) -> impl Iterator<Item = (usize, usize)> {
        let of_lane = self.batch * self.windows.count() * self.patch;
        let most = if self.x_lanes == 1 { self.lanes } else { (MOST_NUMBERS / of_lane.max(1)).max(1) };
        (0..self.lanes).step_by(most).map(move |first| (first, most.min(self.lanes - first)))
    }

    fn of_input(self, x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
        if self.x_lanes == 1 { Ok(x.clone()) } else { x.narrow(0, first, count) }
    }

    /// Whether windows are nothing but pixels.
    fn is_flat(self) -> bool {
        let window = self.windows.window;
        (window.size, window.stride, window.padding) == (1, 1, 0)
    }

    /// `[lanes, batch, height, width, channels]` to `[lanes, batch * windows, patch]`.
    fn unroll(self, gpu: Gpu<'_>, x: &Tensor) -> Result<Tensor> {
        if self.is_flat() {
            return Ok(x.clone());
        }
        let lanes = x.dim(0)?;
        let rows = gpu.empty((lanes, self.batch * self.windows.count(), self.patch))?;
        self.launch(gpu, ["unroll", "unroll4"], [x, &rows], self.windows.count() * self.patch, lanes)?;
        Ok(rows)
    }

    /// The way back, of gradients.
    fn fold(self, gpu: Gpu<'_>, rows: &Tensor) -> Result<Tensor> {
        let Windows { height, width, channels, .. } = self.windows;
        let lanes = rows.dim(0)?;
        if self.is_flat() {
            return rows.reshape((lanes, self.batch, height, width, channels));
        }
        let x = gpu.empty((lanes, self.batch, height, width, channels))?;
        self.launch(gpu, ["fold", "fold4"], [rows, &x], height * width * channels, lanes)?;
        Ok(x)
    }

    /// `numbers`: those of an image that threads write.
    fn launch(
        self,
        gpu: Gpu<'_>,
        [single, by_four]: [&str; 2],
        tensors: [&Tensor; 2],
        numbers: usize,
        lanes: usize,
    ) -> Result<()> {
        let channels = self.windows.channels;
        let (name, width) = if channels.is_multiple_of(4) { (by_four, 4) } else { (single, 1) };
        let images = lanes * self.batch;
        let grid = Grid::planes(numbers / width, images);
        let sizes = sizes(&Windows { channels: channels / width, ..self.windows }, images);
        gpu.launch((File::Windows, name), grid, &tensors, &sizes, &[])
    }
}

/// What all kernels of windows take.
pub(super) fn sizes(windows: &Windows, images: usize) -> [usize; 9] {
    let Windows { window, height, width, channels, rows, columns } = *windows;
    [height, width, channels, rows, columns, window.size, window.stride, window.padding, images]
}
