//! Models: which layers follow one another. Each architecture is one small file of calls to a `Stack`.
//!
//! Names follow the order of the layers, as a PyTorch module would name them: `conv1`, `norm1`,
//! `conv2`, `norm2`, `fc1`, `norm3`, … with `.weight`, `.bias`, and for batch normalisation
//! `.running_mean`, `.running_var` and `.num_batches_tracked`.

mod fcn;
mod lenet;

use candle_core::{Device, Tensor};
use fittingroom_common::dataset::Shape;

use super::hyper::{Architecture, GroupShape, Lane, Normalization};
use super::init::Fan;
use super::layer::{DropoutLane, Layer, Mode};
use super::ops::{Activation, Window};
use super::params::{Builder, Named, Order, Parameter};
use super::weights::{Start, WeightsError};

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
    /// What an optimizer changes, in the order of the layers.
    pub parameters: Vec<Parameter>,
    /// Parameters and buffers by name.
    pub named: Vec<Named>,
    /// Training steps so far, which is what PyTorch's `num_batches_tracked` counts.
    pub steps: u64,
}

impl Model {
    /// A model with its initial weights.
    pub fn new(
        shape: &GroupShape,
        lanes: &[Lane],
        images: ImageShape,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut stack = Stack {
            builder: Builder::new(lanes, device),
            normalization: shape.normalization,
            layers: Vec::new(),
            extent: Extent { height: images.height, width: images.width, channels: 1 },
            numbers: Numbers::default(),
        };
        match &shape.architecture {
            Architecture::Fcn { hidden } => fcn::build(&mut stack, hidden, images.classes)?,
            Architecture::LeNet => lenet::build(&mut stack, images.classes)?,
        }
        let Builder { parameters, named, .. } = stack.builder;
        let model = Self { layers: stack.layers, parameters, named, steps: 0 };
        for (index, lane) in lanes.iter().enumerate() {
            match &lane.start {
                Start::Drawn => {}
                Start::From(weights) => weights.put_into(&model, index)?,
            }
        }
        Ok(model)
    }

    /// The logits of a batch: `[lanes, batch, classes]`. `images`: `[1, batch, height, width, 1]`.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let mut x = images.clone();
        for layer in &self.layers {
            x = layer.forward(&x, mode)?;
        }
        Ok(x)
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
#[derive(Clone, Copy, Debug)]
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
}

impl Stack<'_> {
    /// Linear, normalisation, ReLU, dropout.
    fn hidden(&mut self, units: usize) -> Result<(), ModelError> {
        match self.normalization {
            // There are no rows and columns to normalise over.
            Normalization::Instance => self.linear(units, Activation::Relu)?,
            _ => {
                self.linear(units, self.activation_before_norm())?;
                self.norm()?;
            }
        }
        self.dropout();
        Ok(())
    }

    /// The last layer: one logit for each class.
    fn output(&mut self, classes: usize) -> Result<(), ModelError> {
        self.linear(classes, Activation::Identity)
    }

    /// Convolution, normalisation, ReLU, spatial dropout.
    fn convolution(&mut self, channels: usize, window: Window) -> Result<(), ModelError> {
        self.numbers.convolution += 1;
        let name = format!("conv{}", self.numbers.convolution);
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
        let activation = self.activation_before_norm();
        self.layers.push(Layer::Convolution { weight, bias, window, activation });
        self.norm()?;
        self.spatial_dropout();
        Ok(())
    }

    fn max_pool(&mut self, window: Window) -> Result<(), ModelError> {
        self.extent = self.moved(window, "pool")?;
        self.layers.push(Layer::MaxPool(window));
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
    use crate::train::params::{Kind, Role};
    use crate::train::ops::testing::flat;
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
        let images = ImageShape { height: 12, width: 9, classes: 4 };
        let x = crate::train::ops::testing::numbers("images", &[1, 3, 12, 9, 1]);
        let x = x.to_dtype(candle_core::DType::F32).expect("float");
        for architecture in ["fcn", "lenet"] {
            for normalization in ["none", "batch", "layer", "group", "instance"] {
                let settings = &[
                    ("model", architecture),
                    ("normalization", normalization),
                    ("dropout", "0.2"),
                    ("spatial_dropout", "0.2"),
                ];
                let model = model(settings, images).expect("fits");
                let logits = model.forward(&x, Mode::Train(Moment { epoch: 1, step: 0 })).expect("forward");
                assert_eq!(logits.dims(), [1, 3, 4]);
                let labels = [0, 1, 3].into();
                let loss = cross_entropy(&logits, &labels, &[0.1]).expect("loss");
                let mut store = loss.sum_all().and_then(|loss| loss.backward()).expect("backward");
                let named = model.named.iter().filter(|named| !named.name.contains("running"));
                for (parameter, named) in model.parameters.iter().zip(named) {
                    let what = format!("{architecture} {normalization} {}", named.name);
                    let gradient = parameter.take_gradient(&mut store).expect(&what);
                    assert_eq!(gradient.dims(), parameter.values().dims(), "{what}");
                    let numbers = crate::train::ops::testing::flat(&gradient);
                    // A bias before a normalisation of single channels has no effect: its gradient is 0
                    // but for rounding.
                    let without_effect = named.name.ends_with(".bias")
                        && (normalization == "batch"
                            || normalization == "instance" && named.name.starts_with("conv"));
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
        for (height, width, fits) in [(4, 4, true), (4, 3, false), (1, 28, false)] {
            let images = ImageShape { height, width, classes: 2 };
            let built = model(&[("model", "lenet")], images);
            assert_eq!(built.is_ok(), fits, "{height}x{width}");
            if let Err(error) = built {
                assert!(error.to_string().contains("too small"), "{error}");
            }
        }
    }
}
