//! What a model is made of.

use super::SettingsError;
use super::read::{Reader, unknown};

/// A kind of model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Fully connected layers of these sizes.
    Fcn {
        /// Units of each hidden layer, from the input's side.
        hidden: Vec<usize>,
    },
    /// Two convolutions and three fully connected layers.
    LeNet,
}

/// What normalises activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Over the batch.
    Batch,
    /// Over each image's activations.
    Layer,
    /// Over groups of an image's channels.
    Group {
        /// How many there are.
        groups: usize,
    },
    /// Over each channel of an image. Linear layers, which have no rows and columns, stay as they are.
    Instance,
}

impl Architecture {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("model")? {
            "fcn" => Ok(Self::Fcn { hidden: read.sizes("hidden_sizes")? }),
            "lenet" => Ok(Self::LeNet),
            other => Err(unknown("model", other)),
        }
    }
}

impl Normalization {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("normalization")? {
            "none" => Ok(Self::None),
            "batch" => Ok(Self::Batch),
            "layer" => Ok(Self::Layer),
            "group" => Ok(Self::Group { groups: read.integer("norm_groups")? as usize }),
            "instance" => Ok(Self::Instance),
            other => Err(unknown("normalization", other)),
        }
    }
}
