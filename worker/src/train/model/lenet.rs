//! A small convolutional network after LeCun et al. (1998), wider, with ReLU and max pooling:
//! twice convolution 5x5, normalisation, ReLU, pooling 2x2 (32 and 64 channels), then fully
//! connected 256 and 128, with normalisation, ReLU and dropout, then the classes.
//!
//! For 28x28 images the maps are 28x28x32, 14x14x32, 14x14x64, 7x7x64 = 3,136 features. Parameters
//! without normalisation for 10 classes: 832 + 51,264 + 803,072 + 32,896 + 1,290 = 889,354.

use super::{ModelError, Stack, Window};

const CONVOLUTION: Window = Window {
    size: 5,
    stride: 1,
    padding: 2,
};
const POOL: Window = Window {
    size: 2,
    stride: 2,
    padding: 0,
};

pub(super) fn build(stack: &mut Stack<'_>, classes: usize) -> Result<(), ModelError> {
    for channels in [32, 64] {
        stack.convolution(channels, CONVOLUTION)?;
        stack.max_pool(POOL)?;
    }
    for units in [256, 128] {
        stack.hidden(units)?;
    }
    stack.output(classes)
}
