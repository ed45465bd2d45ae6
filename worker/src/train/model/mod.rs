//! Models: which layers follow one another. Each architecture is one small file of calls to a `Stack`.
//!
//! Names follow the order of the layers, as a PyTorch module would name them: `conv1`, `norm1`,
//! `conv2`, `norm2`, `fc1`, `norm3`, … with `.weight`, `.bias`, and for batch normalisation
//! `.running_mean`, `.running_var` and `.num_batches_tracked`. Convolutions on the shortcuts of
//! residual networks count for themselves: `shortcut1`, `shortcut2`, ….

mod alexnet;
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
use super::layer::{self, DropoutLane, Layer, Mode};
use super::ops::{Activation, Window};
use super::params::{Builder, Named, Order, Parameter};
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

    /// The logits of a batch: `[lanes, batch, classes]`. `images`: `[1, batch, height, width, 1]`.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        layer::forward(&self.layers, images, mode)
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
mod tests {
    use super::*;
    use crate::train::ops::cross_entropy::cross_entropy;
    use crate::train::ops::testing::flat;
    use crate::train::params::{Kind, Role};
    use crate::train::rng::Moment;
    use crate::train::testing::group;
    use fittingroom_common::hyperparameter::{Domain, Parameter};
    use fittingroom_common::trial::Seeds;

    const IMAGES: ImageShape = ImageShape { height: 28, width: 28, classes: 10 };

    fn model(settings: &[(&str, &str)], images: ImageShape) -> Result<Model, ModelError> {
        let group = group(&[(settings, Seeds::from_one(3))]);
        Model::new(&group.shape, &group.lanes, images, &Device::Cpu)
    }

