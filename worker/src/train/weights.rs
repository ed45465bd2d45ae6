//! Weights that training starts from: a safetensors file with PyTorch's `state_dict` names and
//! layouts, written by PyTorch or by [`super::save`].
//!
//! All parameters must be there. Buffers, which are running statistics, may be: a model without
//! them starts with its own. Steps are counted anew, whatever the file's `num_batches_tracked` says,
//! which no update depends on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use fittingroom_common::id::ArtifactHash;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::model::{Model, ModelError};
use super::params::{Kind, Named};

/// Where a lane's weights begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Drawn from the lane's initialisation and seed.
    Drawn,
    /// Given.
    From(Weights),
}

/// One lane's weights, as a file holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    path: PathBuf,
    file: Arc<[u8]>,
}

/// Why a file's weights cannot be started from.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("the initial weights {path:?} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not in the safetensors format.
    #[error("the initial weights {path:?} are not a safetensors file: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// A parameter of the model is not in the file.
    #[error("the initial weights {path:?} lack {name:?}: the model takes it as F32 {expected:?}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape that the model takes.
        expected: Vec<usize>,
    },
    /// A tensor of the file is not in the model.
    #[error(
        "the initial weights {path:?} have {name:?}, which the model does not: is it another model or normalization?"
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another type or shape than the model's.
    #[error(
        "the initial weights {path:?} have {name:?} as {found_dtype:?} {found:?}, but the model takes F32 {expected:?}"
    )]
    Unfitting {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found_dtype: Dtype,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the model takes.
        expected: Vec<usize>,
    },
}

impl Weights {
    /// The weights in a file. Whether they fit a model is seen when they are put into it.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let in_file = || path.to_owned();
        let file = std::fs::read(path).map_err(|source| WeightsError::Read { path: in_file(), source })?;
        SafeTensors::deserialize(&file).map_err(|source| WeightsError::Format { path: in_file(), source })?;
        Ok(Self { path: in_file(), file: file.into() })
    }

    /// The hash of the file.
    pub fn hash(&self) -> ArtifactHash {
        ArtifactHash::of(&self.file)
    }

    /// Gives one lane of a model these weights. Unless all fit, the model is left as it was.
    pub(super) fn put_into(&self, model: &Model, lane: usize) -> Result<(), ModelError> {
        let tensors = SafeTensors::deserialize(&self.file)
            .map_err(|source| WeightsError::Format { path: self.path.clone(), source })?;
        if let Some(name) = tensors.names().into_iter().filter(|name| !model.knows(name)).min() {
            return Err(WeightsError::Unknown { path: self.path.clone(), name: name.to_owned() }.into());
        }
        let mut fitting = Vec::with_capacity(model.named.len());
        for named in &model.named {
            match tensors.tensor(&named.name) {
                Ok(tensor) => fitting.push((named, self.values(named, &tensor)?)),
                Err(_) if named.kind == Kind::Buffer => {}
                Err(_) => {
                    return Err(WeightsError::Missing {
                        path: self.path.clone(),
                        name: named.name.clone(),
                        expected: named.shape.clone(),
                    }
                    .into());
                }
            }
        }
        for (named, values) in fitting {
            named.set_lane(lane, &values)?;
        }
        Ok(())
    }

    fn values(&self, named: &Named, tensor: &TensorView<'_>) -> Result<Vec<f32>, WeightsError> {
        if (tensor.dtype(), tensor.shape()) != (Dtype::F32, &named.shape[..]) {
            return Err(WeightsError::Unfitting {
                path: self.path.clone(),
                name: named.name.clone(),
                found_dtype: tensor.dtype(),
                found: tensor.shape().to_vec(),
                expected: named.shape.clone(),
            });
        }
        Ok(floats(tensor))
    }
}

/// The numbers of an F32 tensor.
pub(super) fn floats(tensor: &TensorView<'_>) -> Vec<f32> {
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

impl Named {
    /// Gives one lane these values, which are in PyTorch's order and as many as the lane has.
    pub(super) fn set_lane(&self, lane: usize, values: &[f32]) -> candle_core::Result<()> {
        let mut dims = self.values.dims().to_vec();
        if let Some(lanes) = dims.first_mut() {
            *lanes = 1;
        }
        let values = Tensor::from_vec(self.order.to_engine(values), dims, self.values.device())?;
        self.values.slice_set(&values, 0, lane)
    }
}
