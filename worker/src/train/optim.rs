//! Optimizers, by PyTorch's definitions (`torch.optim`, version 2): one pass over parameter,
//! gradient and state, in place, each lane with its own numbers.
//!
//! Adam is after Kingma and Ba (2015), AdamW after Loshchilov and Hutter (2019), RMSProp after
//! Tieleman and Hinton (2012), Nesterov's momentum in Sutskever et al.'s form (2013).

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor};

use super::element::{Reading, modify};
use super::hyper::{Lane, MomentumForm, OptimizerKind, UpdateSettings};
use super::params::Parameter;
use super::simd;

/// An optimizer with its state.
#[derive(Debug)]
pub struct Optimizer {
    kind: OptimizerKind,
    lanes: Vec<UpdateSettings>,
    /// Steps taken.
    pub steps: u64,
    /// For each parameter its moments, each of the parameter's shape: the mean square or Adam's
    /// two moments first, the momentum last.
    pub state: Vec<Vec<Tensor>>,
}

impl Optimizer {
    /// An optimizer for these parameters that has taken no step.
    pub fn new(kind: OptimizerKind, lanes: &[Lane], parameters: &[Parameter]) -> Result<Self> {
        let lanes: Vec<UpdateSettings> = lanes.iter().map(|lane| lane.update).collect();
        let momentum = usize::from(lanes.iter().any(|lane| lane.momentum > 0.0));
        let moments = match kind {
            OptimizerKind::Sgd => momentum,
            OptimizerKind::RmsProp => 1 + momentum,
            OptimizerKind::Adam | OptimizerKind::AdamW => 2,
        };
        let zeros = |parameter: &Parameter| (0..moments).map(|_| parameter.values().zeros_like()).collect();
        let state = parameters.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self {
            kind,
            lanes,
            steps: 0,
            state,
        })
    }

    /// Updates all parameters with the gradients of a backward pass.
    pub fn step(&mut self, parameters: &[Parameter], mut gradients: GradStore) -> Result<()> {
        self.steps += 1;
        let rules = self.rules();
        for (parameter, state) in parameters.iter().zip(&self.state) {
            let Some(gradient) = parameter.take_gradient(&mut gradients) else {
                candle_core::bail!(
                    "a parameter of shape {:?} has no gradient",
                    parameter.values().dims()
                );
            };
            let gradient = gradient.contiguous()?;
            match parameter.values().device() {
                Device::Cpu => fused(&rules, parameter.values(), &gradient, state)?,
                Device::Cuda(_) | Device::Metal(_) => {
                    composed(&rules, parameter.values(), &gradient, state)?;
                }
            }
        }
        Ok(())
    }

    /// What this step does in each lane.
    fn rules(&self) -> Vec<Rule> {
        self.lanes
            .iter()
            .map(|settings| Rule::of(self.kind, settings, self.steps))
            .collect()
    }
}

/// One lane's update in one step, its numbers computed in f64.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Sgd(Sgd),
    RmsProp(RmsProp),
    Adam(Adam),
}

#[derive(Clone, Copy, Debug)]
struct Sgd {
    learning_rate: f32,
    weight_decay: f32,
    momentum: f32,
    form: MomentumForm,
}

#[derive(Clone, Copy, Debug)]
struct RmsProp {
    learning_rate: f32,
    weight_decay: f32,
    momentum: f32,
    alpha: f32,
    one_minus_alpha: f32,
    epsilon: f32,
}

#[derive(Clone, Copy, Debug)]
struct Adam {
    /// What parameters shrink by: the decoupled weight decay.
    shrink: f32,
    /// The coupled weight decay.
    weight_decay: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// Of the second moment, to correct its bias.
    inverse_root_correction: f32,
    step_size: f32,
    epsilon: f32,
}

