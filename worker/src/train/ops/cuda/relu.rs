//! ReLU on an NVIDIA GPU.

use candle_core::{Result, Tensor};

use crate::train::cuda::{File, Gpu, Grid};
use crate::train::ops::Tape;

pub(crate) fn relu(gpu: Gpu<'_>, x: &Tensor, tape: Option<&mut Tape>) -> Result<Tensor> {
    let x = x.contiguous()?;
    let count = x.elem_count();
    let y = gpu.empty(x.shape())?;
    gpu.launch((File::Activations, "relu"), Grid::over(count), &[&x, &y], &[count], &[])?;
    if let Some(tape) = tape.filter(|tape| tape.takes_unary()) {
        let y = y.clone();
        tape.push(move |dy| {
            let gpu = super::gpu(&dy)?;
            let dx = gpu.empty(y.shape())?;
            gpu.launch(
                (File::Activations, "relu_gradient"),
                Grid::over(count),
                &[&y, &dy, &dx],
                &[count],
                &[],
            )?;
            Ok(Some(dx))
        });
    }
    Ok(y)
}
