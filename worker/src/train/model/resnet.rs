//! A small pre-activation residual network, of the blocks that [`super::residual`] describes: a
//! convolution 3x3, then a stage of `blocks` blocks for each of `channels`, the image halved between
//! stages; then each channel's mean, dropout and linear to the classes.
//!
//! For 28x28 images, channels 32, 64 and 128 and two blocks, the maps are 28x28x32, 14x14x64 and
//! 7x7x128, and 128 features are left. Parameters without normalisation for 10 classes: 320 for the first
//! convolution, 2·18,496 + (57,536 + 73,856) + (229,760 + 295,168) for the blocks and 1,290 for the
//! last layer, in all 694,922. Multiply-adds: 80,508,672.

use super::residual::{Between, stages};
use super::{ModelError, Stack};

pub(super) fn build(
    stack: &mut Stack<'_>,
    channels: &[usize],
    blocks: usize,
    classes: usize,
) -> Result<(), ModelError> {
    // There always is a first stage: the catalogue takes no empty list.
    if let [first, ..] = channels {
        stages(stack, *first, channels, blocks, Between::PreActivation)?;
    }
    stack.dropout();
    stack.output(classes)
}
