//! `fittingroom-worker train` and `trainer` as processes: exit codes, output, and their end.

mod again;
mod checkpoint;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn worker() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fittingroom-worker"))
}

/// A folder with 60 images of 4x4 to train on and 10 to test on, of two classes: dark and bright.
fn dataset() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let idx = |name: &str, dimensions: &[u32], data: &[u8]| {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
        bytes.extend(data);
        std::fs::write(folder.path().join(name), bytes).expect("written");
    };
    for (part, count) in [("train", 60), ("t10k", 10)] {
        let labels: Vec<u8> = (0..count).map(|image| (image % 2) as u8).collect();
        let pixels: Vec<u8> =
            (0..count * 16).map(|pixel| (pixel / 16 % 2 * 150 + pixel * 7 % 90) as u8).collect();
        idx(&format!("{part}-images-idx3-ubyte"), &[count, 4, 4], &pixels);
        idx(&format!("{part}-labels-idx1-ubyte"), &[count], &labels);
    }
    folder
}

fn train(data: &Path, more: &[&str]) -> Output {
    let mut command = worker();
    command.args(["train", "--device", "cpu", "--set", "hidden_sizes=8", "--set", "batch_size=8", "--data"]);
    command.arg(data).args(more).output().expect("it runs")
}

/// The JSON lines of a run, without the times, which no two runs share.
fn lines(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.lines().map(|line| line.expect("text"));
    let parse = |line: String| {
        let mut object: serde_json::Map<_, _> = serde_json::from_str(&line).expect("an object");
        for name in ["seconds", "images_per_second"] {
            assert!(object.remove(name).is_some_and(|value| value.is_f64()), "{line} lacks {name}");
        }
        object.into()
    };
    lines.map(parse).collect()
}

#[test]
fn an_epoch_is_a_line_and_the_same_seed_gives_the_same_bits() {
    let data = dataset();
    let model = data.path().join("model.safetensors");
    let model_name = model.to_str().expect("text");
    let run = |more: &[&str]| train(data.path(), &[&["--json", "--epochs", "3"], more].concat());
    let first = lines(&run(&["--seed", "5", "--save", model_name]));
    let bytes = std::fs::read(&model).expect("saved");
    let names = [
        "epoch",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "test_loss",
        "test_accuracy",
    ];
    for (line, epoch) in first.iter().zip(1..) {
        let object = line.as_object().expect("an object");
        assert_eq!(object.keys().collect::<Vec<_>>(), names);
        assert_eq!(line["epoch"], epoch);
        assert_eq!(line["test_accuracy"].is_null(), epoch < 3, "epoch {epoch}");
    }
    assert_eq!(first.len(), 3);
    assert_eq!(first, lines(&run(&["--seed", "5", "--save", model_name])));
    assert_eq!(bytes, std::fs::read(&model).expect("saved"), "the model differs from run to run");
    assert_ne!(first, lines(&run(&["--seed", "6"])));
    let tracked = lines(&run(&["--seed", "5", "--track-test"]));
    assert!(tracked.iter().all(|line| line["test_loss"].is_f64()));
}