    #[test]
    fn tensors_have_pytorchs_names_and_shapes() {
        for (name, settings, expected) in [
            (
                "fcn",
                &[("hidden_sizes", "300,200"), ("normalization", "batch")][..],
                "fc1.weight[300, 784] fc1.bias[300] norm1.weight[300] norm1.bias[300] norm1.running_mean[300] \
                 norm1.running_var[300] fc2.weight[200, 300] fc2.bias[200] norm2.weight[200] norm2.bias[200] \
                 norm2.running_mean[200] norm2.running_var[200] fc3.weight[10, 200] fc3.bias[10]",
            ),
            (
                "lenet",
                &[("model", "lenet"), ("normalization", "layer")][..],
                "conv1.weight[32, 1, 5, 5] conv1.bias[32] norm1.weight[32, 28, 28] norm1.bias[32, 28, 28] \
                 conv2.weight[64, 32, 5, 5] conv2.bias[64] norm2.weight[64, 14, 14] norm2.bias[64, 14, 14] \
                 fc1.weight[256, 3136] fc1.bias[256] norm3.weight[256] norm3.bias[256] \
                 fc2.weight[128, 256] fc2.bias[128] norm4.weight[128] norm4.bias[128] fc3.weight[10, 128] fc3.bias[10]",
            ),
            (
                "dnn",
                &[("model", "dnn"), ("depth", "2"), ("width", "64")],
                "fc1.weight[64, 784] fc1.bias[64] fc2.weight[64, 64] fc2.bias[64] fc3.weight[10, 64] fc3.bias[10]",
            ),
            (
                "dnn with shortcuts",
                &[
                    ("model", "dnn"),
                    ("depth", "2"),
                    ("width", "64"),
                    ("residual", "true"),
                    ("normalization", "layer"),
                ],
                "fc1.weight[64, 784] fc1.bias[64] norm1.weight[64] norm1.bias[64] \
                 fc2.weight[64, 64] fc2.bias[64] norm2.weight[64] norm2.bias[64] fc3.weight[10, 64] fc3.bias[10]",
            ),
            (
                "alexnet",
                &[("model", "alexnet"), ("classifier_units", "32")],
                "conv1.weight[64, 1, 3, 3] conv1.bias[64] conv2.weight[192, 64, 3, 3] conv2.bias[192] \
                 conv3.weight[384, 192, 3, 3] conv3.bias[384] conv4.weight[256, 384, 3, 3] conv4.bias[256] \
                 conv5.weight[256, 256, 3, 3] conv5.bias[256] fc1.weight[32, 1024] fc1.bias[32] \
                 fc2.weight[32, 32] fc2.bias[32] fc3.weight[10, 32] fc3.bias[10]",
            ),
            (
                "the original alexnet",
                &[("model", "alexnet"), ("alexnet_geometry", "original"), ("classifier_units", "32")],
                "conv1.weight[96, 1, 11, 11] conv1.bias[96] conv2.weight[256, 96, 5, 5] conv2.bias[256] \
                 conv3.weight[384, 256, 3, 3] conv3.bias[384] conv4.weight[384, 384, 3, 3] conv4.bias[384] \
                 conv5.weight[256, 384, 3, 3] conv5.bias[256] fc1.weight[32, 9216] fc1.bias[32] \
                 fc2.weight[32, 32] fc2.bias[32] fc3.weight[10, 32] fc3.bias[10]",
            ),
            (
                "vgg",
                &[("model", "vgg")],
                "conv1.weight[64, 1, 3, 3] conv1.bias[64] conv2.weight[64, 64, 3, 3] conv2.bias[64] \
                 conv3.weight[128, 64, 3, 3] conv3.bias[128] conv4.weight[128, 128, 3, 3] conv4.bias[128] \
                 conv5.weight[256, 128, 3, 3] conv5.bias[256] conv6.weight[256, 256, 3, 3] conv6.bias[256] \
                 fc1.weight[512, 2304] fc1.bias[512] fc2.weight[10, 512] fc2.bias[10]",
            ),
            (
                "resnet",
                &[("model", "resnet"), ("channels", "4,6"), ("blocks", "1"), ("normalization", "layer")],
                "conv1.weight[4, 1, 3, 3] conv1.bias[4] norm1.weight[4, 28, 28] norm1.bias[4, 28, 28] \
                 conv2.weight[4, 4, 3, 3] conv2.bias[4] norm2.weight[4, 28, 28] norm2.bias[4, 28, 28] \
                 conv3.weight[4, 4, 3, 3] conv3.bias[4] norm3.weight[4, 28, 28] norm3.bias[4, 28, 28] \
                 conv4.weight[6, 4, 3, 3] conv4.bias[6] norm4.weight[6, 14, 14] norm4.bias[6, 14, 14] \
                 conv5.weight[6, 6, 3, 3] conv5.bias[6] shortcut1.weight[6, 4, 1, 1] shortcut1.bias[6] \
                 norm5.weight[6, 14, 14] norm5.bias[6, 14, 14] fc1.weight[10, 6] fc1.bias[10]",
            ),
            (
                "wide_resnet",
                &[("model", "wide_resnet"), ("widen_factor", "1"), ("blocks", "1")],
                "conv1.weight[16, 1, 3, 3] conv1.bias[16] \
                 conv2.weight[16, 16, 3, 3] conv2.bias[16] conv3.weight[16, 16, 3, 3] conv3.bias[16] \
                 conv4.weight[32, 16, 3, 3] conv4.bias[32] conv5.weight[32, 32, 3, 3] conv5.bias[32] \
                 shortcut1.weight[32, 16, 1, 1] shortcut1.bias[32] \
                 conv6.weight[64, 32, 3, 3] conv6.bias[64] conv7.weight[64, 64, 3, 3] conv7.bias[64] \
                 shortcut2.weight[64, 32, 1, 1] shortcut2.bias[64] fc1.weight[10, 64] fc1.bias[10]",
            ),
        ] {
            let model = model(settings, IMAGES).expect("fits");
            let named: Vec<String> =
                model.named.iter().map(|named| format!("{}{:?}", named.name, named.shape)).collect();
            assert_eq!(named.join(" "), expected, "{name}");
        }
    }

    #[test]
    fn weights_of_linear_and_convolution_layers_alone_are_weights_to_regularisation() {
        for architecture in ["fcn", "lenet"] {
            for normalization in ["none", "batch", "layer"] {
                let settings = &[("model", architecture), ("normalization", normalization)];
                let model = model(settings, IMAGES).expect("fits");
                let named = model.named.iter().filter(|named| named.kind == Kind::Parameter);
                for (parameter, named) in model.parameters.iter().zip(named) {
                    let is_weight = named.name.ends_with(".weight") && !named.name.contains("norm");
                    let expected = if is_weight { Role::Weight } else { Role::BiasOrNorm };
                    assert_eq!(parameter.role(), expected, "{architecture} {normalization} {}", named.name);
                }
            }
        }
    }