impl Rule {
    fn of(kind: OptimizerKind, settings: &UpdateSettings, step: u64) -> Self {
        let (learning_rate, weight_decay) = (settings.learning_rate as f32, settings.weight_decay as f32);
        let momentum = settings.momentum as f32;
        match kind {
            OptimizerKind::Sgd => Self::Sgd(Sgd {
                learning_rate,
                weight_decay,
                momentum,
                form: settings.momentum_form,
            }),
            OptimizerKind::RmsProp => Self::RmsProp(RmsProp {
                learning_rate,
                weight_decay,
                momentum,
                alpha: settings.alpha as f32,
                one_minus_alpha: (1.0 - settings.alpha) as f32,
                epsilon: settings.epsilon as f32,
            }),
            OptimizerKind::Adam | OptimizerKind::AdamW => {
                let decoupled = kind == OptimizerKind::AdamW;
                let correction = |beta: f64| 1.0 - beta.powf(step as f64);
                Self::Adam(Adam {
                    shrink: match decoupled {
                        true => (1.0 - settings.learning_rate * settings.weight_decay) as f32,
                        false => 1.0,
                    },
                    weight_decay: if decoupled { 0.0 } else { weight_decay },
                    one_minus_beta1: (1.0 - settings.beta1) as f32,
                    beta2: settings.beta2 as f32,
                    one_minus_beta2: (1.0 - settings.beta2) as f32,
                    inverse_root_correction: (1.0 / correction(settings.beta2).sqrt()) as f32,
                    step_size: (settings.learning_rate / correction(settings.beta1)) as f32,
                    epsilon: settings.epsilon as f32,
                })
            }
        }
    }
}

/// The update on the CPU.
fn fused(rules: &[Rule], parameter: &Tensor, gradient: &Tensor, state: &[Tensor]) -> Result<()> {
    let gradient = Reading::of(gradient);
    let gradient = gradient.slice::<f32>()?;
    let size = gradient.len() / rules.len();
    let each_lane = |p: &mut [f32], first: &mut [f32], second: &mut [f32]| {
        for (lane, rule) in rules.iter().enumerate() {
            let of_lane = lane * size..(lane + 1) * size;
            // Moments that this optimizer does not keep are empty.
            let part = |moment: &'_ mut [f32]| -> std::ops::Range<usize> {
                if moment.is_empty() { 0..0 } else { of_lane.clone() }
            };
            let (first_part, second_part) = (part(first), part(second));
            let (first, second) = (&mut first[first_part], &mut second[second_part]);
            let (p, g) = (&mut p[of_lane.clone()], &gradient[of_lane.clone()]);
            simd::dispatch(
                #[inline(always)]
                || match rule {
                    Rule::Sgd(rule) => rule.update(p, g, first),
                    Rule::RmsProp(rule) => rule.update(p, g, first, second),
                    Rule::Adam(rule) => rule.update(p, g, first, second),
                },
            );
        }
    };
    match state {
        [] => modify(parameter, |p| each_lane(p, &mut [], &mut [])),
        [first] => modify(parameter, |p| modify(first, |first| each_lane(p, first, &mut [])))?,
        [first, second, ..] => modify(parameter, |p| {
            modify(first, |first| {
                modify(second, |second| each_lane(p, first, second))
            })?
        })?,
    }
}

impl Sgd {
    #[inline(always)]
    fn update(&self, p: &mut [f32], g: &[f32], buffer: &mut [f32]) {
        if self.momentum == 0.0 {
            for (p, g) in p.iter_mut().zip(g) {
                *p -= self.learning_rate * (*g + self.weight_decay * *p);
            }
            return;
        }
        // The buffer begins at 0, so that the first step makes it the gradient, as in PyTorch.
        for ((p, g), buffer) in p.iter_mut().zip(g).zip(buffer) {
            let g = *g + self.weight_decay * *p;
            *buffer = self.momentum * *buffer + g;
            let direction = match self.form {
                MomentumForm::Plain => *buffer,
                MomentumForm::Nesterov => g + self.momentum * *buffer,
            };
            *p -= self.learning_rate * direction;
        }
    }
}

impl RmsProp {
    #[inline(always)]
    fn update(&self, p: &mut [f32], g: &[f32], square: &mut [f32], buffer: &mut [f32]) {
        if self.momentum == 0.0 {
            for ((p, g), square) in p.iter_mut().zip(g).zip(square) {
                let g = *g + self.weight_decay * *p;
                *square = self.alpha * *square + self.one_minus_alpha * g * g;
                *p -= self.learning_rate * g / (square.sqrt() + self.epsilon);
            }
            return;
        }
        for (((p, g), square), buffer) in p.iter_mut().zip(g).zip(square).zip(buffer) {
            let g = *g + self.weight_decay * *p;
            *square = self.alpha * *square + self.one_minus_alpha * g * g;
            *buffer = self.momentum * *buffer + g / (square.sqrt() + self.epsilon);
            *p -= self.learning_rate * *buffer;
        }
    }
}

