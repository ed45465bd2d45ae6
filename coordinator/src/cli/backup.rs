//! `fittingroom backup`: all that a running coordinator needs to go on, in one file.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use fittingroom_common::operator::{Artifacts, BackupPart};

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::file::AtomicFile;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use super::{text, transfer};

/// Backs up a running coordinator: its searches, and the models, datasets and checkpoints that they need.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fittingroom backup fittingroom-2026-07-01.tar\n\nThe file is a tar archive that only you can read. It is there once it is whole. Certificates and tokens are not in it.\nSearches go on meanwhile. `fittingroom restore FILE --data DIR` makes a data folder out of it."
)]
pub(crate) struct BackupArgs {
    /// The file to write; one that is there is replaced
    file: PathBuf,
    /// Leave out models, datasets and checkpoints: `serve --artifacts` keeps them where they are safe
    #[arg(long, env = "FITTINGROOM_NO_ARTIFACTS", value_parser = BoolishValueParser::new())]
    no_artifacts: bool,
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(
    args: BackupArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut file = AtomicFile::create_private(&args.file)?;
    let client = Client::connect(coordinator).await?;
    let artifacts = if args.no_artifacts { Artifacts::LeftOut } else { Artifacts::Included };
    let mut parts = client.backup(artifacts).await?;
    let Some(BackupPart::Total(total)) = parts.next().await? else {
        return Err(CliError::EndedEarly);
    };
    let bar = transfer::bar(Some(total), "backup".to_owned());
    let mut written = 0;
    while let Some(BackupPart::Bytes(bytes)) = parts.next().await? {
        file.write_all(&bytes).map_err(|source| file.unwritable(source))?;
        written += bytes.len() as u64;
        bar.set_position(written);
    }
    bar.finish_and_clear();
    if written != total {
        return Err(CliError::EndedEarly);
    }
    file.finish()?;
    match args.json.form() {
        Form::Json => output.json(&json::BackedUp { file: &args.file, bytes: written, artifacts }),
        Form::Text => {
            output.line(&format!("wrote {} to {}", text::plural(written, "byte"), args.file.display()))
        }
    }
}
