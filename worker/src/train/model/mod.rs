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
mod vgg;
mod wide_resnet;

use candle_core::{Device, Tensor};
use fittingroom_common::dataset::Shape;

use super::hyper::{Architecture, GroupShape, Lane, Normalization};
use super::init::Fan;
use super::layer::{self, DropoutLane, Layer, Pass};
use super::ops::{Activation, Tape, Window};
use super::params::{Builder, Named, Order, Parameter};
use super::rng::Moment;
use super::weights::{Start, WeightsError};

pub use self::outline::Outline;

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
        /// What the system could give.
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

/// The name of a layer's count of batches.
pub(super) fn counter(layer: &str) -> String {
    format!("{layer}.num_batches_tracked")
}

/// The size of one image's activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    height: usize,
    width: usize,
    channels: usize,
}

impl Extent {
    fn features(self) -> usize {
        self.height * self.width * self.channels
    }

    fn order(self) -> Order {
        match (self.height * self.width, self.channels) {
            (1, _) | (_, 1) => Order::AsInPytorch,
            (pixels, channels) => Order::ChannelsLast { pixels, channels },
        }
    }

    /// The groups of channels that a layer normalises, if it does so by groups.
    fn groups(self, normalization: Normalization, layer: &str) -> Result<Option<usize>, ModelError> {
        let (channels, pixels) = (self.channels, self.height * self.width);
        let fits = |groups: &usize| channels % groups == 0 && channels / groups * pixels > 1;
        match normalization {
            Normalization::None | Normalization::Batch | Normalization::Layer => Ok(None),
            Normalization::Instance if pixels == 1 => {
                Err(ModelError::SinglePixels { layer: layer.to_owned() })
            }
            Normalization::Instance => Ok(Some(channels)),
            Normalization::Group { groups } if fits(&groups) => Ok(Some(groups)),
            Normalization::Group { groups } => {
                let nearest = (1..groups.min(channels + 1)).rev().find(fits);
                Err(ModelError::UnfitGroups { layer: layer.to_owned(), groups, channels, pixels, nearest })
            }
        }
    }
}

/// How many layers of each kind there are so far: what the next is named by.
#[derive(Debug, Default)]
struct Numbers {
    linear: usize,
    convolution: usize,
    shortcut: usize,
    normalization: usize,
    dropout: usize,
    spatial_dropout: usize,
}

/// Layers stacked on one another, each made for what the one below gives.
struct Stack<'a> {
    builder: Builder<'a>,
    normalization: Normalization,
    layers: Vec<Layer>,
    extent: Extent,
    numbers: Numbers,
    outline: Outline,
}

impl<'a> Stack<'a> {
    /// All layers of a model.
    fn of(
        shape: &GroupShape,
        lanes: &'a [Lane],
        images: ImageShape,
        device: &'a Device,
    ) -> Result<Self, ModelError> {
        let extent = Extent { height: images.height, width: images.width, channels: 1 };
        let mut stack = Self {
            builder: Builder::new(lanes, device),
            normalization: shape.normalization,
            layers: Vec::new(),
            extent,
            numbers: Numbers::default(),
            outline: Outline::begin(extent),
        };
        match &shape.architecture {
            Architecture::Fcn { hidden } => fcn::build(&mut stack, hidden, images.classes)?,
            Architecture::Dnn { depth, width, shortcuts } => {
                dnn::build(&mut stack, *depth, *width, *shortcuts, images.classes)?;
            }
            Architecture::Cnn { channels, kernel_size, hidden } => {
                cnn::build(&mut stack, channels, *kernel_size, hidden, images.classes)?;
            }
            Architecture::LeNet => lenet::build(&mut stack, images.classes)?,
            Architecture::AlexNet { geometry, classifier_units } => {
                alexnet::build(&mut stack, *geometry, *classifier_units, images.classes)?;
            }
            Architecture::Vgg => vgg::build(&mut stack, images.classes)?,
            Architecture::ResNet { channels, blocks } => {
                resnet::build(&mut stack, channels, *blocks, images.classes)?;
            }
            Architecture::WideResNet { blocks, widen_factor } => {
                wide_resnet::build(&mut stack, *blocks, *widen_factor, images.classes)?;
            }
        }
        Ok(stack)
    }

    /// Linear, normalisation, ReLU, dropout.
    fn hidden(&mut self, units: usize) -> Result<(), ModelError> {
        self.leave_images();
        self.linear(units, self.activation_before_norm())?;
        self.norm()?;
        self.dropout();
        Ok(())
    }

    /// From here on layers are linear: there are no rows and columns left that instance normalisation
    /// could be over.
    fn leave_images(&mut self) {
        if self.normalization == Normalization::Instance {
            self.normalization = Normalization::None;
        }
    }

    /// The last layer: one logit for each class.
    fn output(&mut self, classes: usize) -> Result<(), ModelError> {
        self.linear(classes, Activation::Identity)
    }

    /// Convolution, normalisation, ReLU, spatial dropout.
    fn convolution(&mut self, channels: usize, window: Window) -> Result<(), ModelError> {
        self.bare_convolution(channels, window, self.activation_before_norm())?;
        self.norm()?;
        self.spatial_dropout();
        Ok(())
    }

    /// Convolution alone.
    fn bare_convolution(
        &mut self,
        channels: usize,
        window: Window,
        activation: Activation,
    ) -> Result<(), ModelError> {
        self.numbers.convolution += 1;
        self.named_convolution(format!("conv{}", self.numbers.convolution), channels, window, activation)
    }