#[test]
fn what_went_wrong_is_said_in_a_line_and_by_the_exit_code() {
    let data = dataset();
    let nowhere = data.path().join("nowhere");
    for (name, folder, more, code, said) in [
        (
            "an unknown name",
            data.path(),
            &["--set", "learning_rat=1"][..],
            2,
            r#"did you mean "learning_rate"?"#,
        ),
        ("a wrong value", data.path(), &["--set", "optimizer=addam"], 2, r#"did you mean "adam"?"#),
        ("no value", data.path(), &["--set", "dropout"], 2, "KEY=VALUE"),
        ("no epochs", data.path(), &["--epochs", "0"], 2, "from 1"),
        ("an unknown device", data.path(), &["--device", "gpu"], 2, "there is no device"),
        (
            "batches of one",
            data.path(),
            &["--set", "batch_size=1", "--set", "normalization=batch"],
            2,
            "at least 2",
        ),
        ("no dataset", &nowhere, &[], 1, "train-images-idx3-ubyte"),
        (
            "no such folder",
            data.path(),
            &["--epochs", "1", "--save", "/no/such/folder/model"],
            1,
            "cannot be written",
        ),
        (
            "divergence",
            data.path(),
            &[
                "--epochs",
                "50",
                "--set",
                "optimizer=sgd",
                "--set",
                "learning_rate=10",
                "--set",
                "weight_decay=1",
            ],
            1,
            "diverged",
        ),
    ] {
        let output = worker().args(["train", "--data"]).arg(folder).args(more).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
        assert!(!stderr.contains("panicked"), "{name}: {stderr}");
    }
}

#[test]
fn training_that_stops_early_is_tested_after_its_last_epoch() {
    let data = dataset();
    let stopping = ["--set", "early_stopping_patience=2", "--set", "learning_rate=0.5"];
    let output = train(data.path(), &[&["--json", "--epochs", "200"], &stopping[..]].concat());
    let lines = lines(&output);
    assert!((3..200).contains(&lines.len()), "{} epochs", lines.len());
    let tested: Vec<usize> = (0..lines.len()).filter(|&epoch| lines[epoch]["test_loss"].is_f64()).collect();
    assert_eq!(tested, [lines.len() - 1]);
    let output = train(data.path(), &[&["--epochs", "200"], &stopping[..]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("stopped early, after epoch {}", lines.len())), "{stderr}");
}

#[test]
fn a_saved_model_predicts_what_it_was_tested_on() {
    let data = dataset();
    let model = data.path().join("model.safetensors");
    let saved = ["--json", "--epochs", "2", "--save", model.to_str().expect("text")];
    let lines = lines(&train(data.path(), &saved));
    let predict = |folder: &Path| {
        let mut command = worker();
        command.args(["predict", "--device", "cpu", "--model"]).arg(&model).arg("--data").arg(folder);
        command.output().expect("it runs")
    };
    let output = predict(data.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let classes: Vec<usize> =
        output.stdout.lines().map(|line| line.expect("text").parse().expect("a class")).collect();
    assert_eq!(classes.len(), 10);
    let right = classes.iter().enumerate().filter(|(image, class)| image % 2 == **class).count();
    assert_eq!(lines[1]["test_accuracy"], right as f64 / 10.0);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("{right} of 10 test images right")), "{stderr}");
    let nowhere = predict(&data.path().join("nowhere"));
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn the_split_is_printed_in_place_of_training() {
    let data = dataset();
    let model = data.path().join("model.safetensors");
    let output = train(data.path(), &["--print-split", "--save", model.to_str().expect("text")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let split: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let indices = |name: &str| -> Vec<u64> {
        let indices: Vec<u64> =
            split[name].as_array().expect(name).iter().filter_map(|index| index.as_u64()).collect();
        assert!(indices.is_sorted(), "{name} does not ascend: {indices:?}");
        indices
    };
    let (training, validation) = (indices("training"), indices("validation"));
    // Of 30 images of either class, 3 validate.
    assert_eq!(validation.iter().filter(|index| *index % 2 == 0).count(), 3);
    assert_eq!(validation.len(), 6);
    let mut all = [training, validation].concat();
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<u64>>());
    assert!(!model.exists(), "it trained");
    let other = train(data.path(), &["--print-split", "--seed", "9"]);
    assert_ne!(other.stdout, output.stdout, "the seed has no effect");
}

#[test]
fn training_starts_from_given_weights_and_without_shuffling_does_the_same_again() {
    let data = dataset();
    let file = |name: &str| data.path().join(name).to_str().expect("text").to_owned();
    let run = |more: &[&str]| {
        let common = ["--json", "--epochs", "2", "--set", "normalization=batch", "--set", "optimizer=adam"];
        lines(&train(data.path(), &[&common, more].concat()))
    };
    let (start, first, second) = (file("start"), file("first"), file("second"));
    let drawn = run(&["--save", &start]);
    let from_start = ["--initial-weights", &start, "--shuffle", "off"];
    let once = run(&[&from_start[..], &["--save", &first]].concat());
    assert_eq!(once, run(&[&from_start[..], &["--save", &second]].concat()));
    let bytes = |path: &str| std::fs::read(path).expect("saved");
    assert_eq!(bytes(&first), bytes(&second));
    for (name, other) in [
        ("drawn weights", drawn.clone()),
        ("drawn weights, ascending", run(&["--shuffle", "off"])),
        ("given weights, shuffled", run(&["--initial-weights", &start])),
    ] {
        assert_ne!(once, other, "{name}");
    }
    // It goes on from where the first run ended.
    let loss =
        |lines: &[serde_json::Value], epoch: usize| lines[epoch]["train_loss"].as_f64().expect("a number");
    assert!(loss(&once, 0) < loss(&drawn, 1), "{once:?} after {drawn:?}");
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let data = dataset();
    let file = |name: &str| data.path().join(name).to_str().expect("text").to_owned();
    let (plain, normed) = (file("plain"), file("normed"));
    lines(&train(data.path(), &["--json", "--epochs", "1", "--save", &plain]));
    let batch = ["--json", "--epochs", "1", "--set", "normalization=batch"];
    lines(&train(data.path(), &[&batch[..], &["--save", &normed]].concat()));
    let (torn, nowhere) = (file("torn"), file("nowhere"));
    std::fs::write(&torn, &std::fs::read(&plain).expect("saved")[..100]).expect("written");
    for (name, weights, more, said) in [
        (
            "another size",
            &plain,
            &["--set", "hidden_sizes=9"][..],
            r#""fc1.weight" as F32 [8, 16], but the model takes F32 [9, 16]"#,
        ),
        (
            "a layer too few",
            &plain,
            &["--set", "hidden_sizes=8,4"],
            r#""fc2.weight" as F32 [2, 8], but the model takes F32 [4, 8]"#,
        ),
        (
            "a parameter too few",
            &plain,
            &["--set", "normalization=batch"],
            r#"lack "norm1.weight": the model takes it as F32 [8]"#,
        ),
        ("a tensor too many", &normed, &[], r#"have "norm1.bias", which the model does not"#),
        ("no weights", &torn, &[], "not a safetensors file"),
        ("no file", &nowhere, &[], "cannot be read"),
    ] {
        let output = train(data.path(), &[&["--initial-weights", weights], more].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
    }
}

#[test]
fn a_trainer_ends_with_its_input_whatever_it_is_doing() {
    let data = dataset();
    let mut trainer = worker();
    trainer.args(["trainer", "--device", "cpu"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut trainer = trainer.spawn().expect("it runs");
    let mut events = BufReader::new(trainer.stdout.take().expect("piped")).lines();
    let mut next = || events.next().expect("a line").expect("text");
    assert_eq!(next(), r#"{"event":"ready","protocol":1,"device":"cpu"}"#);
    let file = |name: &str| data.path().join(name);
    let mut hyperparameters = fittingroom_common::hyperparameter::Hyperparameters::defaults();
    let epochs = fittingroom_common::hyperparameter::Parameter::find("epochs").expect("known");
    hyperparameters.set(epochs, &epochs.integer(100_000).expect("fits")).expect("fits");
    let command = serde_json::json!({
        "command": "train",
        "id": "endless",
        "dataset": [
            file("train-images-idx3-ubyte"), file("train-labels-idx1-ubyte"),
            file("t10k-images-idx3-ubyte"), file("t10k-labels-idx1-ubyte"),
        ],
        "hyperparameters": hyperparameters,
        "seeds": {"split": 1, "order": 2, "trial": 3},
        "track_test": false,
        "model_file": file("model"),
    });
    let mut stdin = trainer.stdin.take().expect("piped");
    writeln!(stdin, "{command}").expect("it listens");
    assert!(next().contains(r#""event":"progress","id":"endless""#));
    drop(stdin);
    let status = trainer.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(!file("model").exists());
}
