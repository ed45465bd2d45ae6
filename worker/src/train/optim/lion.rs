//! Lion after Chen et al. (2023), Algorithm 2. The paper's betas are 0.9 and 0.99.

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, missing, scaled, sign};
use crate::train::hyper::UpdateSettings;

/// One lane's step. Moments: the mean gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lion {
    learning_rate: f32,
    /// What parameters shrink by: the decoupled weight decay.
    shrink: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
}

impl Lion {
    pub(super) fn of(settings: &UpdateSettings, now: Now) -> Self {
        Self {
            learning_rate: now.learning_rate as f32,
            shrink: now.shrink(),
            beta1: settings.beta1 as f32,
            one_minus_beta1: (1.0 - settings.beta1) as f32,
            beta2: settings.beta2 as f32,
            one_minus_beta2: (1.0 - settings.beta2) as f32,
        }
    }
}

impl Update for Lion {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], [mean, ..]: Moments<'_>) {
        for ((p, g), mean) in p.iter_mut().zip(g).zip(mean) {
            let direction = sign(self.beta1 * *mean + self.one_minus_beta1 * *g);
            *mean = self.beta2 * *mean + self.one_minus_beta2 * *g;
            *p = *p * self.shrink - self.learning_rate * direction;
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        let Self { learning_rate, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2 } = *self;
        Some(("lion", vec![learning_rate, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2]))
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let [mean, ..] = moments else { return missing("Lion", 1) };
        let direction = (scaled(mean, self.beta1)? + scaled(g, self.one_minus_beta1)?)?.sign()?;
        let mean = (scaled(mean, self.beta2)? + scaled(g, self.one_minus_beta2)?)?;
        let parameter = (scaled(p, self.shrink)? - scaled(&direction, self.learning_rate)?)?;
        Ok(Updated { parameter, moments: vec![mean] })
    }
}
