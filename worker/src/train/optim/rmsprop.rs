//! RMSProp after Tieleman and Hinton (2012), centered after Graves (2013): `torch.optim.RMSprop`.

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, missing, scaled, settled};
use crate::train::hyper::UpdateSettings;

/// One lane's step. Moments: the mean square, the momentum where a lane has one, the mean gradient
/// where a lane is centered.
#[derive(Clone, Copy, Debug)]
pub(super) struct RmsProp {
    learning_rate: f32,
    weight_decay: f32,
    momentum: f32,
    alpha: f32,
    one_minus_alpha: f32,
    epsilon: f32,
    centered: bool,
}

impl RmsProp {
    pub(super) fn of(settings: &UpdateSettings, now: Now) -> Self {
        Self {
            learning_rate: now.learning_rate as f32,
            weight_decay: now.weight_decay as f32,
            momentum: settings.momentum as f32,
            alpha: settings.alpha as f32,
            one_minus_alpha: (1.0 - settings.alpha) as f32,
            epsilon: settings.epsilon as f32,
            centered: settings.centered,
        }
    }

    #[inline(always)]
    fn fused_centered(&self, p: &mut [f32], g: &[f32], [square, buffer, mean]: Moments<'_>) {
        for ((((p, g), square), buffer), mean) in p.iter_mut().zip(g).zip(square).zip(buffer).zip(mean) {
            let g = *g + self.weight_decay * *p;
            *square = settled(self.alpha * *square + self.one_minus_alpha * g * g);
            *mean = settled(*mean + (g - *mean) * self.one_minus_alpha);
            // Of gradients that hardly vary, rounding can make the variance negative.
            let variance = *square - *mean * *mean;
            let deviation = if variance < 0.0 { 0.0 } else { variance.sqrt() };
            *buffer = settled(self.momentum * *buffer + g / (deviation + self.epsilon));
            *p -= self.learning_rate * *buffer;
        }
    }
}

impl Update for RmsProp {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], moments: Moments<'_>) {
        if self.centered {
            return self.fused_centered(p, g, moments);
        }
        let [square, buffer, _] = moments;
        if self.momentum == 0.0 {
            for ((p, g), square) in p.iter_mut().zip(g).zip(square) {
                let g = *g + self.weight_decay * *p;
                *square = settled(self.alpha * *square + self.one_minus_alpha * g * g);
                *p -= self.learning_rate * g / (square.sqrt() + self.epsilon);
            }
            return;
        }
        for (((p, g), square), buffer) in p.iter_mut().zip(g).zip(square).zip(buffer) {
            let g = *g + self.weight_decay * *p;
            *square = settled(self.alpha * *square + self.one_minus_alpha * g * g);
            *buffer = settled(self.momentum * *buffer + g / (square.sqrt() + self.epsilon));
            *p -= self.learning_rate * *buffer;
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        let Self { learning_rate, weight_decay, momentum, alpha, one_minus_alpha, epsilon, centered } = *self;
        let centered = f32::from(centered);
        let numbers = vec![learning_rate, weight_decay, momentum, alpha, one_minus_alpha, epsilon, centered];
        Some(("rmsprop", numbers))
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let [square, others @ ..] = moments else { return missing("RMSProp", 1) };
        let g = (g + scaled(p, self.weight_decay)?)?;
        let square = (scaled(square, self.alpha)? + scaled(&g.sqr()?, self.one_minus_alpha)?)?;
        let mut fresh = vec![square.clone()];
        let (deviation, mean) = match (self.centered, others) {
            (false, _) => (square.sqrt()?, None),
            (true, [_, mean, ..]) => {
                let mean = (mean + scaled(&(&g - mean)?, self.one_minus_alpha)?)?;
                ((square - mean.sqr()?)?.relu()?.sqrt()?, Some(mean))
            }
            (true, _) => return missing("centered RMSProp", 3),
        };
        let mut direction = (g / (deviation + f64::from(self.epsilon))?)?;
        if let [buffer, ..] = others {
            direction = (scaled(buffer, self.momentum)? + direction)?;
            fresh.push(direction.clone());
        }
        fresh.extend(mean);
        Ok(Updated { parameter: (p - scaled(&direction, self.learning_rate)?)?, moments: fresh })
    }
}
