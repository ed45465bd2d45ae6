//! `fittingroom dataset`: what the coordinator has to train on, and how it gets more.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fittingroom_common::dataset::{FileRole, KnownDataset, Manifest, Shape, read_folder};
use fittingroom_common::id::{ArtifactHash, Name};
use fittingroom_common::operator::{AddDataset, FetchStep};
use fittingroom_common::record::DatasetRecord;

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output, notice};
use super::transfer::upload;
use super::{table, text};

/// Lists and fetches datasets.
#[derive(Args, Debug)]
pub(crate) struct DatasetArgs {
    #[command(subcommand)]
    command: DatasetCommand,
}

#[derive(Debug, Subcommand)]
enum DatasetCommand {
    Fetch(FetchArgs),
    List(ListArgs),
}

/// Has the coordinator obtain a dataset ahead of time, from where it is published or from a folder here.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fittingroom dataset fetch fashion-mnist\n  fittingroom dataset fetch digits --from ./digits"
)]
struct FetchArgs {
    /// What search files call it
    name: Name,
    /// Upload it from this folder: the four IDX files of a dataset, packed (.gz) or not
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_FROM")]
    from: Option<PathBuf>,
    #[command(flatten)]
    json: JsonFlag,
}

/// Lists the datasets that the coordinator holds.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom dataset list")]
struct ListArgs {
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(
    args: DatasetArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    match args.command {
        DatasetCommand::Fetch(args) => {
            let local = match &args.from {
                Some(folder) => Some(Local::read(folder, KnownDataset::find(args.name.as_str()))?),
                None => None,
            };
            let mut client = Client::connect(coordinator).await?;
            let manifest = match local {
                Some(local) => local.add(&mut client, args.name).await?,
                None => fetch(&mut client, &args.name).await?,
            };
            match args.json.form() {
                Form::Json => output.json(&DatasetRecord::from(&manifest)),
                Form::Text => output.line(&format!("{}: {}", manifest.name, describe(manifest.shape))),
            }
        }
        DatasetCommand::List(args) => {
            let datasets = Client::connect(coordinator).await?.datasets().await?;
            match args.json.form() {
                Form::Json => output
                    .json(&json::Datasets { datasets: datasets.iter().map(DatasetRecord::from).collect() }),
                Form::Text => output.line(&render(&datasets, output.width())),
            }
        }
    }
}

/// Has the coordinator obtain a dataset by its name, and passes on what it says meanwhile.
pub(crate) async fn fetch(client: &mut Client, name: &Name) -> Result<Manifest, CliError> {
    let mut steps = client.fetch_dataset(name).await?;
    while let Some(step) = steps.next().await? {
        match step {
            FetchStep::Progress(progress) => notice(&text::clean(&progress)),
            FetchStep::Done(manifest) => return Ok(manifest),
        }
    }
    Err(CliError::EndedEarly)
}

/// A dataset in a folder here, read and found usable.
pub(crate) struct Local {
    files: [Vec<u8>; 4],
    shape: Shape,
}

impl Local {
    /// Reads the folder. What pretends to be a known dataset must be that dataset.
    pub(crate) fn read(folder: &Path, known: Option<&KnownDataset>) -> Result<Self, CliError> {
        let files = read_folder(folder)?;
        let all = [&files[0][..], &files[1], &files[2], &files[3]];
        if let Some(known) = known {
            known.check(all)?;
        }
        let shape = Shape::of_files(all)?;
        Ok(Self { files, shape })
    }

    /// What is in it, for people.
    pub(crate) fn describe(&self) -> String {
        describe(self.shape)
    }

    fn hashes(&self) -> [ArtifactHash; 4] {
        [0, 1, 2, 3].map(|index| ArtifactHash::of(&self.files[index]))
    }

