//! Following a search until it ends, or until whoever follows it leaves.

mod estimate;
mod plain;
mod screen;

use fittingroom_common::id::Name;
use fittingroom_common::view::SearchSummary;
use tokio::sync::mpsc;

use super::client::Client;
use super::error::CliError;
use super::interrupt::Interrupt;
use super::json;
use super::leaderboard;
use super::output::{Form, Output, notice};
use super::text;
use super::watch::{Update, watch};

/// The most ranked trials that the coordinator puts in a view.
const MOST_RANKED: u32 = 1_000;
/// Ranked trials that fit on any screen.
const SCREEN_RANKED: u32 = 100;

/// How following came to its end.
pub(crate) enum Followed {
    /// The search has ended.
    ToItsEnd(Box<SearchSummary>),
    /// Whoever followed it left; the search goes on.
    Left,
}

/// Shows a leaderboard as it changes, then once as it ended.
pub(crate) async fn follow(
    client: &mut Client,
    name: &Name,
    top: Option<u64>,
    form: Form,
    output: &mut Output,
) -> Result<Followed, CliError> {
    let interrupt = Interrupt::listen().map_err(CliError::Signals)?;
    let ranked = |most: u32| match top {
        Some(top) => u32::try_from(top).unwrap_or(most).clamp(1, most),
        None => most,
    };
    let updates = |top: u32| watch(client.clone(), name.clone(), top);
    let has_ended = match form {
        Form::Json => lines(updates(ranked(MOST_RANKED)), interrupt, output, Lines::Json).await?,
        Form::Text if output.width().is_some() && !is_dumb() => {
            screen::show(updates(ranked(SCREEN_RANKED)), interrupt).await?
        }
        // Which trials are new can only be told of those that are seen, so all are asked for.
        Form::Text => lines(updates(MOST_RANKED), interrupt, output, Lines::Text).await?,
    };
    if !has_ended {
        notice(&format!(
            "left; the search goes on, and `fittingroom leaderboard {name} --follow` shows it again"
        ));
        return Ok(Followed::Left);
    }
    let (search, trials) = client.leaderboard(name, top).await?;
    match form {
        Form::Json => output.json_line(&json::Leaderboard::new(&search, &trials))?,
        Form::Text => output.line(&leaderboard::render(&search, &trials, output.width()))?,
    }
    Ok(Followed::ToItsEnd(Box::new(search)))
}

/// Whether the terminal says that it cannot move its cursor.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// What is printed for an update where there is no screen.
enum Lines {
    Text,
    Json,
}

/// Prints updates as lines; `true` once the search has ended, `false` if asked to leave.
async fn lines(
    mut updates: mpsc::Receiver<Update>,
    mut interrupt: Interrupt,
    output: &mut Output,
    lines: Lines,
) -> Result<bool, CliError> {
    let mut before = None;
    let mut is_lost = false;
    loop {
        let update = tokio::select! {
            () = interrupt.heard() => return Ok(false),
            update = updates.recv() => update,
        };
        match update {
            None => return Ok(before.is_some()),
            Some(Update::Refused(why)) => return Err(why),
            Some(Update::Lost { why, wait }) => {
                // Once a gap is enough: the tries within it are all alike.
                if !is_lost {
                    let wait = wait.as_secs_f64();
                    notice(&format!("{why}; trying again until it is back (first in {wait:.1} s)"));
                }
                is_lost = true;
            }
            Some(Update::View(view)) => {
                if is_lost {
                    notice("the coordinator is back");
                }
                is_lost = false;
                match lines {
                    Lines::Json if view.search.state.has_ended() => {}
                    Lines::Json => output.json_line(&json::Leaderboard::from(&*view))?,
                    Lines::Text => {
                        for line in plain::changes(before.as_deref(), &view) {
                            output.line(&line)?;
                        }
                    }
                }
                before = Some(view);
            }
        }
    }
}

/// The counts of a search in words: `12 of 40 trials ended (11 complete, 1 failed), 2 running`.
pub(crate) fn counts(search: &SearchSummary) -> String {
    let counts = &search.counts;
    let ended: Vec<String> = [
        (counts.complete, "complete"),
        (counts.pruned, "pruned"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    let ended = match ended.as_slice() {
        [] => String::new(),
        parts => format!(" ({})", parts.join(", ")),
    };
    format!(
        "{} of {} ended{ended}, {} running",
        counts.ended(),
        text::plural(search.trial_count, "trial"),
        counts.running
    )
}
