//! How weights are updated.

use super::SettingsError;
use super::read::{Reader, unknown};
use crate::train::params::Role;

/// An update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Stochastic gradient descent, with or without momentum.
    Sgd,
    /// RMSProp.
    RmsProp,
    /// Adagrad.
    Adagrad,
    /// Adadelta.
    Adadelta,
    /// Adam with L2 penalty.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
    /// Adam with Nesterov's momentum.
    NAdam,
    /// Adam with steps in proportion to each tensor's norm.
    Lamb,
    /// The sign of a momentum.
    Lion,
}

/// Numbers of the update rules; each rule uses some of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateSettings {
    /// Step size.
    pub learning_rate: f64,
    /// Momentum factor of sgd and rmsprop.
    pub momentum: f64,
    /// How sgd uses its momentum.
    pub momentum_form: MomentumForm,
    /// Smoothing of rmsprop's mean square.
    pub alpha: f64,
    /// Whether rmsprop divides by the deviation of the gradients in place of their mean square's root.
    pub centered: bool,
    /// How much adagrad slows down with each step, beside what its sums do.
    pub learning_rate_decay: f64,
    /// Smoothing of adadelta's mean squares.
    pub rho: f64,
    /// Smoothing of the first moment of Adam and its kin.
    pub beta1: f64,
    /// Smoothing of the second moment of Adam and its kin.
    pub beta2: f64,
    /// How fast nadam's momentum grows to beta1.
    pub momentum_decay: f64,
    /// Added to denominators.
    pub epsilon: f64,
    /// L2 penalty; decoupled with adamw, lamb and lion.
    pub weight_decay: f64,
    /// What weight decay leaves alone.
    pub weight_decay_exempt: Exempt,
}

/// What weight decay leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// Nothing.
    None,
    /// Biases and the parameters of normalisations.
    BiasAndNorm,
}

/// How momentum enters the update of sgd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentumForm {
    /// Polyak's heavy ball.
    Plain,
    /// Nesterov's look-ahead.
    Nesterov,
}

impl OptimizerKind {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("optimizer")? {
            "sgd" | "momentum" | "nesterov" => Ok(Self::Sgd),
            "rmsprop" => Ok(Self::RmsProp),
            "adagrad" => Ok(Self::Adagrad),
            "adadelta" => Ok(Self::Adadelta),
            "adam" => Ok(Self::Adam),
            "adamw" => Ok(Self::AdamW),
            "nadam" => Ok(Self::NAdam),
            "lamb" => Ok(Self::Lamb),
            "lion" => Ok(Self::Lion),
            other => Err(unknown("optimizer", other)),
        }
    }
}

impl UpdateSettings {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        let momentum = read.number("momentum")?;
        Ok(Self {
            learning_rate: read.number("learning_rate")?,
            momentum,
            momentum_form: match (read.choice("optimizer")?, read.flag("nesterov")?) {
                (optimizer @ ("momentum" | "nesterov"), _) if momentum == 0.0 => {
                    return Err(SettingsError::NoMomentum { optimizer });
                }
                ("nesterov", _) => MomentumForm::Nesterov,
                ("momentum", _) | (_, false) => MomentumForm::Plain,
                (_, true) => MomentumForm::Nesterov,
            },
            alpha: read.number("rmsprop_alpha")?,
            centered: read.flag("centered")?,
            learning_rate_decay: read.number("learning_rate_decay")?,
            rho: read.number("rho")?,
            beta1: read.number("beta1")?,
            beta2: read.number("beta2")?,
            momentum_decay: read.number("momentum_decay")?,
            epsilon: read.number("epsilon")?,
            weight_decay: read.number("weight_decay")?,
            weight_decay_exempt: Exempt::of(read)?,
        })
    }

    /// The weight decay of parameters of this role.
    pub fn weight_decay_of(&self, role: Role) -> f64 {
        match (self.weight_decay_exempt, role) {
            (Exempt::BiasAndNorm, Role::BiasOrNorm) => 0.0,
            (Exempt::BiasAndNorm, Role::Weight) | (Exempt::None, _) => self.weight_decay,
        }
    }
}

impl Exempt {
    fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("weight_decay_exempt")? {
            "none" => Ok(Self::None),
            "bias_and_norm" => Ok(Self::BiasAndNorm),
            other => Err(unknown("weight_decay_exempt", other)),
        }
    }
}
