//! What a model is, in numbers that its layers give as they are made.

use candle_core::Device;

use super::super::hyper::GroupShape;
use super::super::params::Kind;
use super::{Extent, ImageShape, ModelError, Stack};

/// The shapes, parameters and multiply-adds of one lane of a model.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Outline {
    /// The shapes that an image goes through: `[height, width, channels]`, or `[features]`. Layers
    /// that leave the shape as it is are not shown, and no shortcuts.
    pub shapes: Vec<Vec<usize>>,
    /// Numbers that an optimizer changes.
    pub parameters: usize,
    /// Multiplications of weights and activations, each with its addition, for one image forward.
    /// Normalisation, pooling and interpolation are not counted.
    pub multiply_adds: usize,
}

impl Outline {
    /// The outline of the model that [`super::Model::new`] would make. Nothing is drawn and next to
    /// no memory taken, however large the model is.
    pub fn of(shape: &GroupShape, images: ImageShape) -> Result<Self, ModelError> {
        // A model of no lanes has all layers, but no weights in them.
        let Stack { builder, mut outline, .. } = Stack::of(shape, &[], images, &Device::Cpu)?;
        let parameters = builder.named.iter().filter(|named| named.kind == Kind::Parameter);
        outline.parameters = parameters.map(|named| named.shape.iter().product::<usize>()).sum();
        Ok(outline)
    }

    /// Before the first layer.
    pub(super) fn begin(images: Extent) -> Self {
        Self { shapes: vec![images.shape()], parameters: 0, multiply_adds: 0 }
    }

    /// An image has become this.
    pub(super) fn reach(&mut self, extent: Extent) {
        let shape = extent.shape();
        if self.shapes.last() != Some(&shape) {
            self.shapes.push(shape);
        }
    }
}

impl Extent {
    fn shape(self) -> Vec<usize> {
        match (self.height, self.width) {
            (1, 1) => vec![self.channels],
            (height, width) => vec![height, width, self.channels],
        }
    }
}
