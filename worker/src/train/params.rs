//! The parameters and buffers of a model: ordered, named as in PyTorch, each lane's after the other.
//!
//! Parameters are what an optimizer changes; buffers, such as running statistics, are kept apart.

use candle_core::{Device, Result, Tensor};

use super::hyper::{BiasInitialization, Lane};
use super::init::Fan;
use super::ops::{GradientSlot, Leaf};
use super::rng;

/// How one lane's values lie in memory, beside how PyTorch lays them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The same.
    AsInPytorch,
    /// Blocks of `[pixels, channels]` that PyTorch has as `[channels, pixels]`: the engine keeps
    /// the channels of images last.
    ChannelsLast {
        /// Pixels of the image or the window.
        pixels: usize,
        /// Channels of each pixel.
        channels: usize,
    },
}

impl Order {
    /// From the engine's order to PyTorch's.
    pub(crate) fn to_pytorch(self, values: &[f32]) -> Vec<f32> {
        match self {
            Self::AsInPytorch => values.to_vec(),
            Self::ChannelsLast { pixels, channels } => transpose_blocks(values, pixels, channels),
        }
    }

    /// From PyTorch's order to the engine's.
    pub(crate) fn to_engine(self, values: &[f32]) -> Vec<f32> {
        match self {
            Self::AsInPytorch => values.to_vec(),
            Self::ChannelsLast { pixels, channels } => transpose_blocks(values, channels, pixels),
        }
    }
}

fn transpose_blocks(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for block in values.chunks_exact(rows * columns) {
        for column in 0..columns {
            out.extend((0..rows).map(|row| block[row * columns + column]));
        }
    }
    out
}

/// What named values are to training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changed by the optimizer.
    Parameter,
    /// Kept by a layer, as running statistics are.
    Buffer,
}

/// What a parameter is to regularisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What activations are multiplied by in a linear or convolution layer.
    Weight,
    /// A bias, or a parameter of a normalisation.
    BiasOrNorm,
}

/// Values of a model under PyTorch's name: `[lanes, …]`.
#[derive(Clone, Debug)]
pub struct Named {
    /// The name in a `state_dict`.
    pub name: String,
    /// What they are to training.
    pub kind: Kind,
    /// The shape of one lane in a `state_dict`.
    pub shape: Vec<usize>,
    /// How one lane lies in memory.
    pub order: Order,
    /// The values of all lanes; shared with the model, so that they change as it is trained.
    pub values: Tensor,
}

/// One trained tensor of a model: `[lanes, …]`.
#[derive(Clone, Debug)]
pub struct Parameter {
    values: Tensor,
    gradient: GradientSlot,
    role: Role,
}

impl Parameter {
    fn new(values: Tensor, role: Role) -> Self {
        Self { values, gradient: GradientSlot::default(), role }
    }

    /// The parameter as an op takes it.
    pub(crate) fn leaf(&self) -> Leaf<'_> {
        Leaf { tensor: &self.values, gradient: &self.gradient }
    }

    /// Its values: `[lanes, …]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// What it is to regularisation.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Takes the gradient of the last backward pass.
    pub fn take_gradient(&self) -> Option<Tensor> {
        self.gradient.take()
    }
}

/// Collects the tensors of a model while its layers are made.
#[derive(Debug)]
pub struct Builder<'a> {
    /// The lanes, which say how weights begin.
    pub lanes: &'a [Lane],
    /// Where the tensors live.
    pub device: &'a Device,
    /// All parameters so far, in order.
    pub parameters: Vec<Parameter>,
    /// Parameters and buffers so far, by name, in the order of a `state_dict`.
    pub named: Vec<Named>,
}

impl<'a> Builder<'a> {
    /// No tensors yet.
    pub fn new(lanes: &'a [Lane], device: &'a Device) -> Self {
        Self { lanes, device, parameters: Vec::new(), named: Vec::new() }
    }

    /// A weight that each lane draws from its own distribution. `dims`: of one lane, in the
    /// engine's order, the outputs first; `shape`: in PyTorch's.
    pub(crate) fn weight(
        &mut self,
        name: String,
        dims: &[usize],
        shape: &[usize],
        order: Order,
        fan: Fan,
    ) -> Result<Parameter> {
        let count: usize = dims.iter().product();
        let mut values = reserve(count * self.lanes.len())?;
        for lane in self.lanes {
            let distribution = lane.initialization.distribution(fan);
            values.extend(distribution.draw(&rng::init(lane.seed, &name), dims[0], count / dims[0]));
        }
        self.add(name, dims, shape, order, values, Role::Weight)
    }

    /// The bias of a layer of `outputs`. `fan`: of its weight; `of_lane`: where a lane's biases of
    /// this kind of layer begin.
    pub(crate) fn bias(
        &mut self,
        name: String,
        outputs: usize,
        fan: Fan,
        of_lane: impl Fn(&Lane) -> BiasInitialization,
    ) -> Result<Parameter> {
        let mut values = reserve(outputs * self.lanes.len())?;
        for lane in self.lanes {
            let distribution = of_lane(lane).distribution(fan);
            values.extend(distribution.draw(&rng::init(lane.seed, &name), outputs, 1));
        }
        self.add(name, &[outputs], &[outputs], Order::AsInPytorch, values, Role::BiasOrNorm)
    }

    /// A parameter of a normalisation, which begins with one value everywhere.
    pub(crate) fn constant(
        &mut self,
        name: String,
        shape: &[usize],
        order: Order,
        value: f32,
    ) -> Result<Parameter> {
        let count: usize = shape.iter().product();
        let mut values = reserve(count * self.lanes.len())?;
        values.resize(count * self.lanes.len(), value);
        self.add(name, &[count], shape, order, values, Role::BiasOrNorm)
    }

    /// Values that are no parameter, one tensor of `[lanes, count]`.
    pub(crate) fn buffer(&mut self, name: String, count: usize, value: f32) -> Result<Tensor> {
        let values = Tensor::full(value, (self.lanes.len(), count), self.device)?.contiguous()?;
        self.named.push(Named {
            name,
            kind: Kind::Buffer,
            shape: vec![count],
            order: Order::AsInPytorch,
            values: values.clone(),
        });
        Ok(values)
    }

    fn add(
        &mut self,
        name: String,
        dims: &[usize],
        shape: &[usize],
        order: Order,
        values: Vec<f32>,
        role: Role,
    ) -> Result<Parameter> {
        let all_dims = [&[self.lanes.len()], dims].concat();
        let parameter = Parameter::new(Tensor::from_vec(values, all_dims, self.device)?, role);
        let values = parameter.values().clone();
        self.named.push(Named { name, kind: Kind::Parameter, shape: shape.to_vec(), order, values });
        self.parameters.push(parameter.clone());
        Ok(parameter)
    }
}

/// Memory for this many values, or an error where the process would otherwise be ended.
fn reserve(count: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(count) {
        Ok(()) => Ok(values),
        Err(_) => candle_core::bail!("out of memory: a parameter of {count} values"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_turns_into_pytorchs_order_and_back() {
        // Two blocks of 3 pixels with 2 channels: pixel, channel = 00 01 10 11 20 21.
        let order = Order::ChannelsLast { pixels: 3, channels: 2 };
        let engine = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0, 100.0, 101.0, 110.0, 111.0, 120.0, 121.0];
        let pytorch = [0.0, 10.0, 20.0, 1.0, 11.0, 21.0, 100.0, 110.0, 120.0, 101.0, 111.0, 121.0];
        assert_eq!(order.to_pytorch(&engine), pytorch);
        assert_eq!(order.to_engine(&pytorch), engine);
    }
}
