//! `fittingroom restore`: a data folder out of a backup. Calls nobody.

use std::path::PathBuf;

use clap::Args;
use fittingroom_common::operator::Artifacts;

use super::error::CliError;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use super::text;
use crate::access::shell_word;

/// Makes a data folder out of a backup, for `serve` to go on from. Every byte is checked.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fittingroom restore fittingroom-2026-07-01.tar --data ./restored\n  fittingroom serve --data ./restored\n\nThe folder may hold certificates and tokens, and no searches. What happened after the backup is lost:\ntrials that have ended since are tried again."
)]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The data folder to make
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    data: PathBuf,
    /// Where artifacts are to be kept, as `serve --artifacts` will be told
    #[arg(long, value_name = "PLACE", env = "FITTINGROOM_ARTIFACTS")]
    artifacts: Option<String>,
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(args: RestoreArgs, output: &mut Output) -> Result<(), CliError> {
    let RestoreArgs { file, data, artifacts, json } = args;
    let restored = crate::backup::restore(&file, &data, artifacts.as_deref()).await?;
    if json.form() == Form::Json {
        return output.json(&json::Restored {
            data: &data,
            made: restored.made.to_string(),
            searches: restored.searches,
            artifacts: restored.artifacts,
            complete: restored.contents == Artifacts::Included,
        });
    }
    let searches = match restored.searches {
        1 => "1 search".to_owned(),
        count => format!("{count} searches"),
    };
    let count = text::plural(restored.artifacts, "artifact");
    let place = artifacts.map(|place| format!(" --artifacts {place}")).unwrap_or_default();
    let missing = match restored.contents {
        Artifacts::Included => "",
        Artifacts::LeftOut => "\nthe backup has no artifacts: tell `serve --artifacts` where they are",
    };
    output.line(&format!(
        "restored {searches} and {count} as of {}; go on with\n  fittingroom serve --data {}{place}{missing}",
        restored.made,
        shell_word(&data)
    ))
}
