//! Updates on an NVIDIA GPU: one launch for all parameters of all lanes.

use candle_core::{Result, Tensor};

use super::{Rule, Update};
use crate::train::cuda::{File, Gpu, Grid};
use crate::train::params::{Parameter, Role};

/// Updates all parameters, those of weights and the others by rules of their own for each lane; `None` if
/// they are elsewhere or the rule has no kernel.
pub(super) fn step(
    parameters: &[Parameter],
    gradients: &[Tensor],
    state: &[Vec<Tensor>],
    rules: [&[Rule]; 2],
) -> Option<Result<()>> {
    let gpu = Gpu::of(parameters.first()?.values())?;
    let mut kernel = None;
    let mut numbers = Vec::new();
    for rule in rules.into_iter().flatten() {
        let (name, of_rule) = by_rule!(rule, rule => rule.kernel())?;
        numbers.extend(of_rule);
        kernel = Some(name);
    }
    Some(launch(gpu, kernel?, numbers, parameters, gradients, state))
}

fn launch(
    gpu: Gpu<'_>,
    kernel: &str,
    numbers: Vec<f32>,
    parameters: &[Parameter],
    gradients: &[Tensor],
    state: &[Vec<Tensor>],
) -> Result<()> {
    let Some(first) = parameters.first() else { return Ok(()) };
    let (lanes, device) = (first.values().dim(0)?, first.values().device());
    let mut table = Vec::with_capacity(parameters.len() * 8);
    let mut blocks = 0;
    for ((parameter, gradient), state) in parameters.iter().zip(gradients).zip(state) {
        let p = parameter.values();
        let size = p.elem_count() / lanes;
        // A kernel touches no moment that its rule does not keep.
        let moment = |index: usize| gpu.pointer(state.get(index).unwrap_or(p));
        let first_number = match parameter.role() {
            Role::Weight => 0,
            Role::BiasOrNorm => numbers.len() / 2,
        };
        table.extend([gpu.pointer(p)?, gpu.pointer(gradient)?, moment(0)?, moment(1)?, moment(2)?]);
        table.extend([size, blocks, first_number].map(|number| number as u64));
        blocks += Grid::over(size).count();
    }
    // Nothing but bits to candle, which knows no unsigned numbers of this length.
    let table: Vec<i64> = table.into_iter().map(u64::cast_signed).collect();
    let (table, numbers) = (Tensor::new(table, device)?, Tensor::new(numbers, device)?);
    let grid = Grid::of_blocks(blocks, lanes);
    gpu.launch((File::Optimizers, kernel), grid, &[&table, &numbers], &[parameters.len()], &[])
}
