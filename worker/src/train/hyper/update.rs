//! How weights are updated.

use super::SettingsError;
use super::read::{Reader, unknown};

/// An update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Stochastic gradient descent.
    Sgd,
    /// RMSProp.
    RmsProp,
    /// Adam with L2 penalty.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
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
    /// Smoothing of Adam's first moment.
    pub beta1: f64,
    /// Smoothing of Adam's second moment.
    pub beta2: f64,
    /// Added to the denominators of rmsprop and Adam.
    pub epsilon: f64,
    /// L2 penalty; decoupled with adamw.
    pub weight_decay: f64,
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
            "sgd" => Ok(Self::Sgd),
            "rmsprop" => Ok(Self::RmsProp),
            "adam" => Ok(Self::Adam),
            "adamw" => Ok(Self::AdamW),
            other => Err(unknown("optimizer", other)),
        }
    }
}

impl UpdateSettings {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        Ok(Self {
            learning_rate: read.number("learning_rate")?,
            momentum: read.number("momentum")?,
            momentum_form: match read.flag("nesterov")? {
                true => MomentumForm::Nesterov,
                false => MomentumForm::Plain,
            },
            alpha: read.number("rmsprop_alpha")?,
            beta1: read.number("beta1")?,
            beta2: read.number("beta2")?,
            epsilon: read.number("epsilon")?,
            weight_decay: read.number("weight_decay")?,
        })
    }
}
