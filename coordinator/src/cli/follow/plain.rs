//! Following without a screen: one line for each change that matters.

use fittingroom_common::trial::Metric;
use fittingroom_common::view::{LeaderboardView, TrialRow};

use super::counts;
use crate::cli::table::varying;
use crate::cli::text;

/// What has changed since the view before, in lines; the first view is introduced.
pub(crate) fn changes(before: Option<&LeaderboardView>, now: &LeaderboardView) -> Vec<String> {
    let search = &now.search;
    let Some(before) = before else {
        return vec![
            format!("search {}: {}, ranked by {}", search.name, search.state, search.metric),
            format!("{}; {}", counts(search), workers(now)),
        ];
    };
    let mut lines = Vec::new();
    let mut fresh: Vec<&TrialRow> =
        now.ranked.iter().filter(|row| !before.ranked.iter().any(|known| known.trial == row.trial)).collect();
    fresh.sort_by_key(|row| row.trial);
    let all: Vec<&TrialRow> = now.ranked.iter().collect();
    let named = varying(&all);
    let place = format!("[{}/{}]", search.counts.ended(), search.trial_count);
    for row in fresh {
        let values: Vec<String> = named
            .iter()
            .filter_map(|parameter| {
                let value = row.hyperparameters.get(*parameter)?;
                Some(format!("{}={value}", parameter.name()))
            })
            .collect();
        let result = result(search.metric, row);
        lines.push(
            format!("{place} trial {} {result}  {}", row.trial, values.join(" ")).trim_end().to_owned(),
        );
    }
    let failed = search.counts.failed.saturating_sub(before.search.counts.failed);
    let failed_in_sight = lines.iter().filter(|line| line.contains(" FAILED ")).count() as u64;
    if failed > failed_in_sight {
        let more = text::plural(failed - failed_in_sight, "more trial");
        lines.push(format!("{place} {more} FAILED"));
    }
    if before.search.state != search.state {
        let why = if search.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", text::clean(&search.reason))
        };
        lines.push(format!("search {} is now {}{why}; {}", search.name, search.state, counts(search)));
    }
    if (before.workers, before.slots) != (now.workers, now.slots) {
        lines.push(format!("now {}", workers(now)));
    }
    lines
}

/// How a trial ended: its metrics and its rank, or its failure.
fn result(metric: Metric, row: &TrialRow) -> String {
    let rank = match row.rank {
        Some(1) => ", the best so far".to_owned(),
        Some(rank) => format!(", rank {rank}"),
        None => String::new(),
    };
    match (&row.failure, &row.report) {
        (Some(failure), _) => format!("{} ({})", row.state, failure.reason),
        (None, Some(report)) => {
            let accuracy = format!("accuracy {}", text::percent(report.validation.accuracy));
            let loss = format!("loss {}", text::loss(report.validation.loss));
            let (first, second) = match metric {
                Metric::ValidationAccuracy => (accuracy, loss),
                Metric::ValidationLoss => (loss, accuracy),
            };
            let epochs = text::plural(report.epoch.into(), "epoch");
            let time = text::seconds(report.seconds);
            format!("{}: validation {first}, {second} after {epochs} in {time}{rank}", row.state)
        }
        (None, None) => row.state.to_string(),
    }
}

fn workers(view: &LeaderboardView) -> String {
    if view.workers == 0 {
        return "no worker is connected; `fittingroom-worker run` starts one".to_owned();
    }
    format!(
        "{} with {}",
        text::plural(view.workers.into(), "worker"),
        text::plural(view.slots.into(), "slot")
    )
}

#[cfg(test)]
mod tests {
    use fittingroom_common::view::SearchState;

    use super::*;
    use crate::cli::samples::{complete, diverged, view};

    #[test]
    fn the_first_view_is_introduced() {
        assert_eq!(
            changes(None, &view()),
            [
                "search quickstart: RUNNING, ranked by validation_accuracy",
                "3 of 40 trials ended (2 complete, 1 failed), 1 running; 1 worker with 2 slots",
            ]
        );
    }

    #[test]
    fn an_unchanged_view_says_nothing() {
        let mut progressed = view();
        progressed.running[0].progress = None;
        assert!(changes(Some(&view()), &progressed).is_empty());
    }

    #[test]
    fn each_trial_that_ended_has_its_line() {
        let mut before = view();
        before.ranked = vec![complete(0, 1, 0.9)];
        before.search.counts.complete = 1;
        before.search.counts.failed = 0;
        let mut now = view();
        now.search.counts.failed = 2;
        assert_eq!(
            changes(Some(&before), &now),
            [
                "[4/40] trial 1 FAILED (diverged)  optimizer=adam learning_rate=0.01",
                "[4/40] trial 3 COMPLETE: validation accuracy 91.23 %, loss 0.3456 after 10 epochs in 1m 12s, the best so far  optimizer=adam learning_rate=1e-4",
                "[4/40] 1 more trial FAILED",
            ]
        );
    }

    #[test]
    fn states_and_workers_are_told() {
        let mut now = view();
        now.search.state = SearchState::Stopping;
        now.search.reason = "the budget\nis spent".to_owned();
        (now.workers, now.slots) = (0, 0);
        now.ranked = vec![complete(3, 1, 0.9123), complete(0, 2, 0.9), diverged(1)];
        assert_eq!(
            changes(Some(&view()), &now),
            [
                "search quickstart is now STOPPING (the budget is spent); 3 of 40 trials ended (2 complete, 1 failed), 1 running",
                "now no worker is connected; `fittingroom-worker run` starts one",
            ]
        );
    }
}
