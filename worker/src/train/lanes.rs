//! How the lanes of a group stand: which go on, which have stopped early, which have diverged.

use candle_core::Result as TensorResult;
use fittingroom_common::trial::{Finite, Score};

use super::early_stopping::{EarlyStopping, Kept};
use super::evaluate::LaneScore;
use super::hyper::Lane;
use super::model::Model;
use super::state::EpochReports;
use super::{Divergence, Ended};

/// What one epoch came to in a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LaneEpoch {
    pub(crate) train: Score,
    pub(crate) validation: Score,
    pub(crate) next: Next,
}

/// What a lane does after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GoesOn,
    Ends,
}

/// The lanes of a group, in order.
#[derive(Debug)]
pub(crate) struct Standing {
    epochs: u32,
    lanes: Vec<State>,
}

#[derive(Debug)]
struct State {
    ended: Result<(), Ended>,
    stopping: EarlyStopping,
    kept: Option<Kept>,
}

impl Standing {
    /// Before the first of so many epochs.
    pub(crate) fn new(lanes: &[Lane], epochs: u32) -> Self {
        let state = |lane: &Lane| State {
            ended: Ok(()),
            stopping: EarlyStopping::new(lane.early_stopping_patience),
            kept: None,
        };
        Self { epochs, lanes: lanes.iter().map(state).collect() }
    }

    /// Takes note of an epoch: for each lane what it came to, or why it reports no more.
    pub(crate) fn end_epoch(
        &mut self,
        epoch: u32,
        train: &[LaneScore],
        validation: &[LaneScore],
        model: &Model,
    ) -> TensorResult<Vec<Result<LaneEpoch, Ended>>> {
        let mut ends = Vec::with_capacity(self.lanes.len());
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let scores = lane.ended.and_then(|()| {
                let both = finite(train[index]).zip(finite(validation[index]));
                both.ok_or(Ended::Diverged(Divergence { epoch }))
            });
            lane.ended = scores.map(|_| ());
            ends.push(match scores {
                Err(ended) => Err(ended),
                Ok((train, validation)) => {
                    let stops = lane.stopping.ends_with(validation.loss);
                    if stops && epoch < self.epochs {
                        lane.ended = Err(Ended::Early { epoch });
                        lane.kept = Some(Kept::of(model, index)?);
                    }
                    let next = if stops || epoch == self.epochs { Next::Ends } else { Next::GoesOn };
                    Ok(LaneEpoch { train, validation, next })
                }
            });
        }
        Ok(ends)
    }

    /// Takes up where training was after these epochs. `kept`: the steps after which lanes stopped
    /// early; what they hold is yet to be put into [`Standing::kept`].
    pub(crate) fn take_up(
        &mut self,
        history: &[EpochReports],
        kept: &[Option<u64>],
        model: &Model,
    ) -> TensorResult<()> {
        for reports in history {
            for (lane, report) in self.lanes.iter_mut().zip(reports) {
                match report {
                    Ok(report) => {
                        lane.stopping.ends_with(report.validation.loss);
                    }
                    Err(ended) => lane.ended = Err(*ended),
                }
            }
        }
        for (index, (lane, steps)) in self.lanes.iter_mut().zip(kept).enumerate() {
            if let Some(steps) = *steps {
                lane.ended = lane.ended.and(Err(Ended::Early { epoch: history.len() as u32 }));
                lane.kept = Some(Kept { steps, ..Kept::of(model, index)? });
            }
        }
        Ok(())
    }

    /// What each lane holds that stopped early.
    pub(crate) fn kept(&self) -> impl Iterator<Item = Option<&Kept>> {
        self.lanes.iter().map(|lane| lane.kept.as_ref())
    }

    /// Whether no lane is left to train.
    pub(crate) fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended.is_err())
    }

    /// Gives the lanes that stopped early the weights that they stopped with, and says which lanes
    /// hold a trained model.
    pub(crate) fn finish(self, model: &mut Model) -> TensorResult<Vec<Result<(), Divergence>>> {
        let mut trained = Vec::with_capacity(self.lanes.len());
        for (index, lane) in self.lanes.into_iter().enumerate() {
            if let Some(kept) = lane.kept {
                kept.restore(model, index)?;
            }
            trained.push(match lane.ended {
                Ok(()) | Err(Ended::Early { .. }) => Ok(()),
                Err(Ended::Diverged(divergence)) => Err(divergence),
            });
        }
        Ok(trained)
    }
}

/// The score, unless one of its numbers is infinite or NaN.
pub(crate) fn finite(score: LaneScore) -> Option<Score> {
    Some(Score { loss: Finite::new(score.loss)?, accuracy: Finite::new(score.accuracy)? })
}
