//! `fittingroom check`: looks a data folder over while no coordinator runs.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::flags::JsonFlag;
use super::output::{Form, Output};
use super::{table, text};
use crate::check::{CheckedSearch, Findings, Problem};

/// Checks a stopped coordinator's data: its log's file, every search's history, and every artifact.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fittingroom check --data ./fittingroom-data\n\nEnds with 0 if nothing is wrong, and with 1 otherwise. It changes nothing."
)]
pub(crate) struct CheckArgs {
    /// The coordinator's data folder
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    data: PathBuf,
    /// Where artifacts are kept, as `serve --artifacts` was told
    #[arg(long, value_name = "PLACE", env = "FITTINGROOM_ARTIFACTS")]
    artifacts: Option<String>,
    #[command(flatten)]
    json: JsonFlag,
}

/// `check --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    sound: bool,
    searches: Vec<Search<'a>>,
    artifacts: u64,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Search<'a> {
    search: &'a str,
    state: Option<&'static str>,
    events: u64,
    trials: u64,
    attempts: u64,
    epochs: u64,
    repeated_epochs: u64,
}

impl<'a> From<&'a CheckedSearch> for Search<'a> {
    fn from(it: &'a CheckedSearch) -> Self {
        Self {
            search: &it.name,
            state: it.state.map(|state| state.name()),
            events: it.tally.events,
            trials: it.trials,
            attempts: it.tally.attempts,
            epochs: it.tally.epochs,
            repeated_epochs: it.tally.repeated_epochs,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: CheckArgs, output: &mut Output) -> Result<(), CliError> {
    let findings = crate::check::check(&args.data, args.artifacts.as_deref()).await?;
    match args.json.form() {
        Form::Json => output.json(&document(&findings))?,
        Form::Text => output.line(&render(&findings, output.width()))?,
    }
    match findings.problems.len() {
        0 => Ok(()),
        problems => Err(CliError::Unsound { data: args.data, problems: problems as u64 }),
    }
}

fn document(findings: &Findings) -> Document<'_> {
    Document {
        sound: findings.problems.is_empty(),
        searches: findings.searches.iter().map(Search::from).collect(),
        artifacts: findings.artifacts,
        problems: findings.problems.iter().map(tell).collect(),
    }
}

/// A problem on one line: what a log says may have come from anywhere.
fn tell(problem: &Problem) -> String {
    text::clean(&problem.to_string())
}

fn render(findings: &Findings, width: Option<u16>) -> String {
    let columns = [
        table::words("search"),
        table::words("state"),
        table::numbers("events"),
        table::numbers("trials"),
        table::numbers("attempts"),
        table::numbers("epochs"),
        table::numbers("repeated"),
    ];
    let rows = findings.searches.iter().map(|it| {
        let numbers =
            [it.tally.events, it.trials, it.tally.attempts, it.tally.epochs, it.tally.repeated_epochs];
        let state = it.state.map_or("?", |state| state.name());
        let words = [text::clean(&it.name), state.to_owned()];
        words.into_iter().chain(numbers.map(|number| number.to_string())).collect()
    });
    let mut shown = table::lay_out(&columns, rows.collect(), width);
    let searches = match findings.searches.len() {
        1 => "1 search".to_owned(),
        count => format!("{count} searches"),
    };
    let artifacts = text::plural(findings.artifacts, "artifact");
    shown.push_str(&format!("\n{searches} and {artifacts} checked: "));
    if findings.problems.is_empty() {
        shown.push_str("nothing is wrong\n");
    } else {
        shown.push_str(&format!("{}\n", text::plural(findings.problems.len() as u64, "problem")));
        findings.problems.iter().for_each(|problem| shown.push_str(&format!("  {}\n", tell(problem))));
    }
    shown
}

#[cfg(test)]
mod tests {
    use fittingroom_common::id::ArtifactHash;
    use fittingroom_common::view::SearchState;

    use super::*;
    use crate::audit::Tally;

    fn findings(problems: Vec<Problem>) -> Findings {
        let tally = Tally { events: 60, attempts: 9, epochs: 17, repeated_epochs: 1 };
        let search =
            CheckedSearch { name: "grid".to_owned(), state: Some(SearchState::Complete), trials: 8, tally };
        Findings { searches: vec![search], artifacts: 7, problems }
    }

    #[test]
    fn a_sound_folder_is_told_on_a_few_lines() {
        assert_eq!(
            render(&findings(Vec::new()), None),
            "\
search  state     events  trials  attempts  epochs  repeated
─────────────────────────────────────────────────────────────
grid    COMPLETE      60       8         9      17         1

1 search and 7 artifacts checked: nothing is wrong
"
        );
    }

    #[test]
    fn every_problem_has_a_line() {
        let hash = ArtifactHash::of(b"model");
        let problems = vec![
            Problem::Search {
                search: "grid\u{1b}[2J".to_owned(),
                problem: "event 3: event 2 comes next".to_owned(),
            },
            Problem::Artifact {
                hash,
                role: "a file of dataset x".to_owned(),
                problem: "it is missing".to_owned(),
            },
        ];
        let shown = render(&findings(problems), None);
        let lines: Vec<&str> = shown.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "1 search and 7 artifacts checked: 2 problems",
                "  search grid[2J, event 3: event 2 comes next",
                &format!("  artifact {hash} (a file of dataset x): it is missing"),
            ]
        );
    }
}
