//! Layers: an op, the parameters it works with, and what it does in training and in evaluation.

use candle_core::{Result, Tensor};

use super::ops::average_pool::average_pool;
use super::ops::batch_norm::{self, Running};
use super::ops::convolution::convolution;
use super::ops::dropout::{Draw, dropout};
use super::ops::group_norm::group_norm;
use super::ops::layer_norm::layer_norm;
use super::ops::linear::linear;
use super::ops::max_pool::max_pool;
use super::ops::relu::relu;
use super::ops::response_norm::response_norm;
use super::ops::spatial_dropout::spatial_dropout;
use super::ops::upsample::upsample;
use super::ops::{Activation, Window};
use super::params::{Graph, Parameter};
use super::rng::{self, Moment};

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training at this place: units drop out, statistics are of the batch, a graph is recorded.
    Train(Moment),
    /// Evaluation: nothing drops out, statistics are the running ones, nothing is recorded.
    Evaluate,
}

/// One layer of a model, for all lanes.
#[derive(Clone, Debug)]
pub(crate) enum Layer {
    Linear {
        weight: Parameter,
        bias: Parameter,
        activation: Activation,
    },
    Convolution {
        weight: Parameter,
        bias: Parameter,
        window: Window,
        activation: Activation,
    },
    MaxPool(Window),
    NormOverBatch {
        weight: Parameter,
        bias: Parameter,
        mean: Tensor,
        variance: Tensor,
        activation: Activation,
    },
    NormOverImage {
        weight: Parameter,
        bias: Parameter,
        activation: Activation,
    },
    NormOverGroups {
        weight: Parameter,
        bias: Parameter,
        groups: usize,
        activation: Activation,
    },
    Dropout {
        number: usize,
        lanes: Vec<DropoutLane>,
    },
    SpatialDropout {
        number: usize,
        lanes: Vec<DropoutLane>,
    },

    Relu,
    /// The mean of each channel over the image.
    AveragePool,
    /// Local response normalisation.
    ResponseNorm,
    /// Images at this size.
    Upsample {
        height: usize,
        width: usize,
    },
    /// The sum of what two paths make of the same activations. A shortcut without layers is the identity.
    Residual {
        body: Vec<Layer>,
        shortcut: Vec<Layer>,
    },
}

/// What dropout needs to know of a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropoutLane {
    pub(crate) probability: f64,
    pub(crate) seed: u64,
}

impl Layer {
    /// Applies the layer to activations of `[lanes, batch, …]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let graph = match mode {
            Mode::Train(_) => Graph::Recorded,
            Mode::Evaluate => Graph::Skipped,
        };
        match self {
            Self::Linear { weight, bias, activation } => {
                linear(x, weight.leaf(graph), bias.leaf(graph), *activation)
            }
            Self::Convolution { weight, bias, window, activation } => {
                convolution(x, weight.leaf(graph), bias.leaf(graph), *window, *activation)
            }
            Self::MaxPool(window) => max_pool(x, *window),
            Self::NormOverBatch { weight, bias, mean, variance, activation } => {
                let (weight, bias) = (weight.leaf(graph), bias.leaf(graph));
                let running = Running { mean, variance };
                match mode {
                    Mode::Train(_) => batch_norm::train(x, weight, bias, running, *activation),
                    Mode::Evaluate => batch_norm::evaluate(x, weight, bias, running, *activation),
                }
            }
            Self::NormOverImage { weight, bias, activation } => {
                layer_norm(x, weight.leaf(graph), bias.leaf(graph), *activation)
            }
            Self::NormOverGroups { weight, bias, groups, activation } => {
                group_norm(x, weight.leaf(graph), bias.leaf(graph), *groups, *activation)
            }
            Self::Dropout { number, lanes } => match mode {
                Mode::Evaluate => Ok(x.clone()),
                Mode::Train(moment) => {
                    let draw = |lane: &DropoutLane| Draw {
                        probability: lane.probability,
                        stream: rng::dropout(lane.seed, moment, *number),
                    };
                    dropout(x, &lanes.iter().map(draw).collect::<Vec<Draw>>())
                }
            },
            Self::SpatialDropout { number, lanes } => match mode {
                Mode::Evaluate => Ok(x.clone()),
                Mode::Train(moment) => {
                    let draw = |lane: &DropoutLane| Draw {
                        probability: lane.probability,
                        stream: rng::spatial_dropout(lane.seed, moment, *number),
                    };
                    spatial_dropout(x, &lanes.iter().map(draw).collect::<Vec<Draw>>())
                }
            },
            Self::Relu => relu(x),
            Self::AveragePool => average_pool(x),
            Self::ResponseNorm => response_norm(x),
            Self::Upsample { height, width } => upsample(x, *height, *width),
            Self::Residual { body, shortcut } => forward(body, x, mode)? + forward(shortcut, x, mode)?,
        }
    }
}

/// Applies layers one after the other.
pub(crate) fn forward(layers: &[Layer], x: &Tensor, mode: Mode) -> Result<Tensor> {
    let mut x = x.clone();
    for layer in layers {
        x = layer.forward(&x, mode)?;
    }
    Ok(x)
}
