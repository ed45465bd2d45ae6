//! What a trainer's numbers say, in domain types; `None` where they say what cannot be.

use fittingroom_common::trial::{Finite, Score};
use fittingroom_common::view::Progress;

/// How far a run is.
pub(crate) fn progress(epoch: u32, step: usize, steps: usize) -> Option<Progress> {
    Some(Progress {
        epoch,
        step: step.try_into().ok()?,
        steps: steps.try_into().ok()?,
    })
}

/// A model's score.
pub(crate) fn score(loss: f64, accuracy: f64) -> Option<Score> {
    Some(Score {
        loss: Finite::new(loss)?,
        accuracy: Finite::new(accuracy)?,
    })
}
