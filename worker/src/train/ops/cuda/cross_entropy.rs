//! The loss on an NVIDIA GPU.

use candle_core::{Result, Tensor};

use crate::train::cuda::{File, Gpu, Grid};
use crate::train::ops::Tape;
use crate::train::ops::cross_entropy::Mixed;

pub(crate) fn cross_entropy(
    gpu: Gpu<'_>,
    logits: &Tensor,
    labels: &[u8],
    mixed: Option<&Mixed>,
    smoothing: &[f64],
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    let logits = logits.contiguous()?;
    let (lanes, batch, classes) = logits.dims3()?;
    let device = logits.device();
    let labels = Tensor::new(labels, device)?;
    let (others, share) = match mixed {
        Some(mixed) => (Tensor::new(&*mixed.other, device)?, mixed.share as f32),
        None => (labels.clone(), 0.0),
    };
    let smoothing: Vec<f32> = smoothing.iter().map(|smoothing| *smoothing as f32).collect();
    let smoothing = Tensor::new(smoothing, device)?;
    let losses = gpu.empty(lanes)?;
    let tensors = [&logits, &labels, &others, &smoothing, &losses];
    gpu.launch(
        (File::Activations, "cross_entropy"),
        Grid::blocks(lanes),
        &tensors,
        &[batch, classes],
        &[share],
    )?;
    if let Some(tape) = tape.filter(|tape| tape.takes_unary()) {
        tape.push(move |dlosses| {
            let gpu = super::gpu(&dlosses)?;
            let dlogits = gpu.empty(logits.shape())?;
            let rows = lanes * batch;
            let tensors = [&logits, &labels, &others, &smoothing, &dlosses, &dlogits];
            let sizes = [batch, classes, rows];
            gpu.launch(
                (File::Activations, "cross_entropy_gradient"),
                Grid::over(rows),
                &tensors,
                &sizes,
                &[share],
            )?;
            Ok(Some(dlogits))
        });
    }
    Ok(losses)
}

/// Adds a batch's losses and right predictions to the sums of each lane, which are f64.
pub(crate) fn tally(
    gpu: Gpu<'_>,
    losses: &Tensor,
    logits: &Tensor,
    labels: &[u8],
    [loss_sums, right]: [&Tensor; 2],
) -> Result<()> {
    let (lanes, batch, classes) = logits.dims3()?;
    let labels = Tensor::new(labels, logits.device())?;
    let tensors = [losses, logits, &labels, loss_sums, right];
    gpu.launch((File::Activations, "tally"), Grid::blocks(lanes), &tensors, &[batch, classes], &[])
}
