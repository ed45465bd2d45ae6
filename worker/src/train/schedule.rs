//! Learning rates, by the formulas of `torch.optim.lr_scheduler`: functions of the place in
//! training, but for the one schedule that listens to the validation loss.
//!
//! `step` and `exponential` change from epoch to epoch, `cosine` and `one_cycle` from step to step,
//! over all steps of the training. The warm-up of `cosine` is `LinearLR` from `1 / (n + 1)` over its
//! n steps, so that no step is lost on a rate of 0, followed by `CosineAnnealingLR` over the rest.
//! `one_cycle` is `OneCycleLR` with cosine annealing in two phases; momentum is not cycled.

use std::f64::consts::PI;

use super::hyper::{Lane, Schedule};
use super::rng::Moment;

/// How much better a validation loss must be to count, relative to the best before.
const THRESHOLD: f64 = 1e-4;

/// A learning rate is not reduced by less than this.
const SMALLEST_REDUCTION: f64 = 1e-8;

/// Where a step stands in its training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The step.
    pub moment: Moment,
    /// Steps of an epoch.
    pub steps: usize,
    /// Epochs of the training.
    pub epochs: u32,
}

impl Place {
    /// Steps of the whole training before this one.
    fn step(self) -> f64 {
        f64::from(self.moment.epoch - 1) * self.steps as f64 + self.moment.step as f64
    }

    /// Steps of the whole training.
    fn total(self) -> f64 {
        f64::from(self.epochs) * self.steps as f64
    }
}

impl Schedule {
    /// What the learning rate is multiplied by at a place, as far as the place alone says.
    pub fn factor(&self, place: Place) -> f64 {
        let epochs_done = place.moment.epoch - 1;
        match *self {
            Self::Constant | Self::ReduceOnPlateau { .. } => 1.0,
            Self::Step { epochs, gamma } => gamma.powf(f64::from(epochs_done / epochs)),
            Self::Exponential { gamma } => gamma.powf(f64::from(epochs_done)),
            Self::Cosine { warmup_epochs, final_factor } => {
                let warmup = (warmup_epochs * place.steps as f64).round();
                let step = place.step();
                if step < warmup {
                    (step + 1.0) / (warmup + 1.0)
                } else {
                    annealed(1.0, final_factor, (step - warmup) / (place.total() - warmup))
                }
            }
            Self::OneCycle { pct_start, div_factor, final_div_factor } => {
                let start = 1.0 / div_factor;
                let (step, peak, end) = (place.step(), pct_start * place.total() - 1.0, place.total() - 1.0);
                if step < peak {
                    annealed(start, 1.0, step / peak)
                } else if step == peak {
                    1.0
                } else {
                    annealed(1.0, start / final_div_factor, (step - peak) / (end - peak))
                }
            }
        }
    }
}

/// A part of the way from one number to another, along half a cosine.
fn annealed(from: f64, to: f64, part: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * part).cos()) / 2.0
}

/// What `ReduceLROnPlateau` remembers of a lane, with PyTorch's defaults where it has no setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plateau {
    /// What the learning rate is multiplied by.
    pub factor: f64,
    /// The best validation loss.
    pub best: f64,
    /// Epochs since then, or since the last reduction.
    pub bad_epochs: u32,
}

impl Plateau {
    /// Before the first epoch.
    const START: Self = Self { factor: 1.0, best: f64::INFINITY, bad_epochs: 0 };

    /// Takes in the validation loss of an epoch.
    fn observe(&mut self, validation_loss: f64, learning_rate: f64, gamma: f64, patience: u32) {
        if validation_loss < self.best * (1.0 - THRESHOLD) {
            self.best = validation_loss;
            self.bad_epochs = 0;
            return;
        }
        self.bad_epochs += 1;
        if self.bad_epochs > patience {
            self.bad_epochs = 0;
            if learning_rate * self.factor * (1.0 - gamma) > SMALLEST_REDUCTION {
                self.factor *= gamma;
            }
        }
    }
}

