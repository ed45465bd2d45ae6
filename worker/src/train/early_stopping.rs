//! When a lane has trained long enough, and what is kept of it from then on.

use candle_core::{Result, Tensor};
use fittingroom_common::trial::Finite;

use super::model::Model;
use super::params::Named;

/// Stops when the validation loss has not become lower for some epochs, as Keras's `EarlyStopping`
/// with its default `val_loss`, `min_delta = 0` and `restore_best_weights = False`. The loss and
/// not the accuracy, because it moves with every epoch where the accuracy of a small validation
/// set stands still. It follows from the losses alone, so that
/// it can be taken up again in the middle of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// Epochs without an improvement that end training; `None` if it never ends early.
    pub patience: Option<u32>,
    /// The lowest loss so far.
    pub lowest: Option<Finite>,
    /// Epochs since then.
    pub epochs_without: u32,
}

impl EarlyStopping {
    /// Before the first epoch; a patience of 0 never stops.
    pub fn new(patience: u32) -> Self {
        Self { patience: (patience > 0).then_some(patience), lowest: None, epochs_without: 0 }
    }

    /// Takes note of an epoch's validation loss, and answers whether training is over.
    pub fn ends_with(&mut self, loss: Finite) -> bool {
        if self.lowest.is_none_or(|lowest| loss < lowest) {
            self.lowest = Some(loss);
            self.epochs_without = 0;
        } else {
            self.epochs_without += 1;
        }
        self.patience.is_some_and(|patience| self.epochs_without >= patience)
    }
}

/// A lane's weights and statistics as they were when it stopped: while other lanes are trained, the
/// lane is computed along with them.
#[derive(Debug)]
pub(crate) struct Kept {
    /// One for each of [`Model::named`], its shape that of one lane.
    pub(super) values: Vec<Tensor>,
    pub(super) steps: u64,
}

impl Kept {
    /// Copies a lane out of a model.
    pub(crate) fn of(model: &Model, lane: usize) -> Result<Self> {
        let copy = |named: &Named| named.values.narrow(0, lane, 1)?.copy();
        let values = model.named.iter().map(copy).collect::<Result<_>>()?;
        Ok(Self { values, steps: model.steps[lane] })
    }

    /// Puts the lane back.
    pub(crate) fn restore(&self, model: &mut Model, lane: usize) -> Result<()> {
        for (named, values) in model.named.iter().zip(&self.values) {
            named.values.slice_set(values, 0, lane)?;
        }
        model.steps[lane] = self.steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_once_the_loss_has_not_become_lower_for_as_long_as_the_patience() {
        for (name, patience, losses, ends) in [
            ("off", 0, &[1.0, 2.0, 3.0, 4.0][..], None),
            ("always lower", 1, &[4.0, 3.0, 2.0, 1.0], None),
            ("higher at once", 1, &[1.0, 2.0], Some(2)),
            ("as low is not lower", 2, &[1.0, 1.0, 1.0], Some(3)),
            ("a new low begins anew", 2, &[3.0, 4.0, 2.0, 2.5, 2.1], Some(5)),
            ("lower than before, but not than the lowest", 2, &[1.0, 3.0, 2.0], Some(3)),
        ] {
            let mut stopping = EarlyStopping::new(patience);
            let mut over = losses.iter().map(|&loss| stopping.ends_with(Finite::new(loss).expect("finite")));
            assert_eq!(over.position(|over| over).map(|index| index + 1), ends, "{name}");
        }
    }
}
