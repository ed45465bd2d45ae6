//! A convolutional network to search over: for each of `channels` convolution, normalisation, ReLU and
//! pooling 2x2; then for each hidden size linear, normalisation, ReLU and dropout; then the classes.
//!
//! Convolutions of odd windows keep the size of their images. For 28x28 images, channels 32 and 64,
//! windows 3x3 and one hidden layer of 128, the maps are 28x28x32, 14x14x32, 14x14x64, 7x7x64 = 3,136
//! features. Parameters without normalisation for 10 classes: 320 + 18,496 + 401,536 + 1,290 = 421,642.
//! Multiply-adds: 4,241,152.

use super::{ModelError, Stack, Window};

const POOL: Window = Window { size: 2, stride: 2, padding: 0 };

pub(super) fn build(
    stack: &mut Stack<'_>,
    channels: &[usize],
    kernel_size: usize,
    hidden: &[usize],
    classes: usize,
) -> Result<(), ModelError> {
    let window = Window { size: kernel_size, stride: 1, padding: (kernel_size - 1) / 2 };
    for &channels in channels {
        stack.convolution(channels, window)?;
        stack.max_pool(POOL)?;
    }
    for &units in hidden {
        stack.hidden(units)?;
    }
    stack.output(classes)
}
