//! LAMB after You et al. (2020), Algorithm 2, with their φ(z) = z: each parameter tensor of a lane
//! takes a step as long as the learning rate times its own norm.
//!
//! The paper leaves open what becomes of a tensor of zeros, as biases are at first: like the
//! authors' program, it takes a step of Adam instead of none for ever.

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, missing, scaled, settled};
use crate::train::hyper::UpdateSettings;
use crate::train::ops::sums::row_sums;

/// One lane's step. Moments: the means of the gradient and of its square.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lamb {
    learning_rate: f32,
    /// Decoupled, but within what the norm is taken of.
    weight_decay: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// Of the first moment, to correct its bias.
    inverse_correction: f32,
    /// Of the second moment.
    inverse_root_correction: f32,
    epsilon: f32,
}

impl Lamb {
    pub(super) fn of(settings: &UpdateSettings, now: Now) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(now.step as f64);
        Self {
            learning_rate: now.learning_rate as f32,
            weight_decay: now.weight_decay as f32,
            one_minus_beta1: (1.0 - settings.beta1) as f32,
            beta2: settings.beta2 as f32,
            one_minus_beta2: (1.0 - settings.beta2) as f32,
            inverse_correction: (1.0 / correction(settings.beta1)) as f32,
            inverse_root_correction: (1.0 / correction(settings.beta2).sqrt()) as f32,
            epsilon: settings.epsilon as f32,
        }
    }

    #[inline(always)]
    fn direction(&self, p: f32, first: f32, second: f32) -> f32 {
        let denominator = second.sqrt() * self.inverse_root_correction + self.epsilon;
        first * self.inverse_correction / denominator + self.weight_decay * p
    }
}

impl Update for Lamb {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], [first, second, _]: Moments<'_>) {
        for ((g, first), second) in g.iter().zip(&mut *first).zip(&mut *second) {
            *first = settled(*first + (*g - *first) * self.one_minus_beta1);
            *second = settled(self.beta2 * *second + self.one_minus_beta2 * *g * *g);
        }
        let [place, change] = row_sums(
            [&*p, &*first, &*second],
            #[inline(always)]
            |[p, first, second]| {
                let direction = self.direction(p, first, second);
                [p * p, direction * direction]
            },
        );
        let trust = if place > 0.0 && change > 0.0 { (place / change).sqrt() } else { 1.0 };
        let step = (f64::from(self.learning_rate) * trust) as f32;
        for ((p, first), second) in p.iter_mut().zip(first).zip(second) {
            *p -= step * self.direction(*p, *first, *second);
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        None
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let [first, second, ..] = moments else { return missing("LAMB", 2) };
        let first = (first + scaled(&(g - first)?, self.one_minus_beta1)?)?;
        let second = (scaled(second, self.beta2)? + scaled(&g.sqr()?, self.one_minus_beta2)?)?;
        let denominator = (scaled(&second.sqrt()?, self.inverse_root_correction)? + f64::from(self.epsilon))?;
        let adam = (scaled(&first, self.inverse_correction)? / denominator)?;
        let direction = (adam + scaled(p, self.weight_decay)?)?;
        let (place, change) = (p.sqr()?.sum_all()?.sqrt()?, direction.sqr()?.sum_all()?.sqrt()?);
        let both = (place.gt(0f32)? * change.gt(0f32)?)?;
        let trust = both.where_cond(&(place / change)?, &both.ones_like()?.to_dtype(p.dtype())?)?;
        let step = scaled(&direction.broadcast_mul(&trust)?, self.learning_rate)?;
        Ok(Updated { parameter: (p - step)?, moments: vec![first, second] })
    }
}
