//! `fittingroom launch`: a search file becomes a search.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{Name, TrialId};
use fittingroom_common::operator::Launch;
use fittingroom_common::space::{DatasetChoice, MAX_FILE_BYTES, SearchSpec};
use fittingroom_common::view::{SearchState, SearchSummary};
use serde::Serialize;

use super::client::{Client, Coordinator};
use super::dataset::{Local, fetch};
use super::error::CliError;
use super::flags::{FollowFlag, JsonFlag};
use super::follow::{Followed, follow};
use super::json;
use super::output::{Form, Output, notice};
use super::text;
use crate::method::Plan;

/// Checks a search file, and launches the search that it describes.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fittingroom launch deploy/searches/quickstart.yaml --dry-run\n  fittingroom launch deploy/searches/quickstart.yaml --follow"
)]
pub(crate) struct LaunchArgs {
    /// The search file (YAML)
    file: PathBuf,
    /// What to call the search, instead of the name in the file
    #[arg(long, env = "FITTINGROOM_SEARCH_NAME")]
    name: Option<Name>,
    #[command(flatten)]
    follow: FollowFlag,
    /// Only check the file and show its first trials; no coordinator is needed
    #[arg(
        long,
        env = "FITTINGROOM_DRY_RUN",
        value_parser = BoolishValueParser::new(),
        conflicts_with = "follow"
    )]
    dry_run: bool,
    /// With --dry-run: how many trials to show [default: 5]
    #[arg(long, value_name = "N", env = "FITTINGROOM_SHOW", requires = "dry_run")]
    show: Option<u64>,
    #[command(flatten)]
    json: JsonFlag,
}

/// Trials that a dry run shows if nothing is said.
const SHOWN: u64 = 5;

/// Runs the command.
pub(crate) async fn run(
    args: LaunchArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let form = args.json.form();
    let spec = read(&args.file)?;
    let data = Data::of(&spec, &args.file)?;
    if args.dry_run {
        let trials = DryRun::new(&spec, args.show.unwrap_or(SHOWN));
        return match form {
            Form::Json => output.json(&trials),
            Form::Text => output.line(&trials.render(&spec)),
        };
    }
    let mut client = Client::connect(coordinator).await?;
    let dataset = data.give(&mut client).await?;
    let name = args.name.or_else(|| spec.name.clone());
    let search = client.launch(Launch { name, spec, dataset }).await?;
    match (form, args.follow.is_set()) {
        (Form::Json, false) => output.json(&json::Search::from(&search))?,
        (Form::Json, true) => output.json_line(&json::Search::from(&search))?,
        (Form::Text, is_followed) => output.line(&render(&search, is_followed))?,
    }
    if !args.follow.is_set() {
        return Ok(());
    }
    match follow(&mut client, &search.name, None, form, output).await? {
        Followed::ToItsEnd(search) if search.state == SearchState::Failed => {
            Err(CliError::SearchFailed { name: search.name, state: search.state, reason: search.reason })
        }
        Followed::ToItsEnd(_) | Followed::Left => Ok(()),
    }
}

