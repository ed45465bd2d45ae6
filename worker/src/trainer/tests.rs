//! The trainer, spoken to as an agent speaks to it.

use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use fittingroom_common::dataset::{Dataset, Part};
use fittingroom_common::hyperparameter::Hyperparameters;

use super::protocol::{DatasetFiles, TrainCommand};
use super::*;
use crate::train::device::DeviceChoice;
use crate::train::testing::{dataset, hyperparameters};
use fittingroom_common::trial::Seeds;

/// Writes a dataset's four files.
fn write(dataset: &Dataset, folder: &Path) -> DatasetFiles {
    let idx = |dimensions: &[usize], data: &[u8]| {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|size| (*size as u32).to_be_bytes()));
        bytes.extend(data);
        bytes
    };
    let images =
        |part: &Part| idx(&[part.labels.len(), dataset.shape.height, dataset.shape.width], &part.pixels);
    let labels = |part: &Part| idx(&[part.labels.len()], &part.labels);
    let files =
        [images(&dataset.train), labels(&dataset.train), images(&dataset.test), labels(&dataset.test)];
    let names = ["train-images", "train-labels", "test-images", "test-labels"];
    let paths = names.map(|name| folder.join(name));
    for (path, bytes) in paths.iter().zip(files) {
        std::fs::write(path, bytes).expect("written");
    }
    paths
}

fn command(
    id: &str,
    dataset: &DatasetFiles,
    hyperparameters: Hyperparameters,
    model_file: PathBuf,
) -> Command {
    Command::Train(TrainCommand {
        id: id.to_owned(),
        dataset: dataset.clone(),
        hyperparameters,
        seeds: Seeds::from_one(1),
        track_test: true,
        model_file,
    })
}

fn line(command: &Command) -> String {
    serde_json::to_string(command).expect("serialises") + "\n"
}

/// What a trainer answers to these lines.
fn answers(input: impl Read + Send) -> Vec<Event> {
    let opened = DeviceChoice::Cpu.open().expect("a CPU");
    let mut output = Vec::new();
    run(BufReader::new(input), &mut output, &opened, || ()).expect("it writes");
    let text = String::from_utf8(output).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn without_progress(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().filter(|event| !matches!(event, Event::Progress { .. })).collect()
}

#[test]
fn a_trial_is_trained_saved_and_evaluated() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(100, 20), folder.path());
    let model_file = folder.path().join("model.safetensors");
    let settings = hyperparameters(&[("hidden_sizes", "8"), ("epochs", "2"), ("batch_size", "16")]);
    let train = command("7/1", &files, settings, model_file.clone());
    let evaluate = Command::Evaluate { id: "e".into(), dataset: files, model_file: model_file.clone() };
    let events = answers(Cursor::new(line(&train) + &line(&evaluate)));
    assert!(
        matches!(&events[1], Event::Progress { id, epoch: 1, step: 1, steps: 6 } if id == "7/1"),
        "{events:?}"
    );
    let events = without_progress(events);
    let [
        Event::Ready { protocol: VERSION, device },
        Event::Epoch { metrics: first, .. },
        Event::Epoch { metrics: second, .. },
        Event::Finished { id, model_file: written },
        Event::Evaluated { loss, accuracy, .. },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((device.as_str(), id.as_str(), written), ("cpu", "7/1", &model_file));
    assert_eq!((first.epoch, second.epoch), (1, 2));
    // The model in the file is the model that was trained, to the bit.
    assert_eq!((second.test_loss, second.test_accuracy), (Some(*loss), Some(*accuracy)));
}

#[test]
fn a_trial_that_stops_early_is_finished_with_the_model_of_its_last_epoch() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(100, 20), folder.path());
    let model_file = folder.path().join("model.safetensors");
    // At this learning rate the loss soon goes up.
    let settings = hyperparameters(&[
        ("hidden_sizes", "8"),
        ("epochs", "200"),
        ("learning_rate", "0.3"),
        ("early_stopping_patience", "2"),
    ]);
    let train = command("7/1", &files, settings, model_file.clone());
    let evaluate = Command::Evaluate { id: "e".into(), dataset: files, model_file };
    let events = without_progress(answers(Cursor::new(line(&train) + &line(&evaluate))));
    let [Event::Ready { .. }, epochs @ .., Event::Finished { .. }, Event::Evaluated { loss, .. }] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    let metrics = epochs.iter().map(|event| match event {
        Event::Epoch { metrics, .. } => *metrics,
        other => panic!("{other:?}"),
    });
    let metrics: Vec<_> = metrics.collect();
    assert!((3..200).contains(&metrics.len()), "{} epochs", metrics.len());
    let losses: Vec<f64> = metrics.iter().map(|metrics| metrics.validation_loss).collect();
    let (before, since) = losses.split_at(losses.len() - 2);
    let lowest = before.iter().fold(f64::INFINITY, |lowest, loss| lowest.min(*loss));
    assert!(since.iter().all(|loss| *loss >= lowest), "{losses:?}");
    assert_eq!(metrics.last().and_then(|last| last.test_loss), Some(*loss));
}

