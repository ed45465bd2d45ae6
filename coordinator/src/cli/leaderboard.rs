//! `fittingroom leaderboard`: the trials of a search, ranked.

use clap::Args;
use fittingroom_common::id::Name;
use fittingroom_common::view::{SearchSummary, TrialRow};

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::flags::{FollowFlag, JsonFlag};
use super::follow::follow;
use super::json;
use super::output::{Form, Output};
use super::{table, text};

/// Shows the trials of a search, the best first.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom leaderboard quickstart --follow")]
pub(crate) struct LeaderboardArgs {
    /// The search
    name: Name,
    /// Show only the best N trials
    #[arg(long, value_name = "N", env = "FITTINGROOM_TOP", value_parser = clap::value_parser!(u64).range(1..))]
    top: Option<u64>,
    #[command(flatten)]
    follow: FollowFlag,
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(
    args: LeaderboardArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = Client::connect(coordinator).await?;
    if args.follow.is_set() {
        follow(&mut client, &args.name, args.top, args.json.form(), output).await?;
        return Ok(());
    }
    let (search, trials) = client.leaderboard(&args.name, args.top).await?;
    match args.json.form() {
        Form::Json => output.json(&json::Leaderboard::new(&search, &trials)),
        Form::Text => output.line(&render(&search, &trials, output.width())),
    }
}

/// A leaderboard for people: what the search is, then its trials.
pub(crate) fn render(search: &SearchSummary, trials: &[TrialRow], width: Option<u16>) -> String {
    let mut shown = format!(
        "{}  {}  {} on {}, ranked by {}\n{}\n",
        search.name,
        search.state,
        search.method,
        search.dataset,
        search.metric,
        super::follow::counts(search),
    );
    if !search.reason.is_empty() {
        shown.push_str(&text::clean(&search.reason));
        shown.push('\n');
    }
    shown.push('\n');
    if trials.is_empty() {
        shown.push_str(if search.state.has_ended() {
            "it ended before a trial was drawn\n"
        } else {
            "no trials yet: workers draw them (`fittingroom workers` lists those connected)\n"
        });
        return shown;
    }
    let rows: Vec<&TrialRow> = trials.iter().collect();
    let (columns, cells) = table::leaderboard(search.metric, &rows);
    shown.push_str(&table::lay_out(&columns, cells, width));
    let fixed = table::fixed(&rows);
    if !fixed.is_empty() {
        shown.push_str(&format!("\nall with {fixed}\n"));
    }
    let undrawn = search
        .trial_count
        .saturating_sub(search.counts.ended() + search.counts.running + search.counts.waiting);
    if undrawn > 0 {
        shown.push_str(&format!("\n{} not drawn yet\n", text::plural(undrawn, "trial")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use fittingroom_common::view::SearchState;

    use super::*;
    use crate::cli::samples::{complete, diverged, running, summary, waiting};

    #[test]
    fn what_all_trials_have_in_common_is_said_once() {
        let trials = [complete(3, 1, 0.9123), complete(0, 2, 0.9), diverged(1), running(2), waiting(4)];
        let shown = render(&summary(), &trials, None);
        assert!(
            shown.starts_with(
                "quickstart  RUNNING  random on fashion-mnist, ranked by validation_accuracy\n\
                 3 of 40 trials ended (2 complete, 1 failed), 1 running\n\nrank  trial  state"
            ),
            "{shown}"
        );
        assert!(shown.ends_with("\nall with batch_size=64\n\n35 trials not drawn yet\n"), "{shown}");
    }

    #[test]
    fn an_empty_leaderboard_says_why_it_is() {
        let mut search = summary();
        assert!(render(&search, &[], None).contains("no trials yet"));
        (search.state, search.reason) = (SearchState::Cancelled, "asked to\u{7}".to_owned());
        let shown = render(&search, &[], None);
        assert!(shown.contains("asked to\n") && shown.contains("before a trial was drawn"), "{shown}");
    }
}
