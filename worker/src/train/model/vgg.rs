//! A small VGG, after Simonyan and Zisserman (2015): three stages of two convolutions 3x3 to 64, 128
//! and 256 channels, each with normalisation and ReLU, and pooling 2x2 after each stage; then fully
//! connected 512, with normalisation, ReLU and dropout, then the classes.
//!
//! Images that are too small to be pooled again stay as they are.
//!
//! For 28x28 images the maps are 28x28x64, 14x14x64, 14x14x128, 7x7x128, 7x7x256, 3x3x256 = 2,304
//! features. Parameters without normalisation for 10 classes: 640 + 36,928 + 73,856 + 147,584 +
//! 295,168 + 590,080 + 1,180,160 + 5,130 = 2,329,546. Multiply-adds: 117,241,856.

use super::residual::convolution_3x3;
use super::{ModelError, Stack, Window};

const POOL: Window = Window { size: 2, stride: 2, padding: 0 };

pub(super) fn build(stack: &mut Stack<'_>, classes: usize) -> Result<(), ModelError> {
    for channels in [64, 128, 256] {
        for _ in 0..2 {
            stack.convolution(channels, convolution_3x3(1))?;
        }
        if POOL.count(stack.extent.height.min(stack.extent.width)).is_some() {
            stack.max_pool(POOL)?;
        }
    }
    stack.hidden(512)?;
    stack.output(classes)
}
