//! `fittingroom export`: all trials or all epochs of a search, for other programs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use fittingroom_common::hyperparameter::Parameter;
use fittingroom_common::id::Name;
use fittingroom_common::view::{EpochRow, SearchSummary, TrialRow};
use serde_json::Value;

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::file::AtomicFile;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output, notice};
use super::text;

/// Writes all trials of a search, or all their epochs, into a file.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom export quickstart --format csv --epochs --out epochs.csv")]
pub(crate) struct ExportArgs {
    /// The search
    name: Name,
    /// What to write
    #[arg(long, value_enum, env = "FITTINGROOM_FORMAT")]
    format: Format,
    /// Write a row for each epoch instead of each trial
    #[arg(long, env = "FITTINGROOM_EXPORT_EPOCHS", value_parser = BoolishValueParser::new())]
    epochs: bool,
    /// The file; - for stdout
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_OUT")]
    out: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line of column names, then a line for each row
    Csv,
    /// One document
    Json,
}

/// Runs the command.
pub(crate) async fn run(
    args: ExportArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = Client::connect(coordinator).await?;
    if args.out == Path::new("-") {
        return write(&args, &mut client, output, CliError::Output).await.map(drop);
    }
    let mut file = AtomicFile::create(&args.out)?;
    let unwritable = |source| CliError::Write { path: args.out.clone(), source };
    let rows = write(&args, &mut client, &mut file, unwritable).await?;
    file.finish()?;
    let unit = if args.epochs { "epoch" } else { "trial" };
    match args.json.form() {
        Form::Text => notice(&format!("{} written to {}", text::plural(rows, unit), args.out.display())),
        Form::Json => output.json(&json::Exported { search: &args.name, unit, rows, out: &args.out })?,
    }
    Ok(())
}

/// Writes what was asked for, and gives the number of its rows.
async fn write(
    args: &ExportArgs,
    client: &mut Client,
    sink: &mut (impl Write + Send),
    failed: impl Fn(io::Error) -> CliError,
) -> Result<u64, CliError> {
    if !args.epochs {
        let (search, trials) = client.leaderboard(&args.name, None).await?;
        write_trials(args.format, sink, &search, &trials).map_err(&failed)?;
        return Ok(trials.len() as u64);
    }
    // Epochs can be many more than trials, so they are written as they come.
    let mut epochs = client.epochs(&args.name).await?;
    let mut rows = EpochRows::begin(args.format, sink, &args.name).map_err(&failed)?;
    while let Some(epoch) = epochs.next().await? {
        rows.add(&epoch).map_err(&failed)?;
    }
    rows.end().map_err(&failed)
}

fn write_trials(
    format: Format,
    sink: &mut impl Write,
    search: &SearchSummary,
    trials: &[TrialRow],
) -> io::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *sink, &json::Leaderboard::new(search, trials))?;
            sink.write_all(b"\n")
        }
        Format::Csv => {
            let named: Vec<Parameter> = Parameter::all()
                .filter(|parameter| trials.iter().any(|row| row.hyperparameters.get(*parameter).is_some()))
                .collect();
            let mut csv = csv::Writer::from_writer(sink);
            csv.write_record(trial_columns(&named))?;
            for row in trials {
                csv.write_record(trial_cells(row, &named)?)?;
            }
            csv.flush()
        }
    }
}

/// The fields of a trial's document, with a column for each hyperparameter instead of their object.
const BEFORE_HYPERPARAMETERS: [&str; 5] = ["rank", "trial", "state", "attempts", "worker"];
const AFTER_HYPERPARAMETERS: [&str; 9] = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "failure",
];

fn trial_columns(named: &[Parameter]) -> Vec<&'static str> {
    let mut columns = BEFORE_HYPERPARAMETERS.to_vec();
    columns.extend(named.iter().map(|parameter| parameter.name()));
    columns.extend(AFTER_HYPERPARAMETERS);
    columns
}

fn trial_cells(row: &TrialRow, named: &[Parameter]) -> io::Result<Vec<String>> {
    let document = serde_json::to_value(json::Trial::from(row))?;
    let hyperparameters = &document["hyperparameters"];
    let mut cells: Vec<String> = BEFORE_HYPERPARAMETERS.map(|name| cell(&document[name])).to_vec();
    cells.extend(named.iter().map(|parameter| cell(&hyperparameters[parameter.name()])));
    cells.extend(AFTER_HYPERPARAMETERS.map(|name| cell(&document[name])));
    Ok(cells)
}

/// A value as the text of a cell: nothing for null, words without quotes, lists as JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}

/// The epochs of a search, written one after the other.
struct EpochRows<W: Write> {
    sink: EpochSink<W>,
    count: u64,
}

