//! How fast a search goes, and how long it still takes.

use std::time::Duration;

use fittingroom_common::view::{LeaderboardView, SearchState, TrialRow};

/// What the time of past attempts lets expect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// Trials that end in a minute.
    pub(crate) trials_per_minute: f64,
    /// Time until the last trial ends.
    pub(crate) left: Duration,
}

/// Expects of the trials to come what those that ended took, on as many slots as work on this
/// search now, and of a running trial that its epochs go on as they went. `None` while there is
/// nothing to go by.
pub(crate) fn estimate(view: &LeaderboardView) -> Option<Estimate> {
    let search = &view.search;
    match search.state {
        SearchState::Running => {}
        SearchState::Paused
        | SearchState::Stopping
        | SearchState::Complete
        | SearchState::Cancelled
        | SearchState::Failed => return None,
    }
    let at_once = if view.running.is_empty() { f64::from(view.slots) } else { view.running.len() as f64 };
    if search.attempts_ended == 0 || at_once == 0.0 {
        return None;
    }
    let each = search.attempt_time.as_secs_f64() / search.attempts_ended as f64;
    let unfinished = search.trial_count.saturating_sub(search.counts.ended()) as f64;
    let running: Vec<f64> = view.running.iter().map(|row| seconds_left(row, each)).collect();
    let to_come = each * (unfinished - running.len() as f64).max(0.0);
    let evenly_shared = (running.iter().sum::<f64>() + to_come) / at_once;
    // However many slots there are, the slowest of what runs is to be waited for.
    let left = running.into_iter().fold(evenly_shared, f64::max);
    let trials_per_minute = 60.0 * at_once / each;
    Some(Estimate {
        trials_per_minute: trials_per_minute.is_finite().then_some(trials_per_minute)?,
        left: Duration::try_from_secs_f64(left).ok()?,
    })
}

/// How long a running trial still takes: by its own epochs if it has finished any, else by what others took.
fn seconds_left(row: &TrialRow, each: f64) -> f64 {
    let whole = row.report.map_or(each, |report| {
        report.seconds / f64::from(report.epoch.max(1)) * f64::from(row.epochs.max(report.epoch))
    });
    whole * (1.0 - share_done(row))
}

/// How much of a running trial is done, from 0 to 1.
pub(crate) fn share_done(row: &TrialRow) -> f64 {
    let reported = f64::from(row.report.map_or(0, |report| report.epoch));
    let within = row.progress.map_or(reported, |progress| {
        f64::from(progress.epoch.saturating_sub(1))
            + f64::from(progress.step) / f64::from(progress.steps.max(1))
    });
    let epochs = f64::from(row.epochs.max(1));
    (reported.max(within) / epochs).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::{running, view};

    #[test]
    fn the_time_left_is_the_work_left_over_the_slots_at_work() {
        // 3 attempts took 180 s, so 60 s each; 36 trials are to come. One runs, 35 % done, 72.5 s in all.
        let estimate = estimate(&view()).expect("enough is known");
        assert_eq!(estimate.trials_per_minute, 1.0);
        assert_eq!(estimate.left, Duration::from_secs_f64(60.0 * 36.0 + 72.5 * 0.65));
    }

    #[test]
    fn a_slow_trial_at_the_end_is_waited_for() {
        let mut view = view();
        view.search.trial_count = view.search.counts.ended() + 2;
        let fast = TrialRow { report: None, progress: None, ..running(4) };
        view.running = vec![running(2), fast];
        view.search.attempt_time = Duration::from_secs(3);
        let estimate = estimate(&view).expect("enough is known");
        assert_eq!(estimate.left, Duration::from_secs_f64(72.5 * 0.65));
    }

    #[test]
    fn nothing_is_expected_without_grounds() {
        type Change = fn(&mut LeaderboardView);
        let rows: [(&str, Change); 4] = [
            ("no attempt has ended", |view| view.search.attempts_ended = 0),
            ("the search is paused", |view| view.search.state = SearchState::Paused),
            ("attempts took no time", |view| view.search.attempt_time = Duration::ZERO),
            ("there is no worker", |view| {
                view.running.clear();
                view.slots = 0;
            }),
        ];
        for (row, change) in rows {
            let mut view = view();
            change(&mut view);
            assert_eq!(estimate(&view), None, "{row}");
        }
    }

    #[test]
    fn a_running_trial_is_as_far_as_its_newest_sign() {
        let half_an_epoch_on = running(2);
        assert_eq!(share_done(&half_an_epoch_on), 0.35);
        let mut before_its_first_epoch = running(2);
        (before_its_first_epoch.report, before_its_first_epoch.progress) = (None, None);
        assert_eq!(share_done(&before_its_first_epoch), 0.0);
    }
}