    /// A name that says where it comes from, and that no other content has.
    pub(crate) fn own_name(&self, folder: &Path) -> Name {
        const LONGEST: usize = Name::MAX_LENGTH - "-01234567".len();
        let last = folder.file_name().unwrap_or_default().to_string_lossy();
        let name = Name::sanitised(&last).to_string();
        let readable: String = name.chars().take(LONGEST).collect();
        let hash = ArtifactHash::of(&self.hashes().map(|hash| *hash.as_bytes()).concat()).to_string();
        let short: String = hash.chars().take(8).collect();
        Name::sanitised(&format!("{readable}-{short}"))
    }

    /// Uploads the files, unless the coordinator has them under this name already, and names them.
    pub(crate) async fn add(self, client: &mut Client, name: Name) -> Result<Manifest, CliError> {
        let hashes = self.hashes();
        let held = client.datasets().await?;
        if let Some(held) = held.into_iter().find(|held| held.name == name && held.files == hashes) {
            return Ok(held);
        }
        let mut store = client.artifacts().await?;
        for (role, bytes) in FileRole::ALL.into_iter().zip(self.files) {
            upload(client, &mut store, bytes, role.to_string()).await?;
        }
        let dataset = AddDataset { name, files: hashes };
        client.add_dataset(dataset).await
    }
}

fn describe(shape: Shape) -> String {
    format!(
        "{} images to train on and {} to test on, {}x{}, {} classes",
        text::grouped(shape.train_images as u64),
        text::grouped(shape.test_images as u64),
        shape.height,
        shape.width,
        shape.classes
    )
}

fn render(datasets: &[Manifest], width: Option<u16>) -> String {
    if datasets.is_empty() {
        return "no datasets yet; `fittingroom dataset fetch fashion-mnist` gets one".to_owned();
    }
    let columns = [
        table::words("dataset"),
        table::numbers("training"),
        table::numbers("test"),
        table::numbers("image"),
        table::numbers("classes"),
        table::words("hash"),
    ];
    let rows = datasets.iter().map(|manifest| {
        let shape = manifest.shape;
        vec![
            manifest.name.to_string(),
            text::grouped(shape.train_images as u64),
            text::grouped(shape.test_images as u64),
            format!("{}x{}", shape.height, shape.width),
            shape.classes.to_string(),
            manifest.hash().to_string().chars().take(12).collect(),
        ]
    });
    table::lay_out(&columns, rows.collect(), width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::{dataset_folder, manifest};

    #[test]
    fn a_folder_names_its_dataset_by_its_contents() {
        let root = tempfile::tempdir().expect("temporary folder");
        let first = dataset_folder(&root.path().join("my digits"), 1);
        let again = dataset_folder(&root.path().join("copy/my digits"), 1);
        let other = dataset_folder(&root.path().join("other/my digits"), 2);
        let name = |folder: &Path| Local::read(folder, None).expect("usable").own_name(folder);
        assert!(name(&first).as_str().starts_with("my-digits-"));
        assert_eq!(name(&first), name(&again));
        assert_ne!(name(&first), name(&other));

        let long = dataset_folder(&root.path().join("x".repeat(100)), 1);
        assert_eq!(name(&long).as_str().len(), Name::MAX_LENGTH);
    }

    #[test]
    fn what_pretends_to_be_a_known_dataset_is_checked() {
        let root = tempfile::tempdir().expect("temporary folder");
        let folder = dataset_folder(&root.path().join("digits"), 1);
        let refused =
            Local::read(&folder, Some(&KnownDataset::FASHION_MNIST)).err().expect("another dataset");
        assert!(refused.to_string().contains("is not the published fashion-mnist file"), "{refused}");
    }

    #[test]
    fn each_dataset_has_a_line() {
        assert_eq!(
            render(&[manifest()], None),
            "\
dataset        training    test  image  classes  hash
──────────────────────────────────────────────────────────────
fashion-mnist    60,000  10,000  28x28       10  7bd1cc68f8d2
"
        );
        assert!(render(&[], None).contains("fittingroom dataset fetch"));
    }
}