    #[test]
    fn normalisations_by_groups_name_their_tensors_as_pytorch_does() {
        for (normalization, expected) in [
            (
                "group",
                "norm1.weight[32] norm1.bias[32] norm2.weight[64] norm2.bias[64] norm3.weight[256] norm3.bias[256] \
                 norm4.weight[128] norm4.bias[128]",
            ),
            // None after linear layers.
            ("instance", "norm1.weight[32] norm1.bias[32] norm2.weight[64] norm2.bias[64]"),
        ] {
            let model = model(&[("model", "lenet"), ("normalization", normalization)], IMAGES).expect("fits");
            let norms = model.named.iter().filter(|named| named.name.starts_with("norm"));
            let norms: Vec<String> = norms.map(|named| format!("{}{:?}", named.name, named.shape)).collect();
            assert_eq!(norms.join(" "), expected, "{normalization}");
        }
    }

    #[test]
    fn groups_that_do_not_fit_are_refused_with_advice() {
        for (name, settings, said) in [
            (
                "not a divisor",
                &[("model", "lenet"), ("norm_groups", "7")][..],
                "= 7 cannot part the 32 channels of norm1, of 784 pixels each, into equal groups of at least 2 numbers. Take norm_groups = 4",
            ),
            ("more than channels", &[("model", "lenet"), ("norm_groups", "64")], "norm_groups = 32,"),
            (
                "a later layer",
                &[("hidden_sizes", "16,9")],
                "the 9 channels of norm2, of 1 pixels each, into equal groups of at least 2 numbers. Take norm_groups = 3,",
            ),
            ("single numbers", &[("hidden_sizes", "8")], "norm_groups = 4,"),
            ("a single unit", &[("hidden_sizes", "1")], "or another normalization"),
        ] {
            let built = model(&[&[("normalization", "group")], settings].concat(), IMAGES);
            let message = built.map(|_| ()).expect_err(name).to_string();
            assert!(message.contains(said), "{name}: {message}");
        }
        let mut extent = Extent { height: 1, width: 1, channels: 5 };
        let error = extent.groups(Normalization::Instance, "norm9").expect_err("a single pixel");
        assert!(error.to_string().contains("norm9 gets channels of a single pixel"), "{error}");
        extent.width = 2;
        assert_eq!(extent.groups(Normalization::Instance, "norm9").expect("fits"), Some(5));
    }

    #[test]
    fn the_catalogue_knows_which_models_have_channels_to_drop() {
        let definition = |name| Parameter::find(name).expect("known").definition();
        let Domain::Choice(models) = definition("model").domain else { panic!("a choice") };
        let (_, convolutional) = definition("spatial_dropout").used_with.expect("of some models");
        for architecture in models {
            let model = model(&[("model", architecture), ("spatial_dropout", "0.5")], IMAGES).expect("fits");
            let drops = model.layers.iter().any(|layer| matches!(layer, Layer::SpatialDropout { .. }));
            assert_eq!(drops, convolutional.contains(architecture), "{architecture}");
        }
    }

    #[test]
    fn biases_begin_where_the_kind_of_layer_says() {
        let biases = |settings: &[(&str, &str)]| {
            let model = model(&[&[("model", "lenet")], settings].concat(), IMAGES).expect("fits");
            let biases = model.named.iter().filter(|named| named.name.ends_with(".bias"));
            biases.map(|named| (named.name.clone(), flat(&named.values))).collect::<Vec<_>>()
        };
        let given = [("initial_linear_bias", "0.5"), ("initial_convolution_bias", "-0.25")];
        for (name, values) in biases(&given) {
            let expected = if name.starts_with("conv") { -0.25 } else { 0.5 };
            assert!(values.iter().all(|value| *value == expected), "{name}");
        }
        // PyTorch's own: uniform up to 1 / sqrt(fan_in) of their weights, whatever is said.
        let fans = [25.0, 800.0, 3136.0, 256.0, 128.0];
        let default = biases(&[&given[..], &[("initialization", "pytorch_default")]].concat());
        for ((name, values), fan) in default.iter().zip(fans) {
            let bound = 1.0 / f64::sqrt(fan);
            let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            assert!(largest <= bound * (1.0 + 1e-7) && largest > 0.7 * bound, "{name}: {largest}, {bound}");
        }
    }

