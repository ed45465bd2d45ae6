//! A wide residual network, after Zagoruyko and Komodakis (2016): a convolution 3x3 to 16 channels,
//! then three stages of `blocks` blocks, as [`super::residual`] describes them, with 16, 32 and 64
//! times `widen_factor` channels and dropout between the convolutions of a block; then each
//! channel's mean and linear to the classes. This is their WRN-d-k with depth d = 6 · `blocks` + 4 and
//! k = `widen_factor`.
//!
//! For 28x28 images, two blocks and widening 2 (WRN-16-2) the maps are 28x28x16, 28x28x32, 14x14x64 and
//! 7x7x128, and 128 features are left. Parameters without normalisation for 10 classes: 160 for the first
//! convolution, (14,432 + 18,496) + (57,536 + 73,856) + (229,760 + 295,168) for the blocks and 1,290
//! for the last layer, in all 690,698. Multiply-adds: 77,184,512.

use super::residual::{Between, stages};
use super::{ModelError, Stack};

pub(super) fn build(
    stack: &mut Stack<'_>,
    blocks: usize,
    widen_factor: usize,
    classes: usize,
) -> Result<(), ModelError> {
    let channels = [16, 32, 64].map(|channels| channels * widen_factor);
    stages(stack, 16, &channels, blocks, Between::PreActivationAndDropout)?;
    stack.output(classes)
}