/// Reads and checks a search file, and passes on what is to be noted about it.
fn read(path: &Path) -> Result<SearchSpec, CliError> {
    let unreadable = |source| CliError::NoSearchFile { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough for the parser to see that it is too long.
    let most = MAX_FILE_BYTES as u64 + 1;
    let file = File::open(path).map_err(unreadable)?;
    file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    let shown = path.display().to_string();
    let parsed =
        SearchSpec::parse_bytes(&shown, &bytes).map_err(|error| CliError::SearchFile(Box::new(error)))?;
    for note in &parsed.notes {
        notice(&format!("{shown}:{}:{}: note: {}", note.line, note.column, text::clean(&note.message)));
    }
    Ok(parsed.spec)
}

/// What a search is to be trained on.
enum Data {
    /// A dataset that the coordinator holds or can obtain.
    Named(Name),
    /// A dataset in a folder here.
    Here { folder: PathBuf, files: Local },
}

impl Data {
    /// What a search file names, its folder taken relative to the file's own.
    fn of(spec: &SearchSpec, file: &Path) -> Result<Self, CliError> {
        match &spec.dataset {
            DatasetChoice::Named(name) => Ok(Self::Named(name.clone())),
            DatasetChoice::Folder(folder) => {
                let folder = file.parent().unwrap_or(Path::new("")).join(folder);
                match Local::read(&folder, None) {
                    Ok(files) => Ok(Self::Here { folder, files }),
                    Err(CliError::Dataset(source)) => Err(CliError::DatasetFolder { folder, source }),
                    Err(other) => Err(other),
                }
            }
        }
    }

    /// Sees to it that the coordinator holds the dataset, and gives the name by which it does.
    async fn give(self, client: &mut Client) -> Result<Name, CliError> {
        match self {
            Self::Named(name) => Ok(fetch(client, &name).await?.name),
            Self::Here { folder, files } => {
                notice(&format!("dataset {}: {}", folder.display(), files.describe()));
                let name = files.own_name(&folder);
                Ok(files.add(client, name).await?.name)
            }
        }
    }
}

/// What a launched search is, and what to type next.
fn render(search: &SearchSummary, is_followed: bool) -> String {
    let mut shown = format!(
        "launched {}: {} by {} on {}\n",
        search.name,
        text::plural(search.trial_count, "trial"),
        search.method,
        search.dataset
    );
    if !is_followed {
        shown.push_str(&format!("next: fittingroom leaderboard {} --follow\n", search.name));
    }
    shown
}

/// `launch --dry-run --json`.
#[derive(Serialize)]
struct DryRun {
    trials: u64,
    method: &'static str,
    first: Vec<DryTrial>,
}

#[derive(Serialize)]
struct DryTrial {
    trial: TrialId,
    hyperparameters: Hyperparameters,
}

impl DryRun {
    fn new(spec: &SearchSpec, show: u64) -> Self {
        let plan = Plan::new(spec);
        let first = (0..show.min(spec.trial_count())).map(TrialId::new).map_while(|trial| {
            let hyperparameters = plan.hyperparameters(trial)?;
            Some(DryTrial { trial, hyperparameters })
        });
        Self { trials: spec.trial_count(), method: spec.method.name(), first: first.collect() }
    }

    fn render(&self, spec: &SearchSpec) -> String {
        let mut shown =
            format!("{} by {} on {}\n", text::plural(self.trials, "trial"), self.method, spec.dataset);
        for DryTrial { trial, hyperparameters } in &self.first {
            shown.push_str(&format!("trial {trial}: {hyperparameters}\n"));
        }
        let more = self.trials - self.first.len() as u64;
        if more > 0 {
            shown.push_str(&format!("… and {more} more (--show N shows the first N)\n"));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::{dataset_folder, summary};

    fn spec() -> SearchSpec {
        let text = "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n  batch_size: {values: [32, 64, 128]}\n";
        SearchSpec::parse("search.yaml", text).expect("good").spec
    }

    #[test]
    fn a_dry_run_shows_the_first_trials() {
        let trials = DryRun::new(&spec(), 2);
        assert_eq!(
            serde_json::to_value(&trials).expect("serialises"),
            serde_json::json!({
                "trials": 6,
                "method": "grid",
                "first": [
                    {"trial": 0, "hyperparameters": {"optimizer": "sgd", "batch_size": 32}},
                    {"trial": 1, "hyperparameters": {"optimizer": "sgd", "batch_size": 64}},
                ],
            })
        );
        assert_eq!(
            trials.render(&spec()),
            "6 trials by grid on fashion-mnist\n\
             trial 0: optimizer=sgd batch_size=32\n\
             trial 1: optimizer=sgd batch_size=64\n\
             … and 4 more (--show N shows the first N)\n"
        );
        assert!(!DryRun::new(&spec(), u64::MAX).render(&spec()).contains("more"));
    }

    #[test]
    fn a_launched_search_says_what_to_type_next() {
        assert_eq!(
            render(&summary(), false),
            "launched quickstart: 40 trials by random on fashion-mnist\n\
             next: fittingroom leaderboard quickstart --follow\n"
        );
    }

    #[test]
    fn a_search_file_that_is_wrong_is_pointed_at_and_exits_with_2() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("search.yaml");
        std::fs::write(&path, "method: grid\nparameters:\n  optimiser: {values: [sgd]}\n").expect("writes");
        let error = read(&path).expect_err("an unknown hyperparameter");
        assert_eq!(error.exit_code(), 2);
        let shown = error.for_people();
        assert!(shown.starts_with(&format!("{}:3:3: ", path.display())), "{shown}");
        for said in ["optimizer", "optimiser: {values: [sgd]}"] {
            assert!(shown.contains(said), "{shown} does not say {said:?}");
        }
    }

    #[test]
    fn a_search_file_that_is_not_there_is_named() {
        let error = read(Path::new("missing/search.yaml")).expect_err("not there");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("missing/search.yaml"), "{error}");
    }

    #[test]
    fn a_dataset_is_looked_for_beside_the_search_file() {
        let root = tempfile::tempdir().expect("temporary folder");
        dataset_folder(&root.path().join("searches/digits"), 1);
        let file = root.path().join("searches/search.yaml");
        let data = |folder: &str| {
            let text = format!("method: grid\ndataset: {folder}\nparameters: {{epochs: {{value: 1}}}}\n");
            Data::of(&SearchSpec::parse("search.yaml", &text).expect("good").spec, &file)
        };
        assert!(data("./digits").is_ok());
        let error = data("./letters").err().expect("not there");
        assert!(error.to_string().contains("searches/./letters"), "{error}");
    }
}
