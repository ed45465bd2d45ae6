//! A trainer that takes no time: its metrics are a pure function of the trial and the epoch, so that
//! what a search must find is known before it runs.

use fittingroom_common::id::TrialId;
use fittingroom_common::length::TrainingLength;
use fittingroom_common::trial::{Finite, Metric, Report, Score};
use fittingroom_coordinator::leaderboard::RankKey;

/// What all trials of a search have in common, for their trainers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trainer {
    /// Two searches with different salts have different metrics.
    pub(crate) salt: u64,
    pub(crate) length: TrainingLength,
    pub(crate) tracks_test: bool,
    pub(crate) makes_checkpoints: bool,
}

/// How a trial ends, if nothing disturbs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// Complete after this epoch.
    Trained(u32),
    /// The loss leaves the finite numbers in the epoch after this one.
    Diverges(u32),
}

impl Trainer {
    pub(crate) fn fate(&self, trial: TrialId) -> Fate {
        let drawn = self.drawn(trial, 0);
        let TrainingLength { epochs, .. } = self.length;
        if drawn.is_multiple_of(7) {
            return Fate::Diverges((drawn >> 8) as u32 % epochs);
        }
        let ends: Vec<u32> = (1..=epochs).filter(|&epoch| self.length.may_end_after(epoch)).collect();
        Fate::Trained(ends[(drawn >> 16) as usize % ends.len()])
    }

    pub(crate) fn report(&self, trial: TrialId, epoch: u32) -> Report {
        let drawn = self.drawn(trial, epoch);
        Report {
            epoch,
            train: score(drawn >> 16),
            validation: score(drawn),
            test: self.tracks_test.then(|| score(drawn >> 8)),
            seconds: f64::from(epoch),
            images_per_second: 1.0,
        }
    }

    /// Of the trained model, on the test set.
    pub(crate) fn test(&self, trial: TrialId) -> Score {
        score(self.drawn(trial, u32::MAX))
    }

    /// The leaderboard of a search that nothing disturbs.
    pub(crate) fn leaderboard(&self, metric: Metric, trials: u64) -> Vec<(TrialId, Option<Report>)> {
        let mut keys: Vec<RankKey> = (0..trials)
            .map(TrialId::new)
            .map(|trial| match self.fate(trial) {
                Fate::Trained(epochs) => RankKey::complete(metric, &self.report(trial, epochs), trial),
                Fate::Diverges(_) => RankKey::Diverged { trial },
            })
            .collect();
        keys.sort_unstable();
        keys.iter().map(|key| (key.trial(), self.last_report(key.trial()))).collect()
    }

    /// What a trial has reported last when it ends undisturbed.
    pub(crate) fn last_report(&self, trial: TrialId) -> Option<Report> {
        match self.fate(trial) {
            Fate::Trained(epochs) | Fate::Diverges(epochs) => {
                (epochs > 0).then(|| self.report(trial, epochs))
            }
        }
    }

    fn drawn(&self, trial: TrialId, epoch: u32) -> u64 {
        // SplitMix64's output function (Steele, Lea and Flood, 2014).
        let number = self.salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ trial.get().wrapping_mul(0xd1b5_4a32_d192_ed03)
            ^ u64::from(epoch).wrapping_mul(0x8cb9_2ba7_2f3d_8dd7);
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}

/// One of a few scores, so that trials often tie.
fn score(drawn: u64) -> Score {
    let eighths = |bits: u64| Finite::new((bits % 8) as f64 / 8.0).expect("finite");
    Score { loss: eighths(drawn), accuracy: eighths(drawn >> 4) }
}
