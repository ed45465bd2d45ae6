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
    /// Fully connected layers of one width.
    Dnn {
        /// Hidden layers.
        depth: usize,
        /// Units of each.
        width: usize,
        /// Around the hidden layers.
        shortcuts: Shortcuts,
    },
    /// Convolutions, each with pooling, and fully connected layers.
    Cnn {
        /// Channels of each convolution.
        channels: Vec<usize>,
        /// Rows and columns of their windows.
        kernel_size: usize,
        /// Units of each hidden fully connected layer.
        hidden: Vec<usize>,
    },
    /// Two convolutions and three fully connected layers.
    LeNet,
    /// Five convolutions with overlapping pooling, and three fully connected layers.
    AlexNet {
        /// Sizes of images and windows.
        geometry: AlexNetGeometry,
        /// Units of each of the two hidden fully connected layers.
        classifier_units: usize,
    },
    /// Three stages of convolutions 3x3 and two fully connected layers.
    Vgg,
    /// Stages of residual blocks.
    ResNet {
        /// Channels of each stage.
        channels: Vec<usize>,
        /// Blocks of each stage.
        blocks: usize,
    },
    /// Three stages of wide residual blocks with dropout.
    WideResNet {
        /// Blocks of each stage.
        blocks: usize,
        /// Times 16, 32 and 64 channels.
        widen_factor: usize,
    },
}

/// What leads around the hidden layers of a deep network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcuts {
    /// Nothing.
    None,
    /// Each layer's input is added to its result.
    Identity,
}

/// The sizes of images and windows in AlexNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlexNetGeometry {
    /// Small windows for images as they come.
    Adapted,
    /// The paper's, for images of 227x227.
    Original,
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
            "dnn" => Ok(Self::Dnn {
                depth: read.integer("depth")? as usize,
                width: read.integer("width")? as usize,
                shortcuts: if read.flag("residual")? { Shortcuts::Identity } else { Shortcuts::None },
            }),
            "cnn" => Ok(Self::Cnn {
                channels: read.sizes("channels")?,
                kernel_size: read.integer("kernel_size")? as usize,
                hidden: read.sizes("hidden_sizes")?,
            }),
            "lenet" => Ok(Self::LeNet),
            "alexnet" => Ok(Self::AlexNet {
                geometry: AlexNetGeometry::of(read)?,
                classifier_units: read.integer("classifier_units")? as usize,
            }),
            "vgg" => Ok(Self::Vgg),
            "resnet" => Ok(Self::ResNet {
                channels: read.sizes("channels")?,
                blocks: read.integer("blocks")? as usize,
            }),
            "wide_resnet" => Ok(Self::WideResNet {
                blocks: read.integer("blocks")? as usize,
                widen_factor: read.integer("widen_factor")? as usize,
            }),
            other => Err(unknown("model", other)),
        }
    }
}

impl AlexNetGeometry {
    fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        match read.choice("alexnet_geometry")? {
            "adapted" => Ok(Self::Adapted),
            "original" => Ok(Self::Original),
            other => Err(unknown("alexnet_geometry", other)),
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