    #[test]
    fn orthogonal_weights_are_orthonormal_times_the_gain() {
        let settings =
            &[("model", "lenet"), ("initialization", "orthogonal"), ("initialization_gain", "1.5")];
        let model = model(settings, IMAGES).expect("fits");
        let weights = model.named.iter().filter(|named| named.name.ends_with(".weight"));
        for named in weights.filter(|named| !named.name.starts_with("norm")) {
            let (_, rows, columns) = named.values.dims3().expect("a matrix");
            let matrix = named.values.get(0).and_then(|x| x.to_dtype(candle_core::DType::F64)).expect("f64");
            let wide = if rows < columns { matrix } else { matrix.t().expect("a matrix") };
            let square = wide.t().and_then(|transposed| wide.matmul(&transposed)).expect("a product");
            for (row, products) in square.to_vec2::<f64>().expect("f64").iter().enumerate() {
                for (column, product) in products.iter().enumerate() {
                    let expected = if row == column { 1.5 * 1.5 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-6, "{} at {row} {column}: {product}", named.name);
                }
            }
        }
    }

    #[test]
    fn every_parameter_of_every_model_gets_a_gradient() {
        let images = ImageShape { height: 16, width: 15, classes: 4 };
        let x = crate::train::ops::testing::numbers("images", &[1, 3, 16, 15, 1]);
        let x = x.to_dtype(candle_core::DType::F32).expect("float");
        for architecture in [
            &[("model", "fcn")][..],
            &[("model", "lenet")],
            &[("model", "dnn"), ("width", "32")],
            &[("model", "dnn"), ("width", "32"), ("residual", "true")],
            &[("model", "alexnet"), ("classifier_units", "32")],
            &[("model", "vgg")],
            &[("model", "resnet"), ("channels", "4,4,6")],
            &[("model", "wide_resnet"), ("widen_factor", "1")],
        ] {
            for normalization in ["none", "batch", "layer", "group", "instance"] {
                let own = [
                    ("normalization", normalization),
                    ("norm_groups", "2"),
                    ("dropout", "0.2"),
                    ("spatial_dropout", "0.2"),
                ];
                let settings = [architecture, &own].concat();
                let model = model(&settings, images).expect("fits");
                let logits = model.forward(&x, Mode::Train(Moment { epoch: 1, step: 0 })).expect("forward");
                assert_eq!(logits.dims(), [1, 3, 4]);
                let labels = [0, 1, 3].into();
                let loss = cross_entropy(&logits, &labels, &[0.1]).expect("loss");
                let mut store = loss.sum_all().and_then(|loss| loss.backward()).expect("backward");
                let named = model.named.iter().filter(|named| !named.name.contains("running"));
                for (parameter, named) in model.parameters.iter().zip(named) {
                    let what = format!("{architecture:?} {normalization} {}", named.name);
                    let gradient = parameter.take_gradient(&mut store).expect(&what);
                    assert_eq!(gradient.dims(), parameter.values().dims(), "{what}");
                    let numbers = crate::train::ops::testing::flat(&gradient);
                    // A bias before a normalisation of single channels has no effect: its gradient is 0
                    // but for rounding.
                    let without_effect = named.name.ends_with(".bias")
                        && (normalization == "batch"
                            || normalization == "instance" && !named.name.starts_with("fc"));
                    assert!(
                        without_effect || numbers.iter().any(|number| number.abs() > 1e-8),
                        "{what} is zero"
                    );
                }
            }
        }
    }

