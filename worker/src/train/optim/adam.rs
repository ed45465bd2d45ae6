//! Adam after Kingma and Ba (2015), AdamW after Loshchilov and Hutter (2019): `torch.optim.Adam`
//! and `torch.optim.AdamW`.

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, missing, scaled, settled};
use crate::train::hyper::UpdateSettings;

/// One lane's step. Moments: the means of the gradient and of its square.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adam {
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

impl Adam {
    /// Adam: weight decay is part of the gradient.
    pub(super) fn coupled(settings: &UpdateSettings, now: Now) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(now.step as f64);
        Self {
            shrink: 1.0,
            weight_decay: now.weight_decay as f32,
            one_minus_beta1: (1.0 - settings.beta1) as f32,
            beta2: settings.beta2 as f32,
            one_minus_beta2: (1.0 - settings.beta2) as f32,
            inverse_root_correction: (1.0 / correction(settings.beta2).sqrt()) as f32,
            step_size: (now.learning_rate / correction(settings.beta1)) as f32,
            epsilon: settings.epsilon as f32,
        }
    }

    /// AdamW: weight decay shrinks the parameters.
    pub(super) fn decoupled(settings: &UpdateSettings, now: Now) -> Self {
        Self { shrink: now.shrink(), weight_decay: 0.0, ..Self::coupled(settings, now) }
    }
}

impl Update for Adam {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], [first, second, _]: Moments<'_>) {
        for (((p, g), first), second) in p.iter_mut().zip(g).zip(first).zip(second) {
            let g = *g + self.weight_decay * *p;
            *first = settled(*first + (g - *first) * self.one_minus_beta1);
            *second = settled(self.beta2 * *second + self.one_minus_beta2 * g * g);
            let denominator = second.sqrt() * self.inverse_root_correction + self.epsilon;
            *p = *p * self.shrink - self.step_size * *first / denominator;
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        let Self { shrink, weight_decay, one_minus_beta1, beta2, one_minus_beta2, .. } = *self;
        let Self { inverse_root_correction, step_size, epsilon, .. } = *self;
        let decays = [shrink, weight_decay, one_minus_beta1, beta2, one_minus_beta2];
        Some(("adam", [&decays[..], &[inverse_root_correction, step_size, epsilon]].concat()))
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let [first, second, ..] = moments else { return missing("Adam", 2) };
        let g = (g + scaled(p, self.weight_decay)?)?;
        let first = (first + scaled(&(&g - first)?, self.one_minus_beta1)?)?;
        let second = (scaled(second, self.beta2)? + scaled(&g.sqr()?, self.one_minus_beta2)?)?;
        let root = scaled(&second.sqrt()?, self.inverse_root_correction)?;
        let change = (scaled(&first, self.step_size)? / (root + f64::from(self.epsilon))?)?;
        Ok(Updated { parameter: (scaled(p, self.shrink)? - change)?, moments: vec![first, second] })
    }
}