/// The learning rates of all lanes.
#[derive(Clone, Debug)]
pub struct Scheduler {
    lanes: Vec<(f64, Schedule)>,
    /// For each lane what it remembers from epoch to epoch: all the state that there is.
    pub plateaus: Vec<Plateau>,
}

impl Scheduler {
    /// Before the first step.
    pub fn new(lanes: &[Lane]) -> Self {
        Self {
            lanes: lanes.iter().map(|lane| (lane.update.learning_rate, lane.schedule)).collect(),
            plateaus: vec![Plateau::START; lanes.len()],
        }
    }

    /// Each lane's learning rate at a step.
    pub fn learning_rates(&self, place: Place) -> Vec<f64> {
        let lanes = self.lanes.iter().zip(&self.plateaus);
        lanes
            .map(|((learning_rate, schedule), plateau)| {
                learning_rate * schedule.factor(place) * plateau.factor
            })
            .collect()
    }

    /// Takes in each lane's validation loss at the end of an epoch.
    pub fn observe(&mut self, validation_losses: impl IntoIterator<Item = f64>) {
        let lanes = self.lanes.iter().zip(&mut self.plateaus);
        for (((learning_rate, schedule), plateau), loss) in lanes.zip(validation_losses) {
            if let Schedule::ReduceOnPlateau { gamma, patience } = *schedule {
                plateau.observe(loss, *learning_rate, gamma, patience);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors of all steps.
    fn curve(schedule: Schedule, steps: usize, epochs: u32) -> Vec<f64> {
        let moments = (1..=epochs).flat_map(|epoch| (0..steps).map(move |step| Moment { epoch, step }));
        moments.map(|moment| schedule.factor(Place { moment, steps, epochs })).collect()
    }

    #[test]
    fn no_schedule_leaves_the_numbers_however_short_the_training() {
        let one_cycle = |pct_start| Schedule::OneCycle { pct_start, div_factor: 25.0, final_div_factor: 1e4 };
        let cosine = |warmup_epochs| Schedule::Cosine { warmup_epochs, final_factor: 0.0 };
        let mut schedules = vec![Schedule::Constant, Schedule::Step { epochs: 1, gamma: 0.1 }];
        schedules.extend([0.0, 0.3, 0.5, 1.0].map(one_cycle));
        schedules.extend([0.0, 0.5, 1.0, 7.0].map(cosine));
        for schedule in schedules {
            for (steps, epochs) in [(1, 1), (1, 2), (2, 1), (2, 2), (5, 2)] {
                let curve = curve(schedule, steps, epochs);
                assert!(
                    curve.iter().all(|factor| *factor > 0.0 && *factor <= 1.0),
                    "{schedule:?}, {epochs} epochs of {steps} steps: {curve:?}"
                );
            }
        }
    }

    #[test]
    fn a_constant_learning_rate_stays_to_the_bit() {
        assert_eq!(curve(Schedule::Constant, 3, 3), [1.0; 9]);
    }

    #[test]
    fn the_warm_up_of_the_cosine_rises_evenly_to_its_top() {
        let warmed = curve(Schedule::Cosine { warmup_epochs: 1.5, final_factor: 0.1 }, 2, 4);
        assert_eq!(warmed[..4], [0.25, 0.5, 0.75, 1.0]);
        assert!(warmed[3..].is_sorted_by(|a, b| a > b) && warmed[7] > 0.1, "{warmed:?}");
    }

    #[test]
    fn a_plateau_is_left_after_the_patience_has_run_out() {
        let mut plateau = Plateau::START;
        let mut factors = Vec::new();
        for loss in [2.0, 1.0, 0.99999, 1.0, 1.5, f64::NAN, 0.5, 0.5] {
            plateau.observe(loss, 0.1, 0.5, 1);
            factors.push(plateau.factor);
        }
        assert_eq!(factors, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]);
        assert_eq!(plateau, Plateau { factor: 0.25, best: 0.5, bad_epochs: 1 });
    }
}
