//! Optimizers, by PyTorch's definitions (`torch.optim`, version 2) where it has them and by their
//! papers where not: one pass over parameter, gradient and state, in place, each lane with its own
//! numbers. Each rule is one small file with its fused form beside its composed one.
//!
//! What is done to gradients before that is in `gradient`; where learning rates come from is in
//! [`super::schedule`].

/// Evaluates an expression with `$rule` standing for the update that a rule holds.
macro_rules! by_rule {
    ($of:expr, $rule:ident => $body:expr) => {
        match $of {
            Rule::Sgd($rule) => $body,
            Rule::RmsProp($rule) => $body,
            Rule::Adagrad($rule) => $body,
            Rule::Adadelta($rule) => $body,
            Rule::Adam($rule) => $body,
            Rule::NAdam($rule) => $body,
            Rule::Lamb($rule) => $body,
            Rule::Lion($rule) => $body,
        }
    };
}

mod adadelta;
mod adagrad;
mod adam;
#[cfg(feature = "cuda")]
mod cuda;
mod gradient;
mod lamb;
mod lion;
mod nadam;
mod rmsprop;
mod sgd;

use candle_core::{Device, Result, Tensor};

use self::adadelta::Adadelta;
use self::adagrad::Adagrad;
use self::adam::Adam;
use self::lamb::Lamb;
use self::lion::Lion;
use self::nadam::NAdam;
use self::rmsprop::RmsProp;
use self::sgd::Sgd;
use super::element::{Reading, modify};
use super::hyper::{GradientSettings, Lane, OptimizerKind, UpdateSettings};
use super::params::{Parameter, Role};
use super::simd;

/// An optimizer with its state.
#[derive(Debug)]
pub struct Optimizer {
    kind: OptimizerKind,
    updates: Vec<UpdateSettings>,
    gradients: Vec<GradientSettings>,
    /// Steps taken.
    pub steps: u64,
    /// For each parameter its moments, each of the parameter's shape, in the order that the rule's
    /// file gives.
    pub state: Vec<Vec<Tensor>>,
}

impl Optimizer {
    /// An optimizer for these parameters that has taken no step.
    pub fn new(kind: OptimizerKind, lanes: &[Lane], parameters: &[Parameter]) -> Result<Self> {
        let updates: Vec<UpdateSettings> = lanes.iter().map(|lane| lane.update).collect();
        let gradients = lanes.iter().map(|lane| lane.gradient).collect();
        let momentum = usize::from(updates.iter().any(|lane| lane.momentum > 0.0));
        let moments = match kind {
            OptimizerKind::Sgd => momentum,
            OptimizerKind::RmsProp if updates.iter().any(|lane| lane.centered) => 3,
            OptimizerKind::RmsProp => 1 + momentum,
            OptimizerKind::Adagrad | OptimizerKind::Lion => 1,
            OptimizerKind::Adadelta
            | OptimizerKind::Adam
            | OptimizerKind::AdamW
            | OptimizerKind::NAdam
            | OptimizerKind::Lamb => 2,
        };
        let zeros = |parameter: &Parameter| (0..moments).map(|_| parameter.values().zeros_like()).collect();
        let state = parameters.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self { kind, updates, gradients, steps: 0, state })
    }

    /// Updates all parameters with the gradients that a backward pass left, each lane at its learning rate.
    pub fn step(&mut self, parameters: &[Parameter], learning_rates: &[f64]) -> Result<()> {
        self.steps += 1;
        let take = |parameter: &Parameter| match parameter.take_gradient() {
            Some(gradient) => gradient.contiguous(),
            None => {
                candle_core::bail!("a parameter of shape {:?} has no gradient", parameter.values().dims())
            }
        };
        let gradients = parameters.iter().map(take).collect::<Result<Vec<Tensor>>>()?;
        let gradients = gradient::prepared(&self.gradients, parameters, gradients)?;
        let rules_of = |role| self.rules(role, learning_rates);
        let (weights, others) = (rules_of(Role::Weight), rules_of(Role::BiasOrNorm));
        #[cfg(feature = "cuda")]
        if let Some(done) = cuda::step(parameters, &gradients, &self.state, [&weights, &others]) {
            return done;
        }
        for ((parameter, gradient), state) in parameters.iter().zip(&gradients).zip(&self.state) {
            let rules = match parameter.role() {
                Role::Weight => &weights,
                Role::BiasOrNorm => &others,
            };
            match parameter.values().device() {
                Device::Cpu => fused(rules, parameter.values(), gradient, state)?,
                Device::Cuda(_) | Device::Metal(_) => {
                    composed(rules, parameter.values(), gradient, state)?;
                }
            }
        }
        Ok(())
    }

    /// What this step does in each lane to parameters of this role.
    fn rules(&self, role: Role, learning_rates: &[f64]) -> Vec<Rule> {
        let lanes = self.updates.iter().zip(learning_rates);
        let rule = |(settings, learning_rate): (&UpdateSettings, &f64)| {
            let weight_decay = settings.weight_decay_of(role);
            let now = Now { step: self.steps, learning_rate: *learning_rate, weight_decay };
            Rule::of(self.kind, settings, now)
        };
        lanes.map(rule).collect()
    }
}

/// What changes from step to step and from parameter to parameter.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// From 1.
    step: u64,
    learning_rate: f64,
    weight_decay: f64,
}