    fn named_convolution(
        &mut self,
        name: String,
        channels: usize,
        window: Window,
        activation: Activation,
    ) -> Result<(), ModelError> {
        let below = self.extent;
        self.extent = Extent { channels, ..self.moved(window, &name)? };
        let pixels = window.size * window.size;
        let fan = Fan { inputs: pixels * below.channels, outputs: pixels * channels };
        let window_extent = Extent { height: window.size, width: window.size, channels: below.channels };
        let weight = self.builder.weight(
            format!("{name}.weight"),
            &[channels, window_extent.features()],
            &[channels, below.channels, window.size, window.size],
            window_extent.order(),
            fan,
        )?;
        let bias = self.builder.bias(format!("{name}.bias"), channels, fan, |lane| lane.convolution_bias)?;
        self.layers.push(Layer::Convolution { weight, bias, window, activation });
        self.outline.multiply_adds += self.extent.features() * window_extent.features();
        self.outline.reach(self.extent);
        Ok(())
    }

    fn max_pool(&mut self, window: Window) -> Result<(), ModelError> {
        self.extent = self.moved(window, "pool")?;
        self.layers.push(Layer::MaxPool(window));
        self.outline.reach(self.extent);
        Ok(())
    }

    fn moved(&self, window: Window, layer: &str) -> Result<Extent, ModelError> {
        let Extent { height, width, channels } = self.extent;
        match (window.count(height), window.count(width)) {
            (Some(height), Some(width)) => Ok(Extent { height, width, channels }),
            _ => Err(ModelError::ImagesTooSmall { height, width, layer: layer.to_owned() }),
        }
    }

    fn linear(&mut self, outputs: usize, activation: Activation) -> Result<(), ModelError> {
        self.numbers.linear += 1;
        let name = format!("fc{}", self.numbers.linear);
        let inputs = self.extent.features();
        let fan = Fan { inputs, outputs };
        let weight = self.builder.weight(
            format!("{name}.weight"),
            &[outputs, inputs],
            &[outputs, inputs],
            self.extent.order(),
            fan,
        )?;
        let bias = self.builder.bias(format!("{name}.bias"), outputs, fan, |lane| lane.linear_bias)?;
        self.extent = Extent { height: 1, width: 1, channels: outputs };
        self.layers.push(Layer::Linear { weight, bias, activation });
        self.outline.multiply_adds += inputs * outputs;
        self.outline.reach(self.extent);
        Ok(())
    }

    /// ReLU follows the normalisation, if there is one.
    fn activation_before_norm(&self) -> Activation {
        match self.normalization {
            Normalization::None => Activation::Relu,
            Normalization::Batch
            | Normalization::Layer
            | Normalization::Group { .. }
            | Normalization::Instance => Activation::Identity,
        }
    }

    fn norm(&mut self) -> Result<(), ModelError> {
        let Extent { height, width, channels } = self.extent;
        let image = [channels, height, width];
        let (shape, order) = match self.normalization {
            Normalization::None => return Ok(()),
            Normalization::Batch | Normalization::Group { .. } | Normalization::Instance => {
                (&image[..1], Order::AsInPytorch)
            }
            Normalization::Layer if height * width == 1 => (&image[..1], Order::AsInPytorch),
            Normalization::Layer => (&image[..], self.extent.order()),
        };
        self.numbers.normalization += 1;
        let name = format!("norm{}", self.numbers.normalization);
        let groups = self.extent.groups(self.normalization, &name)?;
        let weight = self.builder.constant(format!("{name}.weight"), shape, order, 1.0)?;
        let bias = self.builder.constant(format!("{name}.bias"), shape, order, 0.0)?;
        let activation = Activation::Relu;
        self.layers.push(if self.normalization == Normalization::Batch {
            let mean = self.builder.buffer(format!("{name}.running_mean"), channels, 0.0)?;
            let variance = self.builder.buffer(format!("{name}.running_var"), channels, 1.0)?;
            Layer::NormOverBatch { weight, bias, mean, variance, activation }
        } else if let Some(groups) = groups {
            Layer::NormOverGroups { weight, bias, groups, activation }
        } else {
            Layer::NormOverImage { weight, bias, activation }
        });
        Ok(())
    }

    fn dropout(&mut self) {
        self.numbers.dropout += 1;
        let number = self.numbers.dropout;
        let lanes = self.dropout_lanes(|lane| lane.dropout);
        self.layers.extend(lanes.map(|lanes| Layer::Dropout { number, lanes }));
    }

    fn spatial_dropout(&mut self) {
        self.numbers.spatial_dropout += 1;
        let number = self.numbers.spatial_dropout;
        let lanes = self.dropout_lanes(|lane| lane.spatial_dropout);
        self.layers.extend(lanes.map(|lanes| Layer::SpatialDropout { number, lanes }));
    }

    /// What dropout needs to know of each lane; `None` where none drops anything.
    fn dropout_lanes(&self, probability: impl Fn(&Lane) -> f64) -> Option<Vec<DropoutLane>> {
        let of_lane = |lane: &Lane| DropoutLane { probability: probability(lane), seed: lane.seed };
        let lanes: Vec<DropoutLane> = self.builder.lanes.iter().map(of_lane).collect();
        lanes.iter().any(|lane| lane.probability > 0.0).then_some(lanes)
    }
}

#[cfg(test)]
mod tests;
