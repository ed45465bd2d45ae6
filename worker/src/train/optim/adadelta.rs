//! Adadelta after Zeiler (2012): `torch.optim.Adadelta`.

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, missing, scaled, settled};
use crate::train::hyper::UpdateSettings;

/// One lane's step. Moments: the mean squares of the gradients and of the changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adadelta {
    learning_rate: f32,
    weight_decay: f32,
    rho: f32,
    one_minus_rho: f32,
    epsilon: f32,
}

impl Adadelta {
    pub(super) fn of(settings: &UpdateSettings, now: Now) -> Self {
        Self {
            learning_rate: now.learning_rate as f32,
            weight_decay: now.weight_decay as f32,
            rho: settings.rho as f32,
            one_minus_rho: (1.0 - settings.rho) as f32,
            epsilon: settings.epsilon as f32,
        }
    }
}

impl Update for Adadelta {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], [square, changes, _]: Moments<'_>) {
        for (((p, g), square), changes) in p.iter_mut().zip(g).zip(square).zip(changes) {
            let g = *g + self.weight_decay * *p;
            *square = settled(self.rho * *square + self.one_minus_rho * g * g);
            let change = (*changes + self.epsilon).sqrt() / (*square + self.epsilon).sqrt() * g;
            *changes = settled(self.rho * *changes + self.one_minus_rho * change * change);
            *p -= self.learning_rate * change;
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        let Self { learning_rate, weight_decay, rho, one_minus_rho, epsilon } = *self;
        Some(("adadelta", vec![learning_rate, weight_decay, rho, one_minus_rho, epsilon]))
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let [square, changes, ..] = moments else { return missing("Adadelta", 2) };
        let root = |x: &Tensor| (x + f64::from(self.epsilon))?.sqrt();
        let g = (g + scaled(p, self.weight_decay)?)?;
        let square = (scaled(square, self.rho)? + scaled(&g.sqr()?, self.one_minus_rho)?)?;
        let change = ((root(changes)? / root(&square)?)? * g)?;
        let changes = (scaled(changes, self.rho)? + scaled(&change.sqr()?, self.one_minus_rho)?)?;
        let parameter = (p - scaled(&change, self.learning_rate)?)?;
        Ok(Updated { parameter, moments: vec![square, changes] })
    }
}
