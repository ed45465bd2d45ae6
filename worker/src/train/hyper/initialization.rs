//! Where weights and biases begin.

use super::SettingsError;
use super::read::{Reader, unknown};

/// A distribution of initial weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialization {
    /// All 0.
    Zeros,
    /// All alike.
    Constant {
        /// What they are.
        value: f64,
    },
    /// Normal around 0.
    Normal {
        /// Its standard deviation.
        deviation: f64,
    },
    /// Normal around 0, drawn again beyond [`TRUNCATION`](crate::train::init::TRUNCATION).
    TruncatedNormal {
        /// Its standard deviation before it is truncated.
        deviation: f64,
    },
    /// Uniform around 0.
    Uniform {
        /// Its largest value.
        bound: f64,
    },
    /// Glorot and Bengio's, normal.
    XavierNormal {
        /// A factor.
        gain: f64,
    },
    /// Glorot and Bengio's, uniform.
    XavierUniform {
        /// A factor.
        gain: f64,
    },
    /// He's, normal.
    KaimingNormal {
        /// Which fan counts.
        fan: FanMode,
        /// A factor beside the gain of ReLU.
        gain: f64,
    },
    /// He's, uniform.
    KaimingUniform {
        /// Which fan counts.
        fan: FanMode,
        /// A factor beside the gain of ReLU.
        gain: f64,
    },
    /// Orthonormal rows or columns.
    Orthogonal {
        /// A factor.
        gain: f64,
    },
    /// What PyTorch's layers begin with where nothing is said.
    PytorchDefault,
}

/// Which of a weight's fans its variance is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanMode {
    /// The inputs of an output: activations keep their variance.
    In,
    /// The outputs of an input: gradients keep their variance.
    Out,
}

/// Where the biases of one kind of layer begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BiasInitialization {
    /// All at this value.
    Constant(f64),
    /// Where PyTorch's layers begin, beside [`Initialization::PytorchDefault`].
    PytorchDefault,
}

impl Initialization {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        let gain = read.number("initialization_gain")?;
        match read.choice("initialization")? {
            "zeros" => Ok(Self::Zeros),
            "constant" => Ok(Self::Constant { value: read.number("initialization_value")? }),
            "normal" => Ok(Self::Normal { deviation: read.number("initialization_std")? }),
            "truncated_normal" => Ok(Self::TruncatedNormal { deviation: read.number("initialization_std")? }),
            "uniform" => Ok(Self::Uniform { bound: read.number("initialization_bound")? }),
            "xavier_normal" => Ok(Self::XavierNormal { gain }),
            "xavier_uniform" => Ok(Self::XavierUniform { gain }),
            "kaiming_normal" => Ok(Self::KaimingNormal { fan: FanMode::of(read)?, gain }),
            "kaiming_uniform" => Ok(Self::KaimingUniform { fan: FanMode::of(read)?, gain }),
            "orthogonal" => Ok(Self::Orthogonal { gain }),
            "pytorch_default" => Ok(Self::PytorchDefault),
            other => Err(unknown("initialization", other)),
        }
    }
}

impl FanMode {
    fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("initialization_fan")? {
            "fan_in" => Ok(Self::In),
            "fan_out" => Ok(Self::Out),
            other => Err(unknown("initialization_fan", other)),
        }
    }
}

impl BiasInitialization {
    /// Of the layers whose hyperparameter has this name.
    pub(super) fn of(
        read: &Reader<'_>,
        name: &'static str,
        weights: Initialization,
    ) -> Result<Self, SettingsError> {
        match weights {
            Initialization::PytorchDefault => Ok(Self::PytorchDefault),
            _ => Ok(Self::Constant(read.number(name)?)),
        }
    }
}
