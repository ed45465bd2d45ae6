//! `fittingroom best`: the best model of a search, and all that is needed to rebuild it.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use fittingroom_common::id::{ArtifactHash, Name};
use fittingroom_common::record::{DatasetRecord, Metrics, Recipe, Record, Shuffle, VERSION};
use fittingroom_common::trial::Score;
use fittingroom_common::view::Best;
use serde::Serialize;
use serde_json::{Map, Value};

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::file::AtomicFile;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use super::safetensors::{Header, Tensor};
use super::text;
use super::transfer::download;

/// Writes the best model of a search as model.safetensors, and beside it model.json with everything
/// needed to rebuild it and to run its training again.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  fittingroom best quickstart --out ./best
  fittingroom-worker train --from best/model.json --save again.safetensors")]
pub(crate) struct BestArgs {
    /// The search
    name: Name,
    /// The folder for the two files; made if it is not there
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_OUT")]
    out: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(
    args: BestArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = Client::connect(coordinator).await?;
    let best = client.best(&args.name).await?;
    std::fs::create_dir_all(&args.out)
        .map_err(|source| CliError::Write { path: args.out.clone(), source })?;
    let model = args.out.join("model.safetensors");
    let description = args.out.join("model.json");

    let mut file = AtomicFile::create(&model)?;
    let size = download(&client, best.model, &mut file, "model.safetensors".to_owned()).await?;
    let header = read_header(file.so_far()?, size)?;
    let mut described = AtomicFile::create(&description)?;
    let mut bytes = serde_json::to_vec_pretty(&Description::new(&best, &header))
        .map_err(|error| described.unwritable(error.into()))?;
    bytes.push(b'\n');
    described.write_all(&bytes).map_err(|source| described.unwritable(source))?;
    file.finish()?;
    described.finish()?;

    match args.json.form() {
        Form::Json => output.json(&Written {
            search: best.search.name.as_str(),
            model: &model,
            description: &description,
            best: json::Trial::from(&best.row),
        }),
        Form::Text => output.line(&render(&best, &model, &description)),
    }
}

fn read_header(path: &Path, size: u64) -> Result<Header, CliError> {
    let file = File::open(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    Ok(Header::read(BufReader::new(file), size)?)
}

/// `best --json`.
#[derive(Serialize)]
struct Written<'a> {
    search: &'a str,
    model: &'a Path,
    description: &'a Path,
    best: json::Trial<'a>,
}

/// `model.json`.
#[derive(Serialize)]
struct Description<'a> {
    search: &'a str,
    trial: u64,
    attempt: u32,
    model: &'static str,
    model_hash: ArtifactHash,
    #[serde(flatten)]
    record: Record,
    tensors: &'a [Tensor],
    metadata: &'a Map<String, Value>,
}

impl<'a> Description<'a> {
    fn new(best: &'a Best, header: &'a Header) -> Self {
        Self {
            search: best.search.name.as_str(),
            trial: best.row.trial.get(),
            attempt: best.attempt.get(),
            model: "model.safetensors",
            model_hash: best.model,
            record: record_of(best, header),
            tensors: &header.tensors,
            metadata: &header.metadata,
        }
    }
}

/// How the model was trained: the search's part from its log, the trainer's from the model's file.
fn record_of(best: &Best, header: &Header) -> Record {
    let noted = |key: &str| header.metadata.get(key).and_then(Value::as_str);
    let metrics = best.row.report.as_ref().map(Metrics::from).unwrap_or_default();
    Record {
        record_version: VERSION,
        recipe: Recipe {
            hyperparameters: best.hyperparameters.clone(),
            seeds: best.seeds,
            shuffle: Shuffle::On,
            initial_weights: None,
            dataset: DatasetRecord::from(&best.dataset),
        },
        program: noted("program").map(str::to_owned),
        machine: noted("machine").and_then(|text| serde_json::from_str(text).ok()),
        metrics: Metrics { test: test_of(best), ..metrics },
    }
}

/// The model on the test set, where it is known.
fn test_of(best: &Best) -> Option<Score> {
    best.row.test.or_else(|| best.row.report.and_then(|report| report.test))
}

