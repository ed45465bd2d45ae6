//! PURE: the order of a search's trials.
//!
//! A trial is ranked by the validation metric at the end of its training, the epoch whose weights
//! are its model. Ties go, in this order, to the lower validation loss, the higher validation
//! accuracy, then the lower trial number, so that the order never depends on who reported first.
//! Diverged trials rank behind all complete ones, in the order of their numbers. Nothing else has
//! a rank, and the test set has no say.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use fittingroom_common::id::TrialId;
use fittingroom_common::trial::{Finite, Metric, Report};

/// What a ranked trial is ordered by: the lesser is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RankKey {
    /// Trained to its end.
    Complete {
        /// The metric, turned so that the lesser is the better.
        metric: Turned,
        /// The first tie-break.
        loss: Finite,
        /// The second tie-break.
        accuracy: Reverse<Finite>,
        /// The last tie-break.
        trial: TrialId,
    },
    /// The loss left the finite numbers.
    Diverged {
        /// The order among diverged trials.
        trial: TrialId,
    },
}

/// A metric as a rank key holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turned {
    /// The lesser is the better.
    Loss(Finite),
    /// The greater is the better.
    Accuracy(Reverse<Finite>),
}

impl RankKey {
    /// The key of a trial that ended with this report.
    pub fn complete(metric: Metric, report: &Report, trial: TrialId) -> Self {
        let turned = match metric {
            Metric::ValidationLoss => Turned::Loss(report.validation.loss),
            Metric::ValidationAccuracy => Turned::Accuracy(Reverse(report.validation.accuracy)),
        };
        Self::Complete {
            metric: turned,
            loss: report.validation.loss,
            accuracy: Reverse(report.validation.accuracy),
            trial,
        }
    }

    /// The trial that has this key.
    pub const fn trial(&self) -> TrialId {
        match self {
            Self::Complete { trial, .. } | Self::Diverged { trial } => *trial,
        }
    }
}

/// The ranked trials of one search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaderboard(BTreeSet<RankKey>);

impl Leaderboard {
    /// Puts a trial in its place.
    pub fn insert(&mut self, key: RankKey) {
        self.0.insert(key);
    }

    /// The best complete trial.
    pub fn best(&self) -> Option<RankKey> {
        self.0.first().copied().filter(|key| matches!(key, RankKey::Complete { .. }))
    }

    /// The ranked trials, the best one first.
    pub fn iter(&self) -> impl Iterator<Item = TrialId> {
        self.0.iter().map(RankKey::trial)
    }

    /// The place of a key, from 1.
    pub fn rank(&self, key: &RankKey) -> u64 {
        self.0.range(..key).count() as u64 + 1
    }

    /// Whether a trial is ranked with this key.
    pub fn contains(&self, key: &RankKey) -> bool {
        self.0.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fittingroom_common::trial::Score;

    fn report(loss: f64, accuracy: f64) -> Report {
        let score = |loss, accuracy| Score {
            loss: Finite::new(loss).expect("finite"),
            accuracy: Finite::new(accuracy).expect("finite"),
        };
        Report {
            epoch: 1,
            train: score(0.0, 1.0),
            validation: score(loss, accuracy),
            test: Some(score(9.0 - loss, 1.0 - accuracy)),
            seconds: 1.0,
            images_per_second: 1.0,
        }
    }

    fn order(metric: Metric, trials: &[(f64, f64)]) -> Vec<u64> {
        let mut board = Leaderboard::default();
        for (number, (loss, accuracy)) in trials.iter().enumerate().rev() {
            board.insert(RankKey::complete(metric, &report(*loss, *accuracy), TrialId::new(number as u64)));
        }
        board.iter().map(TrialId::get).collect()
    }

    #[test]
    fn the_metric_ranks_and_ties_are_broken_as_written() {
        let accuracy = Metric::ValidationAccuracy;
        let loss = Metric::ValidationLoss;
        for (name, metric, trials, expected) in [
            ("higher accuracy first", accuracy, vec![(0.5, 0.8), (0.9, 0.9)], vec![1, 0]),
            ("lower loss first", loss, vec![(0.5, 0.8), (0.4, 0.7)], vec![1, 0]),
            ("equal accuracy: lower loss", accuracy, vec![(0.5, 0.8), (0.4, 0.8)], vec![1, 0]),
            ("equal loss: higher accuracy", loss, vec![(0.5, 0.7), (0.5, 0.8)], vec![1, 0]),
            ("all equal: lower number", accuracy, vec![(0.5, 0.8), (0.5, 0.8)], vec![0, 1]),
            ("zeros of both signs are equal", loss, vec![(0.0, 0.8), (-0.0, 0.8)], vec![0, 1]),
        ] {
            assert_eq!(order(metric, &trials), expected, "{name}");
        }
    }

    #[test]
    fn diverged_trials_rank_last_and_are_never_the_best() {
        let mut board = Leaderboard::default();
        let diverged = RankKey::Diverged { trial: TrialId::new(0) };
        board.insert(diverged);
        assert_eq!(board.best(), None);
        let complete = RankKey::complete(Metric::ValidationLoss, &report(1e300, 0.0), TrialId::new(7));
        board.insert(complete);
        assert_eq!(board.best(), Some(complete));
        assert_eq!((board.rank(&complete), board.rank(&diverged)), (1, 2));
    }
}
