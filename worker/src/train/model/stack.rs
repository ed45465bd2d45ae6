//! Layers stacked on one another, with names, shapes and initial weights: what every model is built with.

use candle_core::Device;

use super::super::hyper::{Architecture, GroupShape, Lane, Normalization};
use super::super::init::Fan;
use super::super::layer::{DropoutLane, Layer};
use super::super::ops::{Activation, Window};
use super::super::params::{Builder, Order};
use super::{ImageShape, ModelError, Outline, alexnet, cnn, dnn, fcn, lenet, resnet, vgg, wide_resnet};

/// The name of a layer's count of batches.
pub(in crate::train) fn counter(layer: &str) -> String {
    format!("{layer}.num_batches_tracked")
}

/// The size of one image's activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Extent {
    pub(super) fn features(self) -> usize {
        self.height * self.width * self.channels
    }

    pub(super) fn order(self) -> Order {
        match (self.height * self.width, self.channels) {
            (1, _) | (_, 1) => Order::AsInPytorch,
            (pixels, channels) => Order::ChannelsLast { pixels, channels },
        }
    }

    /// The groups of channels that a layer normalises, if it does so by groups.
    pub(super) fn groups(
        self,
        normalization: Normalization,
        layer: &str,
    ) -> Result<Option<usize>, ModelError> {
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
pub(super) struct Numbers {
    pub(super) linear: usize,
    pub(super) convolution: usize,
    pub(super) shortcut: usize,
    pub(super) normalization: usize,
    pub(super) dropout: usize,
    pub(super) spatial_dropout: usize,
}

/// Layers stacked on one another, each made for what the one below gives.
pub(super) struct Stack<'a> {
    pub(super) builder: Builder<'a>,
    pub(super) normalization: Normalization,
    pub(super) layers: Vec<Layer>,
    pub(super) extent: Extent,
    pub(super) numbers: Numbers,
    pub(super) outline: Outline,
}

impl<'a> Stack<'a> {
    /// All layers of a model.
    pub(super) fn of(
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
    pub(super) fn hidden(&mut self, units: usize) -> Result<(), ModelError> {
        self.leave_images();
        self.linear(units, self.activation_before_norm())?;
        self.norm()?;
        self.dropout();
        Ok(())
    }

    /// From here on layers are linear: there are no rows and columns left that instance normalisation
    /// could be over.
    pub(super) fn leave_images(&mut self) {
        if self.normalization == Normalization::Instance {
            self.normalization = Normalization::None;
        }
    }

    /// The last layer: one logit for each class.
    pub(super) fn output(&mut self, classes: usize) -> Result<(), ModelError> {
        self.linear(classes, Activation::Identity)
    }

    /// Convolution, normalisation, ReLU, spatial dropout.
    pub(super) fn convolution(&mut self, channels: usize, window: Window) -> Result<(), ModelError> {
        self.bare_convolution(channels, window, self.activation_before_norm())?;
        self.norm()?;
        self.spatial_dropout();
        Ok(())
    }

    /// Convolution alone.
    pub(super) fn bare_convolution(
        &mut self,
        channels: usize,
        window: Window,
        activation: Activation,
    ) -> Result<(), ModelError> {
        self.numbers.convolution += 1;
        self.named_convolution(format!("conv{}", self.numbers.convolution), channels, window, activation)
    }

    pub(super) fn named_convolution(
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

    pub(super) fn max_pool(&mut self, window: Window) -> Result<(), ModelError> {
        self.extent = self.moved(window, "pool")?;
        self.layers.push(Layer::MaxPool(window));
        self.outline.reach(self.extent);
        Ok(())
    }

    pub(super) fn moved(&self, window: Window, layer: &str) -> Result<Extent, ModelError> {
        let Extent { height, width, channels } = self.extent;
        match (window.count(height), window.count(width)) {
            (Some(height), Some(width)) => Ok(Extent { height, width, channels }),
            _ => Err(ModelError::ImagesTooSmall { height, width, layer: layer.to_owned() }),
        }
    }

    pub(super) fn linear(&mut self, outputs: usize, activation: Activation) -> Result<(), ModelError> {
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
    pub(super) fn activation_before_norm(&self) -> Activation {
        match self.normalization {
            Normalization::None => Activation::Relu,
            Normalization::Batch
            | Normalization::Layer
            | Normalization::Group { .. }
            | Normalization::Instance => Activation::Identity,
        }
    }

    pub(super) fn norm(&mut self) -> Result<(), ModelError> {
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

    pub(super) fn dropout(&mut self) {
        self.numbers.dropout += 1;
        let number = self.numbers.dropout;
        let lanes = self.dropout_lanes(|lane| lane.dropout);
        self.layers.extend(lanes.map(|lanes| Layer::Dropout { number, lanes }));
    }

    pub(super) fn spatial_dropout(&mut self) {
        self.numbers.spatial_dropout += 1;
        let number = self.numbers.spatial_dropout;
        let lanes = self.dropout_lanes(|lane| lane.spatial_dropout);
        self.layers.extend(lanes.map(|lanes| Layer::SpatialDropout { number, lanes }));
    }

    /// What dropout needs to know of each lane; `None` where none drops anything.
    pub(super) fn dropout_lanes(&self, probability: impl Fn(&Lane) -> f64) -> Option<Vec<DropoutLane>> {
        let of_lane = |lane: &Lane| DropoutLane { probability: probability(lane), seed: lane.seed };
        let lanes: Vec<DropoutLane> = self.builder.lanes.iter().map(of_lane).collect();
        lanes.iter().any(|lane| lane.probability > 0.0).then_some(lanes)
    }
}
