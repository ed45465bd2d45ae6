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
    /// The device did not do it.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
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
        let model = Self { layers: stack.layers, device: device.clone(), parameters, named, steps: 0 };
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
}

/// How many layers of each kind there are so far: what the next is named by.
#[derive(Debug, Default)]
struct Numbers {
    linear: usize,
    convolution: usize,
    normalization: usize,
    dropout: usize,
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
        self.linear(units, self.activation_before_norm())?;
        self.norm()?;
        self.dropout();
        Ok(())
    }

    /// The last layer: one logit for each class.
    fn output(&mut self, classes: usize) -> Result<(), ModelError> {
        self.linear(classes, Activation::Identity)
    }

    /// Convolution, normalisation, ReLU.
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
        let bias = self.builder.constant(format!("{name}.bias"), &[channels], Order::AsInPytorch, 0.0)?;
        let activation = self.activation_before_norm();
        self.layers.push(Layer::Convolution { weight, bias, window, activation });
        self.norm()
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
        let weight = self.builder.weight(
            format!("{name}.weight"),
            &[outputs, inputs],
            &[outputs, inputs],
            self.extent.order(),
            Fan { inputs, outputs },
        )?;
        let bias = self.builder.constant(format!("{name}.bias"), &[outputs], Order::AsInPytorch, 0.0)?;
        self.extent = Extent { height: 1, width: 1, channels: outputs };
        self.layers.push(Layer::Linear { weight, bias, activation });
        Ok(())
    }

    /// ReLU follows the normalisation, if there is one.
    fn activation_before_norm(&self) -> Activation {
        match self.normalization {
            Normalization::None => Activation::Relu,
            Normalization::Batch | Normalization::Layer => Activation::Identity,
        }
    }

    fn norm(&mut self) -> Result<(), ModelError> {
        let Extent { height, width, channels } = self.extent;
        let image = [channels, height, width];
        let (shape, order) = match self.normalization {
            Normalization::None => return Ok(()),
            Normalization::Batch => (&image[..1], Order::AsInPytorch),
            Normalization::Layer if height * width == 1 => (&image[..1], Order::AsInPytorch),
            Normalization::Layer => (&image[..], self.extent.order()),
        };
        self.numbers.normalization += 1;
        let name = format!("norm{}", self.numbers.normalization);
        let weight = self.builder.constant(format!("{name}.weight"), shape, order, 1.0)?;
        let bias = self.builder.constant(format!("{name}.bias"), shape, order, 0.0)?;
        let activation = Activation::Relu;
        self.layers.push(if self.normalization == Normalization::Batch {
            let mean = self.builder.buffer(format!("{name}.running_mean"), channels, 0.0)?;
            let variance = self.builder.buffer(format!("{name}.running_var"), channels, 1.0)?;
            Layer::NormOverBatch { weight, bias, mean, variance, activation }
        } else {
            Layer::NormOverImage { weight, bias, activation }
        });
        Ok(())
    }

    fn dropout(&mut self) {
        self.numbers.dropout += 1;
        let lanes = self.builder.lanes;
        if lanes.iter().any(|lane| lane.dropout > 0.0) {
            let lanes = lanes.iter().map(|lane| DropoutLane { probability: lane.dropout, seed: lane.seed });
            self.layers.push(Layer::Dropout { number: self.numbers.dropout, lanes: lanes.collect() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::cross_entropy::cross_entropy;
    use crate::train::rng::Moment;
    use crate::train::testing::group;
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
    fn every_parameter_of_every_model_gets_a_gradient() {
        let images = ImageShape { height: 12, width: 9, classes: 4 };
        let x = crate::train::ops::testing::numbers("images", &[1, 3, 12, 9, 1]);
        let x = x.to_dtype(candle_core::DType::F32).expect("float");
        for architecture in ["fcn", "lenet"] {
            for normalization in ["none", "batch", "layer"] {
                let settings =
                    &[("model", architecture), ("normalization", normalization), ("dropout", "0.2")];
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
                    // A bias before batch normalisation has no effect: its gradient is 0 but for rounding.
                    let without_effect = normalization == "batch" && named.name.ends_with(".bias");
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