    #[test]
    fn images_that_the_pools_leave_nothing_of_are_refused() {
        for (name, height, width, fits) in [
            ("lenet", 4, 4, true),
            ("lenet", 4, 3, false),
            ("lenet", 1, 28, false),
            ("alexnet", 15, 15, true),
            ("alexnet", 15, 14, false),
            ("vgg", 1, 28, true),
            ("resnet", 1, 1, true),
            ("wide_resnet", 2, 3, true),
        ] {
            let images = ImageShape { height, width, classes: 2 };
            let built = model(&[("model", name), ("classifier_units", "8")], images);
            assert_eq!(built.is_ok(), fits, "{name} of {height}x{width}");
            if let Err(error) = built {
                assert!(error.to_string().contains("too small"), "{error}");
            }
        }
    }

    #[test]
    fn shapes_parameters_and_multiply_adds_are_those_counted_by_hand() {
        for (name, settings, shapes, parameters, multiply_adds) in [
            (
                "dnn",
                &[("model", "dnn"), ("residual", "true")][..],
                "[28, 28, 1] [256] [10]",
                400_906,
                399_872,
            ),
            (
                "batch norm, whose running statistics are no parameters",
                &[("model", "fcn"), ("hidden_sizes", "300"), ("normalization", "batch")],
                "[28, 28, 1] [300] [10]",
                784 * 300 + 300 + 2 * 300 + 300 * 10 + 10,
                784 * 300 + 300 * 10,
            ),
            (
                "lenet",
                &[("model", "lenet")],
                "[28, 28, 1] [28, 28, 32] [14, 14, 32] [14, 14, 64] [7, 7, 64] [256] [128] [10]",
                889_354,
                784 * 32 * 25 + 196 * 64 * 800 + 3136 * 256 + 256 * 128 + 128 * 10,
            ),
            (
                "alexnet",
                &[("model", "alexnet")],
                "[28, 28, 1] [28, 28, 64] [13, 13, 64] [13, 13, 192] [6, 6, 192] [6, 6, 384] [6, 6, 256] \
                 [2, 2, 256] [4096] [10]",
                23_271_114,
                117_126_144,
            ),
            (
                "the original alexnet",
                &[("model", "alexnet"), ("alexnet_geometry", "original"), ("classifier_units", "16")],
                "[28, 28, 1] [227, 227, 1] [55, 55, 96] [27, 27, 96] [27, 27, 256] [13, 13, 256] [13, 13, 384] \
                 [13, 13, 256] [6, 6, 256] [16] [10]",
                // The convolutions, then the classifier.
                3_723_968 + 9216 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10,
                1_006_357_344 + 9216 * 16 + 16 * 16 + 16 * 10,
            ),
            (
                "vgg",
                &[("model", "vgg")],
                "[28, 28, 1] [28, 28, 64] [14, 14, 64] [14, 14, 128] [7, 7, 128] [7, 7, 256] [3, 3, 256] [512] [10]",
                2_329_546,
                117_241_856,
            ),
            (
                "resnet",
                &[("model", "resnet")],
                "[28, 28, 1] [28, 28, 32] [14, 14, 64] [7, 7, 128] [128] [10]",
                694_922,
                80_508_672,
            ),
            (
                "wide_resnet",
                &[("model", "wide_resnet")],
                "[28, 28, 1] [28, 28, 16] [28, 28, 32] [14, 14, 64] [7, 7, 128] [128] [10]",
                690_698,
                77_184_512,
            ),
        ] {
            let outline = Outline::of(&group(&[(settings, Seeds::from_one(3))]).shape, IMAGES).expect("fits");
            let given: Vec<String> = outline.shapes.iter().map(|shape| format!("{shape:?}")).collect();
            assert_eq!(given.join(" "), shapes, "{name}");
            assert_eq!((outline.parameters, outline.multiply_adds), (parameters, multiply_adds), "{name}");
        }
    }

    #[test]
    fn more_parameters_than_any_memory_are_an_error_before_one_is_drawn() {
        let widest = ["65536"; 64].join(",");
        for settings in [
            &[("model", "fcn"), ("hidden_sizes", &*widest)][..],
            &[("model", "dnn"), ("depth", "256"), ("width", "65536")],
        ] {
            let error = model(settings, IMAGES).expect_err("too large");
            assert!(matches!(error, ModelError::TooLarge { .. }), "{settings:?}: {error}");
        }
    }
}