enum EpochSink<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Json(W),
}

const EPOCH_COLUMNS: [&str; 11] = [
    "trial",
    "attempt",
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "images_per_second",
];

impl<W: Write> EpochRows<W> {
    fn begin(format: Format, mut sink: W, search: &Name) -> io::Result<Self> {
        let sink = match format {
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(sink);
                csv.write_record(EPOCH_COLUMNS)?;
                EpochSink::Csv(Box::new(csv))
            }
            Format::Json => {
                write!(sink, "{{\n\"search\": {},\n\"epochs\": [", Value::from(search.as_str()))?;
                EpochSink::Json(sink)
            }
        };
        Ok(Self { sink, count: 0 })
    }

    fn add(&mut self, epoch: &EpochRow) -> io::Result<()> {
        let document = serde_json::to_value(json::TrialEpoch::from(epoch))?;
        match &mut self.sink {
            EpochSink::Csv(csv) => csv.write_record(EPOCH_COLUMNS.map(|name| cell(&document[name])))?,
            EpochSink::Json(sink) => {
                let separator = if self.count == 0 { "" } else { "," };
                write!(sink, "{separator}\n{document}")?;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn end(self) -> io::Result<u64> {
        match self.sink {
            EpochSink::Csv(mut csv) => csv.flush()?,
            EpochSink::Json(mut sink) => sink.write_all(b"\n]\n}\n")?,
        }
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use fittingroom_common::id::{AttemptNumber, TrialId};

    use super::*;
    use crate::cli::samples::{complete, diverged, hyperparameters, report, summary};

    fn trials(format: Format, rows: &[TrialRow]) -> String {
        let mut bytes = Vec::new();
        write_trials(format, &mut bytes, &summary(), rows).expect("writes");
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn epochs(format: Format, count: u32) -> String {
        let mut bytes = Vec::new();
        let mut rows = EpochRows::begin(format, &mut bytes, &Name::sanitised("quickstart")).expect("writes");
        for epoch in 1..=count {
            let row = EpochRow {
                trial: TrialId::new(3),
                attempt: AttemptNumber::FIRST,
                report: report(epoch, 0.5),
            };
            rows.add(&row).expect("writes");
        }
        assert_eq!(rows.end().expect("writes"), u64::from(count));
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn trials_become_rows_with_a_column_for_each_hyperparameter() {
        let mut sized = complete(0, 2, 0.875);
        sized.hyperparameters = hyperparameters(&[("hidden_sizes", "300,200"), ("nesterov", "true")]);
        assert_eq!(
            trials(Format::Csv, &[complete(3, 1, 0.9123), sized, diverged(1)]),
            "\
rank,trial,state,attempts,worker,hidden_sizes,optimizer,learning_rate,nesterov,batch_size,epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,test_loss,test_accuracy,seconds,failure
1,3,COMPLETE,1,node-1,,adam,0.0001,,64,10,0.25,0.95,0.3456,0.9123,,,72.5,
2,0,COMPLETE,1,node-1,\"[300,200]\",,,true,,10,0.25,0.95,0.3456,0.875,,,72.5,
3,1,FAILED,1,node-1,,adam,0.01,,64,,,,,,,,,diverged
"
        );
    }

    #[test]
    fn no_column_of_a_trial_is_forgotten() {
        let document = serde_json::to_value(json::Trial::from(&complete(3, 1, 0.9))).expect("serialises");
        let fields: Vec<&String> = document.as_object().expect("an object").keys().collect();
        let mut columns = BEFORE_HYPERPARAMETERS.to_vec();
        columns.push("hyperparameters");
        columns.extend(AFTER_HYPERPARAMETERS);
        assert_eq!(fields, columns);
    }

    #[test]
    fn epochs_become_rows_too() {
        assert_eq!(
            epochs(Format::Csv, 1),
            "\
trial,attempt,epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,test_loss,test_accuracy,seconds,images_per_second
3,1,1,0.25,0.95,0.3456,0.5,,,7.25,9000.0
"
        );
        assert_eq!(epochs(Format::Csv, 0).lines().count(), 1);
    }

    #[test]
    fn json_is_one_document_whatever_its_length() {
        let document: Value =
            serde_json::from_str(&trials(Format::Json, &[complete(3, 1, 0.9)])).expect("JSON");
        assert_eq!(document["trials"][0]["trial"], 3);
        for count in [0, 1, 3] {
            let document: Value = serde_json::from_str(&epochs(Format::Json, count)).expect("JSON");
            assert_eq!(document["search"], "quickstart");
            assert_eq!(document["epochs"].as_array().map(Vec::len), Some(count as usize));
        }
    }
}