impl Adam {
    #[inline(always)]
    fn update(&self, p: &mut [f32], g: &[f32], first: &mut [f32], second: &mut [f32]) {
        for (((p, g), first), second) in p.iter_mut().zip(g).zip(first).zip(second) {
            let g = *g + self.weight_decay * *p;
            *first += (g - *first) * self.one_minus_beta1;
            *second = self.beta2 * *second + self.one_minus_beta2 * g * g;
            let denominator = second.sqrt() * self.inverse_root_correction + self.epsilon;
            *p = *p * self.shrink - self.step_size * *first / denominator;
        }
    }
}

/// The update in candle's ops, on other devices.
fn composed(rules: &[Rule], parameter: &Tensor, gradient: &Tensor, state: &[Tensor]) -> Result<()> {
    for (lane, rule) in rules.iter().enumerate() {
        let p = parameter.narrow(0, lane, 1)?;
        let g = gradient.narrow(0, lane, 1)?;
        let moment = |index: usize| match state.get(index) {
            Some(moment) => moment.narrow(0, lane, 1),
            None => p.zeros_like(),
        };
        let (first, second) = (moment(0)?, moment(1)?);
        let by = |x: &Tensor, factor: f32| x * f64::from(factor);
        let (p, fresh) = match rule {
            Rule::Sgd(rule) => {
                let g = (g + by(&p, rule.weight_decay)?)?;
                let buffer = (by(&first, rule.momentum)? + &g)?;
                let direction = match rule.form {
                    MomentumForm::Plain => buffer.clone(),
                    MomentumForm::Nesterov => (g + by(&buffer, rule.momentum)?)?,
                };
                ((p - by(&direction, rule.learning_rate)?)?, vec![buffer])
            }
            Rule::RmsProp(rule) => {
                let g = (g + by(&p, rule.weight_decay)?)?;
                let square = (by(&first, rule.alpha)? + by(&g.sqr()?, rule.one_minus_alpha)?)?;
                let direction = (g / (square.sqrt()? + f64::from(rule.epsilon))?)?;
                let buffer = (by(&second, rule.momentum)? + direction)?;
                ((p - by(&buffer, rule.learning_rate)?)?, vec![square, buffer])
            }
            Rule::Adam(rule) => {
                let g = (g + by(&p, rule.weight_decay)?)?;
                let first = (&first + by(&(&g - &first)?, rule.one_minus_beta1)?)?;
                let second = (by(&second, rule.beta2)? + by(&g.sqr()?, rule.one_minus_beta2)?)?;
                let root = by(&second.sqrt()?, rule.inverse_root_correction)?;
                let change = (by(&first, rule.step_size)? / (root + f64::from(rule.epsilon))?)?;
                ((by(&p, rule.shrink)? - change)?, vec![first, second])
            }
        };
        parameter.slice_set(&p.contiguous()?, 0, lane)?;
        for (moment, fresh) in state.iter().zip(fresh) {
            moment.slice_set(&fresh.contiguous()?, 0, lane)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{assert_close, flat};

    const SETTINGS: UpdateSettings = UpdateSettings {
        learning_rate: 0.1,
        momentum: 0.9,
        momentum_form: MomentumForm::Plain,
        alpha: 0.99,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.01,
    };

    type Form = fn(&[Rule], &Tensor, &Tensor, &[Tensor]) -> Result<()>;

    /// Where a parameter of 1 goes that is the gradient's sum of 0.5 and the step's number.
    fn trajectory(form: Form, kind: OptimizerKind, lanes: &[UpdateSettings]) -> Vec<f64> {
        let of =
            |value: f32| Tensor::full(value, (lanes.len(), 1), &Device::Cpu).and_then(|x| x.contiguous());
        let parameter = of(1.0).expect("good");
        let state = [of(0.0).expect("good"), of(0.0).expect("good")];
        let mut places = Vec::new();
        for step in 1..=3 {
            let rules: Vec<Rule> = lanes
                .iter()
                .map(|settings| Rule::of(kind, settings, step))
                .collect();
            form(&rules, &parameter, &of(0.5 + step as f32).expect("good"), &state).expect("good");
            places.extend(flat(&parameter));
        }
        places
    }

    /// Three steps by the formulas of PyTorch's documentation, in f64.
    fn by_the_book(kind: OptimizerKind, settings: &UpdateSettings) -> Vec<f64> {
        let UpdateSettings {
            learning_rate: lr,
            momentum: mu,
            alpha,
            beta1,
            beta2,
            epsilon,
            weight_decay,
            ..
        } = *settings;
        let (mut p, mut v, mut m, mut b) = (1.0f64, 0.0f64, 0.0f64, 0.0f64);
        let step = |t: i32| {
            let mut g = 0.5 + f64::from(t);
            match kind {
                // torch.optim.SGD: b_1 = g_1, b_t = mu b_{t-1} + g_t; nesterov: g = g + mu b.
                OptimizerKind::Sgd => {
                    g += weight_decay * p;
                    b = if t == 1 { g } else { mu * b + g };
                    p -= lr
                        * if settings.momentum_form == MomentumForm::Nesterov {
                            g + mu * b
                        } else {
                            b
                        };
                }
                // torch.optim.RMSprop: v = alpha v + (1 - alpha) g^2; b = mu b + g / (sqrt(v) + eps).
                OptimizerKind::RmsProp => {
                    g += weight_decay * p;
                    v = alpha * v + (1.0 - alpha) * g * g;
                    b = mu * b + g / (v.sqrt() + epsilon);
                    p -= lr * b;
                }
                // torch.optim.Adam and AdamW: m and v corrected by 1 - beta^t.
                OptimizerKind::Adam | OptimizerKind::AdamW => {
                    if kind == OptimizerKind::AdamW {
                        p -= lr * weight_decay * p;
                    } else {
                        g += weight_decay * p;
                    }
                    m = beta1 * m + (1.0 - beta1) * g;
                    v = beta2 * v + (1.0 - beta2) * g * g;
                    let (m, v) = (m / (1.0 - beta1.powi(t)), v / (1.0 - beta2.powi(t)));
                    p -= lr * m / (v.sqrt() + epsilon);
                }
            }
            p
        };
        (1..=3).map(step).collect()
    }

    #[test]
    fn steps_are_those_of_pytorchs_formulas() {
        let nesterov = UpdateSettings {
            momentum_form: MomentumForm::Nesterov,
            ..SETTINGS
        };
        let plain = UpdateSettings {
            momentum: 0.0,
            ..SETTINGS
        };
        for (name, kind, settings) in [
            ("sgd", OptimizerKind::Sgd, plain),
            ("sgd with momentum", OptimizerKind::Sgd, SETTINGS),
            ("sgd with Nesterov's momentum", OptimizerKind::Sgd, nesterov),
            ("rmsprop", OptimizerKind::RmsProp, plain),
            ("rmsprop with momentum", OptimizerKind::RmsProp, SETTINGS),
            ("adam", OptimizerKind::Adam, SETTINGS),
            ("adamw", OptimizerKind::AdamW, SETTINGS),
        ] {
            let expected = by_the_book(kind, &settings);
            for (form_name, form) in [("fused", fused as Form), ("composed", composed)] {
                let places = trajectory(form, kind, &[settings]);
                assert_close(&format!("{name}, {form_name}"), &places, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn each_lane_moves_by_its_own_numbers() {
        let other = UpdateSettings {
            learning_rate: 0.01,
            momentum: 0.0,
            weight_decay: 0.0,
            ..SETTINGS
        };
        let kinds = [
            OptimizerKind::Sgd,
            OptimizerKind::RmsProp,
            OptimizerKind::Adam,
            OptimizerKind::AdamW,
        ];
        for kind in kinds {
            let alone = [SETTINGS, other].map(|settings| trajectory(fused, kind, &[settings]));
            let together = trajectory(fused, kind, &[SETTINGS, other]);
            let expected: Vec<f64> = alone[0]
                .iter()
                .zip(&alone[1])
                .flat_map(|(a, b)| [*a, *b])
                .collect();
            assert_eq!(together, expected, "{kind:?}");
        }
    }
}
