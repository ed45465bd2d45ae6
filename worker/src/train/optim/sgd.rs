//! Stochastic gradient descent with momentum: `torch.optim.SGD`. Nesterov's form is Sutskever et
//! al.'s (2013).

use candle_core::{Result, Tensor};

use super::{Moments, Now, Update, Updated, scaled, settled};
use crate::train::hyper::{MomentumForm, UpdateSettings};

/// One lane's step. Moments: the momentum, where a lane has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sgd {
    learning_rate: f32,
    weight_decay: f32,
    momentum: f32,
    form: MomentumForm,
}

impl Sgd {
    pub(super) fn of(settings: &UpdateSettings, now: Now) -> Self {
        Self {
            learning_rate: now.learning_rate as f32,
            weight_decay: now.weight_decay as f32,
            momentum: settings.momentum as f32,
            form: settings.momentum_form,
        }
    }
}

impl Update for Sgd {
    #[inline(always)]
    fn fused(&self, p: &mut [f32], g: &[f32], [buffer, ..]: Moments<'_>) {
        if self.momentum == 0.0 {
            for (p, g) in p.iter_mut().zip(g) {
                *p -= self.learning_rate * (*g + self.weight_decay * *p);
            }
            return;
        }
        // The buffer begins at 0, so that the first step makes it the gradient, as in PyTorch.
        for ((p, g), buffer) in p.iter_mut().zip(g).zip(buffer) {
            let g = *g + self.weight_decay * *p;
            *buffer = settled(self.momentum * *buffer + g);
            let direction = match self.form {
                MomentumForm::Plain => *buffer,
                MomentumForm::Nesterov => g + self.momentum * *buffer,
            };
            *p -= self.learning_rate * direction;
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Option<(&'static str, Vec<f32>)> {
        let Self { learning_rate, weight_decay, momentum, form } = *self;
        let nesterov = f32::from(form == MomentumForm::Nesterov);
        Some(("sgd", vec![learning_rate, weight_decay, momentum, nesterov]))
    }

    fn composed(&self, p: &Tensor, g: &Tensor, moments: &[Tensor]) -> Result<Updated> {
        let g = (g + scaled(p, self.weight_decay)?)?;
        let [buffer, ..] = moments else {
            return Ok(Updated { parameter: (p - scaled(&g, self.learning_rate)?)?, moments: Vec::new() });
        };
        let buffer = (scaled(buffer, self.momentum)? + &g)?;
        let direction = match self.form {
            MomentumForm::Plain => buffer.clone(),
            MomentumForm::Nesterov => (g + scaled(&buffer, self.momentum)?)?,
        };
        let parameter = (p - scaled(&direction, self.learning_rate)?)?;
        Ok(Updated { parameter, moments: vec![buffer] })
    }
}
