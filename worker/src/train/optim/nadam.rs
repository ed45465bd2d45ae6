//! NAdam, Adam with Nesterov's momentum, after Dozat (2016): `torch.optim.NAdam` with coupled
//! weight decay.

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, missing, scaled, settled};
use crate::train::hyper::UpdateSettings;

/// One lane's step. Moments: the means of the gradient and of its square.
#[derive(Clone, Copy, Debug)]
pub(super) struct NAdam {
    weight_decay: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// Of the second moment, to correct its bias.
    inverse_root_correction: f32,
    /// What this step's gradient counts.
    gradient_step: f32,
    /// What the first moment counts.
    momentum_step: f32,
    epsilon: f32,
}

impl NAdam {
    pub(super) fn of(settings: &UpdateSettings, now: Now) -> Self {
        let momentum =
            |step: u64| settings.beta1 * (1.0 - 0.5 * 0.96f64.powf(step as f64 * settings.momentum_decay));
        let product = product_to(now.step, momentum);
        let (this, next) = (momentum(now.step), momentum(now.step + 1));
        Self {
            weight_decay: now.weight_decay as f32,
            one_minus_beta1: (1.0 - settings.beta1) as f32,
            beta2: settings.beta2 as f32,
            one_minus_beta2: (1.0 - settings.beta2) as f32,
            inverse_root_correction: (1.0 / (1.0 - settings.beta2.powf(now.step as f64)).sqrt()) as f32,
            gradient_step: (now.learning_rate * (1.0 - this) / (1.0 - product)) as f32,
            momentum_step: (now.learning_rate * next / (1.0 - product * next)) as f32,
            epsilon: settings.epsilon as f32,
        }
    }
}

/// The product of all momenta up to a step: a function of the step, so that there is no state to keep.
fn product_to(step: u64, momentum: impl Fn(u64) -> f64) -> f64 {
    let mut product = 1.0;
    for step in 1..=step {
        product *= momentum(step);
        // It is taken from 1, where what is smaller leaves no trace.
        if product < f64::EPSILON / 4.0 {
            return 0.0;
        }
    }
    product
}

impl Update for NAdam {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], [first, second, _]: Moments<'_>) {
        for (((p, g), first), second) in p.iter_mut().zip(g).zip(first).zip(second) {
            let g = *g + self.weight_decay * *p;
            *first = settled(*first + (g - *first) * self.one_minus_beta1);
            *second = settled(self.beta2 * *second + self.one_minus_beta2 * g * g);
            let denominator = second.sqrt() * self.inverse_root_correction + self.epsilon;
            *p -= (self.gradient_step * g + self.momentum_step * *first) / denominator;
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        let Self { weight_decay, one_minus_beta1, beta2, one_minus_beta2, .. } = *self;
        let Self { inverse_root_correction, gradient_step, momentum_step, epsilon, .. } = *self;
        let decays = [weight_decay, one_minus_beta1, beta2, one_minus_beta2];
        let steps = [inverse_root_correction, gradient_step, momentum_step, epsilon];
        Some(("nadam", [decays, steps].concat()))
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let [first, second, ..] = moments else { return missing("NAdam", 2) };
        let g = (g + scaled(p, self.weight_decay)?)?;
        let first = (first + scaled(&(&g - first)?, self.one_minus_beta1)?)?;
        let second = (scaled(second, self.beta2)? + scaled(&g.sqr()?, self.one_minus_beta2)?)?;
        let root = scaled(&second.sqrt()?, self.inverse_root_correction)?;
        let direction = (scaled(&g, self.gradient_step)? + scaled(&first, self.momentum_step)?)?;
        let parameter = (p - (direction / (root + f64::from(self.epsilon))?)?)?;
        Ok(Updated { parameter, moments: vec![first, second] })
    }
}
