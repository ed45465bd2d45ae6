//! Pooling on an NVIDIA GPU.

use candle_core::{Result, Tensor};

use super::convolution::sizes;
use crate::train::cuda::{File, Gpu, Grid};
use crate::train::ops::Tape;
use crate::train::ops::window::Windows;

pub(crate) fn max_pool(
    gpu: Gpu<'_>,
    x: &Tensor,
    windows: Windows,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let Windows { rows, columns, .. } = windows;
    let shape = (lanes, batch, rows, columns, channels);
    let (y, winners) = (gpu.empty(shape)?, gpu.empty_bytes(shape)?);
    let images = lanes * batch;
    let grid = Grid::planes(rows * columns * channels, images);
    let sizes = sizes(&windows, images);
    gpu.launch((File::Windows, "max_pool"), grid, &[&x, &y, &winners], &sizes, &[])?;
    if let Some(tape) = tape.filter(|tape| tape.takes_unary()) {
        tape.push(move |dy| {
            let gpu = super::gpu(&dy)?;
            let dx = gpu.empty((lanes, batch, height, width, channels))?;
            let grid = Grid::planes(height * width * channels, images);
            let tensors = [&dy.contiguous()?, &winners, &dx];
            gpu.launch((File::Windows, "max_pool_gradient"), grid, &tensors, &sizes, &[])?;
            Ok(Some(dx))
        });
    }
    Ok(y)
}
