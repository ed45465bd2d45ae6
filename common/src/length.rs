//! How long a trial trains: what its trainer, its agent and the coordinator must agree on.

use std::sync::LazyLock;

use crate::hyperparameter::{Parameter, Value};

// Looked up once: every report of every trial asks for them.
static EPOCHS: LazyLock<Option<Parameter>> = LazyLock::new(|| Parameter::find("epochs").ok());
static PATIENCE: LazyLock<Option<Parameter>> =
    LazyLock::new(|| Parameter::find("early_stopping_patience").ok());

/// After which epochs a trial may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingLength {
    /// The most epochs.
    pub epochs: u32,
    /// Epochs without an improvement after which training stops early; 0 if it never does. When
    /// that is the case is the trainer's word: nobody else has to know what an improvement is.
    pub patience: u32,
}

impl TrainingLength {
    /// What hyperparameters say of it, each looked up by `value`. What is not there is at its
    /// least: an epoch, and no stopping.
    pub fn read<'a>(value: impl Fn(Parameter) -> Option<&'a Value>) -> Self {
        let number = |parameter: &Option<Parameter>| match parameter.and_then(&value) {
            Some(Value::Integer(number)) => Some(u32::try_from(*number).unwrap_or(u32::MAX)),
            Some(Value::Choice(_) | Value::Number(_) | Value::Flag(_) | Value::Sizes(_)) | None => None,
        };
        Self { epochs: number(&EPOCHS).unwrap_or(1), patience: number(&PATIENCE).unwrap_or(0) }
    }

    /// Whether a trial that has done this many epochs may be complete. The first epoch is always
    /// an improvement, so that stopping takes at least one more than the patience.
    pub const fn may_end_after(self, epoch: u32) -> bool {
        epoch == self.epochs || (self.patience > 0 && epoch > self.patience && epoch < self.epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyperparameter::Hyperparameters;

    #[test]
    fn a_trial_ends_at_its_last_epoch_or_early_once_its_patience_can_be_used_up() {
        for (name, epochs, patience, ends) in [
            ("no stopping", 3, 0, &[3][..]),
            ("patience of one", 4, 1, &[2, 3, 4]),
            ("patience of two", 4, 2, &[3, 4]),
            ("more patience than epochs", 2, 5, &[2]),
        ] {
            let length = TrainingLength { epochs, patience };
            let found: Vec<u32> = (0..7).filter(|&epoch| length.may_end_after(epoch)).collect();
            assert_eq!(found, ends, "{name}");
        }
    }

    #[test]
    fn it_is_read_from_hyperparameters_that_may_be_older_than_stopping() {
        let of = |set: &Hyperparameters| TrainingLength::read(|parameter| set.get(parameter));
        assert_eq!(of(&Hyperparameters::defaults()), TrainingLength { epochs: 10, patience: 0 });
        assert_eq!(of(&Hyperparameters::new()), TrainingLength { epochs: 1, patience: 0 });
        let mut patient = Hyperparameters::defaults();
        let patience = Parameter::find("early_stopping_patience").expect("known");
        patient.set(patience, &patience.integer(4).expect("fits")).expect("fits");
        assert_eq!(of(&patient), TrainingLength { epochs: 10, patience: 4 });
    }
}
