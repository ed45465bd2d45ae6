//! `fittingroom list`: every search.

use clap::Args;
use fittingroom_common::view::SearchSummary;

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use super::{table, text};

/// Lists the searches.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom list --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(
    args: ListArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let searches = Client::connect(coordinator).await?.searches().await?;
    match args.json.form() {
        Form::Json => {
            output.json(&json::Searches { searches: searches.iter().map(json::Search::from).collect() })
        }
        Form::Text => output.line(&render(&searches, output.width())),
    }
}

fn render(searches: &[SearchSummary], width: Option<u16>) -> String {
    if searches.is_empty() {
        return "no searches yet; `fittingroom launch FILE` starts one".to_owned();
    }
    let columns = [
        table::words("search"),
        table::words("state"),
        table::words("method"),
        table::words("dataset"),
        table::numbers("ended"),
        table::numbers("running"),
        table::numbers("failed"),
        table::numbers("best"),
        table::words("by"),
        table::words("launched"),
    ];
    let rows = searches.iter().map(|search| {
        vec![
            search.name.to_string(),
            search.state.to_string(),
            search.method.to_string(),
            search.dataset.to_string(),
            format!("{}/{}", search.counts.ended(), search.trial_count),
            search.counts.running.to_string(),
            search.counts.failed.to_string(),
            best(search),
            search.metric.to_string(),
            search.created.to_string(),
        ]
    });
    table::lay_out(&columns, rows.collect(), width)
}

/// The best value of the metric so far.
fn best(search: &SearchSummary) -> String {
    use fittingroom_common::trial::Metric;
    let report = search.best.as_ref().and_then(|row| row.report.as_ref());
    report
        .map(|report| match search.metric {
            Metric::ValidationAccuracy => text::percent(report.validation.accuracy),
            Metric::ValidationLoss => text::loss(report.validation.loss),
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::summary;

    #[test]
    fn each_search_has_a_line() {
        assert_eq!(render(&[summary()], None), "\
search      state    method  dataset        ended  running  failed     best  by                   launched
───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
quickstart  RUNNING  random  fashion-mnist   3/40        1       1  91.23 %  validation_accuracy  2026-11-22T12:35:51Z
");
        assert!(render(&[], None).contains("fittingroom launch FILE"));
    }
}
