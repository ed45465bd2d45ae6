//! The trainer, spoken to as an agent speaks to it.

mod unwritten;

use std::io::{BufReader, Cursor, Read};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use fittingroom_common::dataset::{Dataset, Part};
use fittingroom_common::hyperparameter::Hyperparameters;

use super::protocol::{Checkpoints, DatasetFiles, EpochMetrics, ResumeFrom, TrainCommand};
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
        checkpoints: None,
        resume_from: None,
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

/// A trial of four epochs with six steps each, and a checkpoint after each epoch.
fn of_four_epochs(
    id: &str,
    dataset: &DatasetFiles,
    model_file: PathBuf,
    resume_from: Option<ResumeFrom>,
) -> Command {
    resumable(id, 4, NonZeroU32::new(1), dataset, model_file, resume_from)
}

fn resumable(
    id: &str,
    epochs: u32,
    every_epochs: Option<NonZeroU32>,
    dataset: &DatasetFiles,
    model_file: PathBuf,
    resume_from: Option<ResumeFrom>,
) -> Command {
    let epochs = epochs.to_string();
    let settings = hyperparameters(&[
        ("hidden_sizes", "8"),
        ("dropout", "0.3"),
        ("normalization", "batch"),
        ("epochs", &epochs),
        ("batch_size", "16"),
    ]);
    let Command::Train(train) = command(id, dataset, settings, model_file.clone()) else {
        panic!("it trains");
    };
    let folder = model_file.parent().expect("in a folder").to_owned();
    let checkpoints = Some(Checkpoints { folder, every_epochs, every_seconds: NonZeroU32::new(3600) });
    Command::Train(TrainCommand { checkpoints, resume_from, ..train })
}

/// What must be the same bits.
fn results(events: &[Event]) -> Vec<EpochMetrics> {
    let timeless = |it: &EpochMetrics| EpochMetrics { seconds: 0.0, images_per_second: 0.0, ..*it };
    let metrics = events.iter().filter_map(|event| match event {
        Event::Epoch { metrics, .. } => Some(timeless(metrics)),
        _ => None,
    });
    metrics.collect()
}

#[test]
fn a_trial_goes_on_from_each_of_its_checkpoints_with_the_same_bits() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(100, 20), folder.path());
    let model_file = folder.path().join("model.safetensors");
    let whole = answers(Cursor::new(line(&of_four_epochs("whole", &files, model_file.clone(), None))));
    let model = std::fs::read(&model_file).expect("saved");
    let places: Vec<_> = whole
        .iter()
        .filter_map(|event| match event {
            Event::Checkpoint { file, epoch, step, .. } => Some((file.clone(), *epoch, *step)),
            _ => None,
        })
        .collect();
    let expected = [1, 2, 3].map(|epoch| (folder.path().join(format!("checkpoint-{epoch}-1")), epoch, 1));
    assert_eq!(places, expected, "at the first step after each epoch but the last");
    for (file, epoch, step) in places {
        std::fs::remove_file(&model_file).expect("there");
        let from = Some(ResumeFrom { file, epoch, step });
        let rest = answers(Cursor::new(line(&of_four_epochs("rest", &files, model_file.clone(), from))));
        assert_eq!(results(&rest), results(&whole)[epoch as usize..], "the epochs after {epoch}");
        assert!(std::fs::read(&model_file).expect("saved") == model, "another model after {epoch}");
    }
}

#[test]
fn a_checkpoint_that_is_not_what_it_should_be_is_refused_and_the_trainer_goes_on() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(100, 20), folder.path());
    let model_file = folder.path().join("model.safetensors");
    answers(Cursor::new(line(&of_four_epochs("whole", &files, model_file.clone(), None))));
    let good = folder.path().join("checkpoint-2-1");
    let bytes = std::fs::read(&good).expect("there");
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let (path, mut bytes) = (folder.path().join(name), bytes.clone());
        change(&mut bytes);
        std::fs::write(&path, bytes).expect("writable");
        path
    };
    let last = bytes.len() - 1;
    for (name, file, epoch, said) in [
        ("missing", folder.path().join("nowhere"), 2, "cannot be read"),
        ("cut short", changed("short", &|bytes| bytes.truncate(last)), 2, "not a safetensors file"),
        ("damaged", changed("damaged", &|bytes| bytes[last] ^= 1), 2, "damaged"),
        ("of another place", good.clone(), 1, "(2, 1), but is said to be at (1, 1)"),
    ] {
        let from = Some(ResumeFrom { file, epoch, step: 1 });
        let refused = line(&of_four_epochs(name, &files, model_file.clone(), from));
        let from = Some(ResumeFrom { file: good.clone(), epoch: 2, step: 1 });
        let next = line(&of_four_epochs("next", &files, model_file.clone(), from));
        let events = without_progress(answers(Cursor::new(refused + &next)));
        assert!(
            matches!(&events[1], Event::Refused { id, problem } if id == name && problem.contains(said)),
            "{name}: {events:?}"
        );
        assert!(
            matches!(events.last(), Some(Event::Finished { id, .. }) if id == "next"),
            "{name}: {events:?}"
        );
    }
}

#[test]
fn a_suspended_trial_leaves_a_checkpoint_from_which_nothing_is_repeated() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(100, 20), folder.path());
    let model_file = folder.path().join("model.safetensors");
    let trial = |from| line(&resumable("trial", 150, None, &files, model_file.clone(), from));
    let (said, heard) = mpsc::channel();
    let parts = vec![trial(None).into_bytes(), line(&Command::Suspend { id: "trial".into() }).into_bytes()];
    let mut output = Overheard { text: Vec::new(), said };
    let opened = DeviceChoice::Cpu.open().expect("a CPU");
    let input = BufReader::with_capacity(1 << 16, Conversation { said: heard, parts });
    run(input, &mut output, &opened, || ()).expect("it writes");
    let text = String::from_utf8(output.text).expect("text");
    let first: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let [.., Event::Checkpoint { file, epoch, step, .. }, Event::Stopped { .. }] = &first[..] else {
        panic!("{first:?}");
    };
    let from = Some(ResumeFrom { file: file.clone(), epoch: *epoch, step: *step });
    let second = answers(Cursor::new(trial(from)));
    let whole = answers(Cursor::new(trial(None)));
    assert_eq!([results(&first), results(&second)].concat(), results(&whole));
}
