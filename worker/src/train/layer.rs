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
use super::ops::{Activation, Tape, Window};
use super::params::Parameter;
use super::rng::{self, Moment};

/// What a forward pass is for.
#[derive(Debug)]
pub(crate) enum Pass<'a> {
    /// Training at this place: units drop out, statistics are of the batch, and what the backward
    /// pass needs is recorded.
    Train { moment: Moment, tape: &'a mut Tape },
    /// Evaluation: nothing drops out, statistics are the running ones, nothing is recorded.
    Evaluate,
}

impl Pass<'_> {
    fn tape(&mut self) -> Option<&mut Tape> {
        match self {
            Self::Train { tape, .. } => Some(tape),
            Self::Evaluate => None,
        }
    }
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
    pub(crate) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        match self {
            Self::Linear { weight, bias, activation } => {
                linear(x, weight.leaf(), bias.leaf(), *activation, pass.tape())
            }
            Self::Convolution { weight, bias, window, activation } => {
                convolution(x, weight.leaf(), bias.leaf(), *window, *activation, pass.tape())
            }
            Self::MaxPool(window) => max_pool(x, *window, pass.tape()),
            Self::NormOverBatch { weight, bias, mean, variance, activation } => {
                let (weight, bias) = (weight.leaf(), bias.leaf());
                let running = Running { mean, variance };
                match pass {
                    Pass::Train { tape, .. } => {
                        batch_norm::train(x, weight, bias, running, *activation, Some(tape))
                    }
                    Pass::Evaluate => batch_norm::evaluate(x, weight, bias, running, *activation),
                }
            }
            Self::NormOverImage { weight, bias, activation } => {
                layer_norm(x, weight.leaf(), bias.leaf(), *activation, pass.tape())
            }
            Self::NormOverGroups { weight, bias, groups, activation } => {
                group_norm(x, weight.leaf(), bias.leaf(), *groups, *activation, pass.tape())
            }
            Self::Dropout { number, lanes } => match pass {
                Pass::Evaluate => Ok(x.clone()),
                Pass::Train { moment, tape } => {
                    let draw = |lane: &DropoutLane| Draw {
                        probability: lane.probability,
                        stream: rng::dropout(lane.seed, *moment, *number),
                    };
                    dropout(x, &lanes.iter().map(draw).collect::<Vec<Draw>>(), Some(tape))
                }
            },
            Self::SpatialDropout { number, lanes } => match pass {
                Pass::Evaluate => Ok(x.clone()),
                Pass::Train { moment, tape } => {
                    let draw = |lane: &DropoutLane| Draw {
                        probability: lane.probability,
                        stream: rng::spatial_dropout(lane.seed, *moment, *number),
                    };
                    spatial_dropout(x, &lanes.iter().map(draw).collect::<Vec<Draw>>(), Some(tape))
                }
            },
            Self::Relu => relu(x, pass.tape()),
            Self::AveragePool => average_pool(x, pass.tape()),
            Self::ResponseNorm => response_norm(x, pass.tape()),
            Self::Upsample { height, width } => upsample(x, *height, *width, pass.tape()),
            Self::Residual { body, shortcut } => residual(body, shortcut, x, pass),
        }
    }
}

/// Applies layers one after the other.
pub(crate) fn forward(layers: &[Layer], x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let mut x = x.clone();
    for layer in layers {
        x = layer.forward(&x, pass)?;
    }
    Ok(x)
}

fn residual(body: &[Layer], shortcut: &[Layer], x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    match pass {
        Pass::Train { moment, tape } => {
            let (mut of_body, mut of_shortcut) = (tape.branch(), tape.branch());
            let y = forward(body, x, &mut Pass::Train { moment: *moment, tape: &mut of_body })?
                + forward(shortcut, x, &mut Pass::Train { moment: *moment, tape: &mut of_shortcut })?;
            tape.join([of_body, of_shortcut]);
            y
        }
        Pass::Evaluate => forward(body, x, pass)? + forward(shortcut, x, pass)?,
    }
}