#[test]
fn failures_name_their_reason_and_the_trainer_goes_on() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(60, 20), folder.path());
    let mut lacking = files.clone();
    lacking[1] = folder.path().join("nowhere");
    let mut cut = files.clone();
    cut[0] = folder.path().join("cut");
    std::fs::write(&cut[0], [0, 0, 8, 3]).expect("written");
    let quick = |settings: &[(&str, &str)]| {
        hyperparameters(&[&[("hidden_sizes", "8"), ("epochs", "1")], settings].concat())
    };
    let model_file = folder.path().join("model");
    let no_folder = folder.path().join("no/such/folder/model");
    // Weight decay alone multiplies every weight by -9 in each step.
    let wild =
        quick(&[("optimizer", "sgd"), ("learning_rate", "10"), ("weight_decay", "1"), ("epochs", "100")]);
    let rows = [
        (
            line(&command("lacking", &lacking, quick(&[]), model_file.clone())),
            "lacking",
            FailureReason::BadData,
            "nowhere",
        ),
        (
            line(&command("cut", &cut, quick(&[]), model_file.clone())),
            "cut",
            FailureReason::BadData,
            "train-images",
        ),
        (
            line(&command("wild", &files, wild, model_file.clone())),
            "wild",
            FailureReason::Diverged,
            "infinite or NaN",
        ),
        (
            line(&command("part", &files, Hyperparameters::new(), model_file.clone())),
            "part",
            FailureReason::TrainerCrashed,
            "lack model",
        ),
        (
            line(&command("unsaved", &files, quick(&[]), no_folder)),
            "unsaved",
            FailureReason::TrainerCrashed,
            "cannot be written",
        ),
        ("{\"command\":\"dance\"}\n".to_owned(), "", FailureReason::TrainerCrashed, "dance"),
        ("hello\n".to_owned(), "", FailureReason::TrainerCrashed, "not a command"),
    ];
    for (input, expected_id, expected, said) in rows {
        let good = line(&command("good", &files, quick(&[]), model_file.clone()));
        let events = without_progress(answers(Cursor::new(input + &good)));
        let failed = events.iter().find_map(|event| match event {
            Event::Failed { id, reason, detail } => Some((id.as_str(), *reason, detail.as_str())),
            _ => None,
        });
        let Some((id, reason, detail)) = failed else { panic!("{expected_id}: {events:?}") };
        assert_eq!((id, reason), (expected_id, expected), "{detail}");
        assert!(detail.contains(said), "{expected_id}: {detail}");
        assert!(matches!(events.last(), Some(Event::Finished { id, .. }) if id == "good"), "{events:?}");
    }
}

/// Input that gives its second part only when the trainer has said something about the first.
struct Conversation {
    said: mpsc::Receiver<()>,
    parts: Vec<Vec<u8>>,
}

impl Read for Conversation {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.parts.is_empty() {
            return Ok(0);
        }
        let part = self.parts.remove(0);
        if self.parts.is_empty() {
            // The last part waits for an answer to the first.
            let _ = self.said.recv();
        }
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

/// Output that says when a line of progress comes by.
struct Overheard {
    text: Vec<u8>,
    said: mpsc::Sender<()>,
}

impl Write for Overheard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.windows(8).any(|window| window == b"progress") {
            let _ = self.said.send(());
        }
        self.text.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stop_takes_effect_in_the_middle_of_an_epoch_and_spares_the_next_trial() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(100, 20), folder.path());
    let endless = hyperparameters(&[("hidden_sizes", "8"), ("epochs", "100000")]);
    let short = hyperparameters(&[("hidden_sizes", "8"), ("epochs", "1")]);
    let model_file = folder.path().join("model");
    let stop = |id: &str| line(&Command::Stop { id: id.to_owned() });
    let first = line(&command("endless", &files, endless.clone(), model_file.clone()));
    let second = [
        stop("unheard of"),
        line(&command("queued", &files, endless, model_file.clone())),
        line(&command("next", &files, short, model_file)),
        stop("queued"),
        stop("endless"),
    ];
    let (said, heard) = mpsc::channel();
    let parts = vec![first.into_bytes(), second.concat().into_bytes()];
    let mut output = Overheard { text: Vec::new(), said };
    let opened = DeviceChoice::Cpu.open().expect("a CPU");
    let input = BufReader::with_capacity(1 << 16, Conversation { said: heard, parts });
    run(input, &mut output, &opened, || ()).expect("it writes");
    let ends: Vec<String> = String::from_utf8(output.text)
        .expect("text")
        .lines()
        .filter_map(|line| match serde_json::from_str(line).expect(line) {
            Event::Stopped { id } => Some(format!("stopped {id}")),
            Event::Finished { id, .. } => Some(format!("finished {id}")),
            _ => None,
        })
        .collect();
    assert_eq!(ends, ["stopped endless", "stopped queued", "finished next"]);
}
