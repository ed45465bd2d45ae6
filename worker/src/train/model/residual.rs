//! Pre-activation residual networks, after He et al. (2016), "Identity Mappings in Deep Residual
//! Networks": normalisation and ReLU come before each convolution, and nothing on the way of the
//! identity.
//!
//! A block is normalisation, ReLU, convolution 3x3, normalisation, ReLU, convolution 3x3, added to
//! its input. Where it changes the shape, the shortcut is a convolution 1x1 of the input after the
//! first normalisation and ReLU, which both paths then share. Without normalisation, ReLU is left.

use std::mem;

use super::{Activation, Extent, Layer, ModelError, Stack, Window};

/// Keeps the size of an image, or halves it with stride 2.
pub(super) const fn convolution_3x3(stride: usize) -> Window {
    Window { size: 3, stride, padding: 1 }
}

/// What a block does between its convolutions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Between {
    /// Normalisation and ReLU.
    PreActivation,
    /// Those, then dropout.
    PreActivationAndDropout,
}

/// A convolution, then stages of `blocks` blocks each with these channels, the image halved from
/// each stage to the next; then normalisation, ReLU, and each channel's mean.
pub(super) fn stages(
    stack: &mut Stack<'_>,
    first: usize,
    channels: &[usize],
    blocks: usize,
    between: Between,
) -> Result<(), ModelError> {
    stack.bare_convolution(first, convolution_3x3(1), Activation::Identity)?;
    for (stage, &channels) in channels.iter().enumerate() {
        for number in 0..blocks {
            let stride = if stage > 0 && number == 0 { 2 } else { 1 };
            block(stack, channels, stride, between)?;
        }
    }
    stack.pre_activation()?;
    stack.average_pool();
    Ok(())
}

fn block(stack: &mut Stack<'_>, channels: usize, stride: usize, between: Between) -> Result<(), ModelError> {
    let convolutions = |body: &mut Stack<'_>| {
        body.bare_convolution(channels, convolution_3x3(stride), Activation::Identity)?;
        body.pre_activation()?;
        match between {
            Between::PreActivation => {}
            Between::PreActivationAndDropout => body.dropout(),
        }
        body.bare_convolution(channels, convolution_3x3(1), Activation::Identity)
    };
    if stride == 1 && stack.extent.channels == channels {
        return stack.residual(
            |body| {
                body.pre_activation()?;
                convolutions(body)
            },
            |_| Ok(()),
        );
    }
    stack.pre_activation()?;
    stack.residual(convolutions, |shortcut| shortcut.projection(channels, stride))
}

impl Stack<'_> {
    /// Normalisation and ReLU, for the layer that follows rather than for the one before.
    pub(super) fn pre_activation(&mut self) -> Result<(), ModelError> {
        match self.activation_before_norm() {
            Activation::Identity => self.norm(),
            Activation::Relu => {
                self.relu();
                Ok(())
            }
        }
    }

    /// Adds what `shortcut` makes of the activations to what `body` makes of them: both must give
    /// the same shape.
    pub(super) fn residual(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), ModelError>,
        shortcut: impl FnOnce(&mut Self) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let extent = self.extent;
        let below = mem::take(&mut self.layers);
        body(self)?;
        let body = mem::take(&mut self.layers);
        let shapes = self.outline.shapes.len();
        self.extent = extent;
        shortcut(self)?;
        self.outline.shapes.truncate(shapes);
        let shortcut = mem::replace(&mut self.layers, below);
        self.layers.push(Layer::Residual { body, shortcut });
        Ok(())
    }

    /// ReLU: with the layer before if that is a product of weights, else by itself.
    fn relu(&mut self) {
        match self.layers.last_mut() {
            Some(Layer::Linear { activation, .. } | Layer::Convolution { activation, .. }) => {
                *activation = Activation::Relu;
            }
            _ => self.layers.push(Layer::Relu),
        }
    }

    /// A convolution 1x1, for a shortcut to the shape of its body.
    fn projection(&mut self, channels: usize, stride: usize) -> Result<(), ModelError> {
        self.numbers.shortcut += 1;
        let name = format!("shortcut{}", self.numbers.shortcut);
        let window = Window { size: 1, stride, padding: 0 };
        self.named_convolution(name, channels, window, Activation::Identity)
    }

    /// The mean of each channel over the image.
    fn average_pool(&mut self) {
        self.extent = Extent { height: 1, width: 1, ..self.extent };
        self.layers.push(Layer::AveragePool);
        self.outline.reach(self.extent);
    }
}
