//! Models: which layers follow one another. Each architecture is one small file of calls to a `Stack`.
//!
//! Names follow the order of the layers, as a PyTorch module would name them: `conv1`, `norm1`,
//! `conv2`, `norm2`, `fc1`, `norm3`, … with `.weight`, `.bias`, and for batch normalisation
//! `.running_mean`, `.running_var` and `.num_batches_tracked`. Convolutions on the shortcuts of
//! residual networks count for themselves: `shortcut1`, `shortcut2`, ….

mod alexnet;
mod cnn;
mod dnn;
mod fcn;
mod lenet;
mod memory;
mod outline;
mod residual;
mod resnet;
mod stack;
mod vgg;
mod wide_resnet;

use candle_core::{Device, Tensor};
use fittingroom_common::dataset::Shape;

use super::hyper::{GroupShape, Lane};
use super::layer::{self, Layer, Pass};
use super::ops::{Activation, Tape, Window};
use super::params::{Builder, Named, Parameter};
use super::rng::Moment;
use super::weights::{Start, WeightsError};

pub use self::outline::Outline;
pub(super) use self::stack::counter;
use self::stack::{Extent, Stack};

/// What a model is built for: grey images of one size, and classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageShape {
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

impl ImageShape {
    /// What a dataset asks of a model.
    pub fn of(shape: &Shape) -> Self {
        Self { height: shape.height, width: shape.width, classes: shape.classes }
    }
}

/// Why a model cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The images are too small for the model's layers.
    #[error(
        "images of {height}x{width} are too small for this model: its layer {layer} would leave nothing of them. Take model = fcn"
    )]
    ImagesTooSmall {
        /// Rows of an image.
        height: usize,
        /// Columns of an image.
        width: usize,
        /// The layer.
        layer: String,
    },
    /// The parameters need more memory than there is.
    #[error(
        "the model's {parameters} parameters and their gradients take {needed_mib} MiB, but {available_mib} MiB of memory are free"
    )]
    TooLarge {
        /// Of one lane.
        parameters: usize,
        /// What those of all lanes take, and their gradients.
        needed_mib: u64,
        /// What the machine, or the GPU, could give.
        available_mib: u64,
    },
    /// The weights to start from cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The channels of a layer cannot be split into groups of several numbers each.
    #[error(
        "norm_groups = {groups} cannot part the {channels} channels of {layer}, of {pixels} pixels each, into equal groups of at least 2 numbers. {}",
        advice(*nearest)
    )]
    UnfitGroups {
        /// The normalisation layer.
        layer: String,
        /// The groups asked for.
        groups: usize,
        /// Channels of what it normalises.
        channels: usize,
        /// Pixels of each.
        pixels: usize,
        /// The most groups below those asked for that would do.
        nearest: Option<usize>,
    },
    /// A channel of a single pixel deviates from its own mean by nothing.
    #[error(
        "{layer} gets channels of a single pixel, of which instance normalization leaves nothing. Take normalization = group, layer or batch"
    )]
    SinglePixels {
        /// The normalisation layer.
        layer: String,
    },
    /// The device did not do it.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

fn advice(nearest: Option<usize>) -> String {
    match nearest {
        Some(groups) => format!("Take norm_groups = {groups}, or another size of the layer"),
        None => "Take another size of the layer, or another normalization".to_owned(),
    }
}

/// A model of one or more lanes.
#[derive(Debug)]
pub struct Model {
    layers: Vec<Layer>,
    device: Device,
    /// What an optimizer changes, in the order of the layers.
    pub parameters: Vec<Parameter>,
    /// Parameters and buffers by name.
    pub named: Vec<Named>,
    /// Training steps of each lane so far, which is what PyTorch's `num_batches_tracked` counts.
    pub steps: Vec<u64>,
}

impl Model {
    /// A model with its initial weights.
    pub fn new(
        shape: &GroupShape,
        lanes: &[Lane],
        images: ImageShape,
        device: &Device,
    ) -> Result<Self, ModelError> {
        memory::check(&Outline::of(shape, images)?, lanes.len(), device)?;
        let Stack { builder, layers, .. } = Stack::of(shape, lanes, images, device)?;
        let Builder { parameters, named, .. } = builder;
        let steps = vec![0; lanes.len()];
        let model = Self { layers, device: device.clone(), parameters, named, steps };
        for (index, lane) in lanes.iter().enumerate() {
            match &lane.start {
                Start::Drawn => {}
                Start::From(weights) => weights.put_into(&model, index)?,
            }
        }
        Ok(model)
    }

    /// Where its tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The logits of a batch to train on: `[lanes, batch, classes]`; what their gradients take is
    /// left on the tape. `images`: `[1, batch, height, width, 1]`.
    pub fn train(&self, images: &Tensor, moment: Moment, tape: &mut Tape) -> candle_core::Result<Tensor> {
        layer::forward(&self.layers, images, &mut Pass::Train { moment, tape })
    }

    /// The logits of a batch to evaluate: `[lanes, batch, classes]`. `images`: `[1, batch, height, width, 1]`.
    pub fn evaluate(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        layer::forward(&self.layers, images, &mut Pass::Evaluate)
    }

    /// Whether a `state_dict` of this model has a tensor of this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.named.iter().any(|named| named.name == name)
            || self.counting_layers().any(|layer| name == counter(layer))
    }

    /// Names of the layers that count their batches: those of batch normalisation.
    pub fn counting_layers(&self) -> impl Iterator<Item = &str> {
        self.named.iter().filter_map(|named| named.name.strip_suffix(".running_mean"))
    }
}

#[cfg(test)]
mod tests;