fn render(best: &Best, model: &Path, description: &Path) -> String {
    let row = &best.row;
    let mut shown = format!("trial {} of {} is the best", row.trial, best.search.name);
    if let Some(report) = &row.report {
        let accuracy = text::percent(report.validation.accuracy);
        shown.push_str(&format!(": validation accuracy {accuracy}"));
    }
    shown.push_str(&match test_of(best) {
        Some(test) => format!(", test accuracy {}\n", text::percent(test.accuracy)),
        None if best.search.state.has_ended() => "; it was not evaluated on the test set\n".to_owned(),
        None => {
            " so far; the best of all is evaluated on the test set when the search is complete\n".to_owned()
        }
    });
    shown.push_str(&format!("{}\n", row.hyperparameters));
    shown.push_str(&format!("model:            {}\n", model.display()));
    shown.push_str(&format!("how to rebuild it: {}\n", description.display()));
    shown
}

#[cfg(test)]
mod tests {
    use fittingroom_common::hyperparameter::Hyperparameters;
    use fittingroom_common::id::AttemptNumber;
    use fittingroom_common::trial::Seeds;
    use fittingroom_common::view::SearchState;

    use super::*;
    use crate::cli::samples::{complete, manifest, score, summary};

    fn best(test: Option<Score>, state: SearchState) -> Best {
        let mut search = summary();
        search.state = state;
        let mut row = complete(3, 1, 0.9123);
        row.test = test;
        Best {
            row,
            seeds: Seeds { split: 1, order: 2, trial: 3 },
            attempt: AttemptNumber::new(2),
            hyperparameters: Hyperparameters::defaults(),
            model: ArtifactHash::of(b"model"),
            dataset: manifest(),
            search,
        }
    }

    fn header() -> Header {
        let text = r#"{"__metadata__":{"input_mean":"0.286","program":"0.0.9","machine":"{\"device\":\"cuda\",\"model\":\"NVIDIA H100\",\"features\":[]}"},"0.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend([0; 8]);
        Header::read(&bytes[..], bytes.len() as u64).expect("good")
    }

    #[test]
    fn the_description_has_everything_to_rebuild_the_model() {
        let best = best(Some(score(0.3, 0.9)), SearchState::Complete);
        let document = serde_json::to_value(Description::new(&best, &header())).expect("serialises");
        assert_eq!(document["search"], "quickstart");
        assert_eq!(document["attempt"], 2);
        assert_eq!(document["hyperparameters"]["optimizer"], "adam");
        assert_eq!(
            document["hyperparameters"].as_object().map(Map::len),
            Some(Hyperparameters::defaults().len())
        );
        assert_eq!(document["seeds"]["order"], 2);
        assert_eq!(document["dataset"]["classes"], 10);
        assert_eq!(document["dataset"]["files"].as_object().map(Map::len), Some(4));
        assert_eq!(document["metrics"]["validation"]["accuracy"], 0.9123);
        assert_eq!(document["metrics"]["test"]["accuracy"], 0.9);
        assert_eq!(
            document["tensors"],
            serde_json::json!([{"name": "0.weight", "dtype": "F32", "shape": [2, 1]}])
        );
        assert_eq!(document["metadata"]["input_mean"], "0.286");

        // The same document is the record that `fittingroom-worker train --from` reads.
        let record = Record::parse(document.to_string().as_bytes()).expect("a record");
        assert_eq!(record, record_of(&best, &header()));
        assert_eq!((record.program.as_deref(), record.recipe.seeds), (Some("0.0.9"), best.seeds));
        assert_eq!(record.machine.map(|machine| machine.model), Some("NVIDIA H100".to_owned()));
    }

    #[test]
    fn the_test_accuracy_is_said_as_far_as_it_is_known() {
        for (test, state, said) in [
            (Some(score(0.3, 0.9)), SearchState::Complete, "test accuracy 90.00 %"),
            (None, SearchState::Running, "when the search is complete"),
            (None, SearchState::Cancelled, "not evaluated"),
        ] {
            let shown = render(&best(test, state), Path::new("m"), Path::new("d"));
            assert!(shown.contains(said), "{shown:?} does not say {said:?}");
        }
    }
}
