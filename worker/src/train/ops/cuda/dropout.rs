//! Dropout on an NVIDIA GPU, with the draws that the CPU makes. They are made again for the backward pass,
//! which takes less time than to read them.

use candle_core::{Result, Tensor};

use crate::train::cuda::{File, Gpu, Grid};
use crate::train::ops::Tape;
use crate::train::ops::dropout::Draw;

/// Units that one thread draws for: those of a block of the random stream.
const UNITS: usize = 32;

pub(crate) fn dropout(gpu: Gpu<'_>, x: &Tensor, lanes: &[Draw], tape: Option<&mut Tape>) -> Result<Tensor> {
    let words: Vec<u32> = lanes.iter().flat_map(words).collect();
    let words = Tensor::from_vec(words, (lanes.len(), 10), x.device())?;
    let y = apply(gpu, &x.contiguous()?, &words)?;
    if let Some(tape) = tape.filter(|tape| tape.takes_unary()) {
        tape.push(move |dy| apply(super::gpu(&dy)?, &dy.contiguous()?, &words).map(Some));
    }
    Ok(y)
}

fn apply(gpu: Gpu<'_>, x: &Tensor, words: &Tensor) -> Result<Tensor> {
    let y = gpu.empty(x.shape())?;
    let lanes = words.dim(0)?;
    let size = x.elem_count() / lanes;
    // The first 32 bits of the stream are not of a unit.
    let grid = Grid::planes((size + 2).div_ceil(UNITS), lanes);
    gpu.launch((File::Activations, "dropout"), grid, &[x, words, &y], &[size], &[])?;
    Ok(y)
}

/// What the kernel knows of a lane: the stream's key, the threshold, and the factor of what is kept.
fn words(lane: &Draw) -> Vec<u32> {
    let key = lane.stream.key();
    let mut words: Vec<u32> = key.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let (threshold, kept) = lane.threshold(&mut lane.stream.generator());
    words.extend([threshold, kept.to_bits()]);
    words
}
