//! Adagrad after Duchi et al. (2011): `torch.optim.Adagrad`, its sums begun at 0.

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, missing, scaled};
use crate::train::hyper::UpdateSettings;

/// One lane's step. Moments: the sum of squared gradients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adagrad {
    learning_rate: f32,
    weight_decay: f32,
    epsilon: f32,
}

impl Adagrad {
    pub(super) fn of(settings: &UpdateSettings, now: Now) -> Self {
        let slowing = 1.0 + (now.step - 1) as f64 * settings.learning_rate_decay;
        Self {
            learning_rate: (now.learning_rate / slowing) as f32,
            weight_decay: now.weight_decay as f32,
            epsilon: settings.epsilon as f32,
        }
    }
}

impl Update for Adagrad {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], [sum, ..]: Moments<'_>) {
        for ((p, g), sum) in p.iter_mut().zip(g).zip(sum) {
            let g = *g + self.weight_decay * *p;
            *sum += g * g;
            *p -= self.learning_rate * g / (sum.sqrt() + self.epsilon);
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        let Self { learning_rate, weight_decay, epsilon } = *self;
        Some(("adagrad", vec![learning_rate, weight_decay, epsilon]))
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let [sum, ..] = moments else { return missing("Adagrad", 1) };
        let g = (g + scaled(p, self.weight_decay)?)?;
        let sum = (sum + g.sqr()?)?;
        let change = (scaled(&g, self.learning_rate)? / (sum.sqrt()? + f64::from(self.epsilon))?)?;
        Ok(Updated { parameter: (p - change)?, moments: vec![sum] })
    }
}
