//! `fittingroom-worker train` and `trainer` as processes: exit codes, output, and their end.

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