impl Now {
    /// What decoupled weight decay multiplies parameters by.
    fn shrink(self) -> f32 {
        (1.0 - self.learning_rate * self.weight_decay) as f32
    }
}

/// One lane's part of what a rule keeps; what it does not keep is empty.
type Moments<'a> = [&'a mut [f32]; MOST_MOMENTS];

/// The most that any rule keeps.
const MOST_MOMENTS: usize = 3;

/// A parameter after a step, and what is kept of it.
struct Updated {
    parameter: Tensor,
    moments: Vec<Tensor>,
}

/// One lane's update in one step, its numbers computed in f64.
trait Update {
    /// On the CPU, in place.
    fn fused(&self, p: &mut [f32], g: &[f32], moments: Moments<'_>);
    /// The kernel for NVIDIA GPUs, and the numbers that it takes of each lane; `None` if there is none.
    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)>;
    /// In candle's ops, on other devices.
    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated>;
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Sgd(Sgd),
    RmsProp(RmsProp),
    Adagrad(Adagrad),
    Adadelta(Adadelta),
    Adam(Adam),
    NAdam(NAdam),
    Lamb(Lamb),
    Lion(Lion),
}

impl Rule {
    fn of(kind: OptimizerKind, settings: &UpdateSettings, now: Now) -> Self {
        match kind {
            OptimizerKind::Sgd => Self::Sgd(Sgd::of(settings, now)),
            OptimizerKind::RmsProp => Self::RmsProp(RmsProp::of(settings, now)),
            OptimizerKind::Adagrad => Self::Adagrad(Adagrad::of(settings, now)),
            OptimizerKind::Adadelta => Self::Adadelta(Adadelta::of(settings, now)),
            OptimizerKind::Adam => Self::Adam(Adam::coupled(settings, now)),
            OptimizerKind::AdamW => Self::Adam(Adam::decoupled(settings, now)),
            OptimizerKind::NAdam => Self::NAdam(NAdam::of(settings, now)),
            OptimizerKind::Lamb => Self::Lamb(Lamb::of(settings, now)),
            OptimizerKind::Lion => Self::Lion(Lion::of(settings, now)),
        }
    }
}

/// The update on the CPU.
fn fused(rules: &[Rule], parameter: &Tensor, gradient: &Tensor, state: &[Tensor]) -> Result<()> {
    let gradient = Reading::of(gradient);
    let gradient = gradient.slice::<f32>()?;
    let size = gradient.len() / rules.len();
    let each_lane = |p: &mut [f32], mut moments: Moments<'_>| {
        for (lane, rule) in rules.iter().enumerate() {
            let of_lane = lane * size..(lane + 1) * size;
            let part = |moment: &mut &mut [f32]| if moment.is_empty() { 0..0 } else { of_lane.clone() };
            let parts = moments.each_mut().map(|moment| {
                let part = part(moment);
                &mut moment[part]
            });
            let (p, g) = (&mut p[of_lane.clone()], &gradient[of_lane.clone()]);
            by_rule!(rule, rule => simd::dispatch(
                #[inline(always)]
                || rule.fused(p, g, parts),
            ));
        }
    };
    modify(parameter, |p| match state {
        [] => {
            each_lane(p, [&mut [], &mut [], &mut []]);
            Ok(())
        }
        [a] => modify(a, |a| each_lane(p, [a, &mut [], &mut []])),
        [a, b] => modify(a, |a| modify(b, |b| each_lane(p, [a, b, &mut []])))?,
        [a, b, c, ..] => modify(a, |a| modify(b, |b| modify(c, |c| each_lane(p, [a, b, c]))))??,
    })?
}

/// The update in candle's ops, on other devices.
fn composed(rules: &[Rule], parameter: &Tensor, gradient: &Tensor, state: &[Tensor]) -> Result<()> {
    for (lane, rule) in rules.iter().enumerate() {
        let p = parameter.narrow(0, lane, 1)?;
        let g = gradient.narrow(0, lane, 1)?;
        let moments = state.iter().map(|moment| moment.narrow(0, lane, 1)).collect::<Result<Vec<_>>>()?;
        let updated = by_rule!(rule, rule => rule.composed(&p, &g, &moments))?;
        parameter.slice_set(&updated.parameter.contiguous()?, 0, lane)?;
        for (moment, fresh) in state.iter().zip(updated.moments) {
            moment.slice_set(&fresh.contiguous()?, 0, lane)?;
        }
    }
    Ok(())
}

fn scaled(x: &Tensor, factor: f32) -> Result<Tensor> {
    x * f64::from(factor)
}

/// A moment as it is kept: 0 once it is subnormal.
///
/// The gradients of a unit that is never active are 0, and the moments of its weights decay until rounding
/// leaves them subnormal for ever. On a CPU their updates would take twice as long, and no parameter would
/// move: what they come to is lost in its rounding.
#[inline(always)]
fn settled(moment: f32) -> f32 {
    if moment.abs() < f32::MIN_POSITIVE { 0.0 } else { moment }
}

/// 1, -1 or 0; NaN stays NaN, since a diverged run must show as one.
#[inline(always)]
fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

/// The error of a state that was made for another rule.
fn missing(rule: &str, moments: usize) -> Result<Updated> {
    candle_core::bail!("{rule} keeps {moments} tensors of each parameter, but its state has fewer")
}

#[cfg(test)]
mod tests;
