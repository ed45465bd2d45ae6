//! AlexNet, after Krizhevsky, Sutskever and Hinton (2012): five convolutions, each with normalisation
//! and ReLU, and overlapping pooling 3x3 with stride 2 after the first, the second and the fifth; then
//! twice fully connected with normalisation, ReLU and dropout (0.5 in the paper), then the classes.
//!
//! *Adapted* to small images, all convolutions are 3x3 with stride 1, to 64, 192, 384, 256 and 256
//! channels. For 28x28 images the maps are 28x28x64, 13x13x64, 13x13x192, 6x6x192, 6x6x384, 6x6x256,
//! 2x2x256 = 1,024 features. Parameters with 4,096 units, without normalisation, for 10 classes: 640 + 110,784 +
//! 663,936 + 884,992 + 590,080 + 4,198,400 + 16,781,312 + 40,970 = 23,271,114. Multiply-adds: 117,126,144.
//!
//! The *original* geometry takes 227x227, to which images are interpolated: convolutions 11x11 with
//! stride 4 to 96, 5x5 to 256, and 3x3 to 384, 384 and 256 channels, with local response
//! normalisation after the first two. The maps are 55x55x96, 27x27x96, 27x27x256, 13x13x256,
//! 13x13x384, 13x13x256, 6x6x256 = 9,216 features. The paper's halves of layers, one for each of its GPUs, are
//! whole here. Parameters as above: 11,712 + 614,656 + 885,120 + 1,327,488 + 884,992 + 37,752,832 +
//! 16,781,312 + 40,970 = 58,299,082. Multiply-adds: 1,060,924,256.

use super::super::hyper::AlexNetGeometry;
use super::residual::convolution_3x3;
use super::{Extent, Layer, ModelError, Stack, Window};

const POOL: Window = Window { size: 3, stride: 2, padding: 0 };
const ORIGINAL_SIDE: usize = 227;

pub(super) fn build(
    stack: &mut Stack<'_>,
    geometry: AlexNetGeometry,
    classifier_units: usize,
    classes: usize,
) -> Result<(), ModelError> {
    let last_channels = match geometry {
        AlexNetGeometry::Adapted => {
            stack.convolution(64, convolution_3x3(1))?;
            stack.max_pool(POOL)?;
            stack.convolution(192, convolution_3x3(1))?;
            [384, 256, 256]
        }
        AlexNetGeometry::Original => {
            stack.upsample(ORIGINAL_SIDE, ORIGINAL_SIDE);
            stack.convolution(96, Window { size: 11, stride: 4, padding: 0 })?;
            stack.layers.push(Layer::ResponseNorm);
            stack.max_pool(POOL)?;
            stack.convolution(256, Window { size: 5, stride: 1, padding: 2 })?;
            stack.layers.push(Layer::ResponseNorm);
            [384, 384, 256]
        }
    };
    stack.max_pool(POOL)?;
    for channels in last_channels {
        stack.convolution(channels, convolution_3x3(1))?;
    }
    stack.max_pool(POOL)?;
    for _ in 0..2 {
        stack.hidden(classifier_units)?;
    }
    stack.output(classes)
}

impl Stack<'_> {
    /// Interpolates images to this size.
    fn upsample(&mut self, height: usize, width: usize) {
        self.extent = Extent { height, width, ..self.extent };
        self.layers.push(Layer::Upsample { height, width });
        self.outline.reach(self.extent);
    }
}
