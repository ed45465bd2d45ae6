//! `train --from RECORD.json`: the same training again.

use std::path::Path;
use std::process::Output;

use crate::{dataset, lines, train, worker};

fn again(record: &str, more: &[&str]) -> Output {
    worker()
        .args(["train", "--device", "cpu", "--json", "--from", record])
        .args(more)
        .output()
        .expect("it runs")
}

#[test]
fn a_record_gives_the_same_bits_again() {
    let data = dataset();
    let file = |name: &str| data.path().join(name).to_str().expect("text").to_owned();
    let folder = data.path().to_str().expect("text");
    let (start, first, second) = (file("start.safetensors"), file("first.safetensors"), file("second"));
    lines(&train(data.path(), &["--json", "--epochs", "1", "--save", &start]));
    for (name, more) in [
        // A number that takes all of its 17 digits.
        ("plain", &["--set", "learning_rate=0.017999999225139618", "--seed", "7"][..]),
        ("given weights in order", &["--initial-weights", &start, "--shuffle", "off"]),
    ] {
        let common = ["--json", "--epochs", "2", "--track-test", "--save", &first];
        let trained = lines(&train(data.path(), &[&common, more].concat()));
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file("first.json")).expect("a record")).expect("JSON");
        assert_eq!(record["metrics"]["epoch"], 2, "{name}");
        assert_eq!(record["metrics"]["test"]["loss"], trained[1]["test_loss"], "{name}");
        assert_eq!(record["machine"]["device"], "cpu", "{name}");

        let mut flags = vec!["--data", folder, "--track-test", "--save", &second];
        if more[0] == "--initial-weights" {
            flags.extend(&more[..2]);
        }
        let output = again(&file("first.json"), &flags);
        assert_eq!(lines(&output), trained, "{name}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("warning"), "{name}: {output:?}");
        let bytes = |path: &str| std::fs::read(path).expect("saved");
        assert!(bytes(&first) == bytes(&second), "{name}: the models differ");
        let without_name = |path: &str| String::from_utf8(bytes(path)).expect("text");
        assert_eq!(without_name(&file("first.json")), without_name(&file("second.json")), "{name}");
    }
}

#[test]
fn what_cannot_be_done_again_is_refused_and_what_may_differ_is_said() {
    let data = dataset();
    let other = dataset();
    std::fs::write(other.path().join("t10k-labels-idx1-ubyte"), {
        let mut labels = std::fs::read(data.path().join("t10k-labels-idx1-ubyte")).expect("there");
        *labels.last_mut().expect("bytes") ^= 1;
        labels
    })
    .expect("written");
    let path = |folder: &Path, name: &str| folder.join(name).to_str().expect("text").to_owned();
    let model = path(data.path(), "model.safetensors");
    lines(&train(data.path(), &["--json", "--epochs", "1", "--save", &model]));
    let text = std::fs::read_to_string(data.path().join("model.json")).expect("a record");
    let (here, there) = (path(data.path(), ""), path(other.path(), ""));
    let hash = |text: &str| -> String {
        let document: serde_json::Value = serde_json::from_str(text).expect("JSON");
        document["dataset"]["hash"].as_str().expect("a hash").to_owned()
    };
    let with_data = ["--data", &here];
    let wrong_hash = text.replace(&hash(&text), &"0".repeat(64));
    let older = text.replace(r#""program": ""#, r#""program": "0.0.0-"#).replace(r#""cpu""#, r#""abacus""#);
    let lacking: String = text.lines().filter(|line| !line.contains("\"dropout\"")).collect();
    for (name, record, more, code, said) in [
        ("a wrong name", text.replace("learning_rate", "learning_rat"), &with_data[..], 1, "did you mean"),
        ("cut off", text[..text.len() / 2].to_owned(), &with_data, 1, "not a JSON document"),
        ("another hash", wrong_hash, &with_data, 1, "the dataset is 0000"),
        ("another dataset", text.clone(), &["--data", &there], 1, "the dataset is"),
        ("no folder", text.clone(), &[], 2, "name its folder with --data"),
        (
            "weights from nowhere",
            text.clone(),
            &["--data", &here, "--initial-weights", &model],
            1,
            "the hash of the initial weights is nothing there",
        ),
        (
            "a contradiction",
            text.clone(),
            &["--data", &here, "--set", "learning_rate=0.5"],
            2,
            "learning_rate is 0.001 in the record, but 0.5 is asked for",
        ),
        ("other epochs", text.clone(), &["--data", &here, "--epochs", "9"], 2, "epochs is 1 in the record"),
        ("another seed", text.clone(), &["--data", &here, "--seed", "3"], 2, "cannot be used with"),
        ("agreement", text.clone(), &["--data", &here, "--epochs", "1"], 0, ""),
        ("another version", older.clone(), &with_data, 0, "is of version 0.0.0-"),
        ("another machine", older, &with_data, 0, "is of abacus"),
        ("an older catalogue", lacking, &with_data, 0, "does not name dropout: taking 0"),
    ] {
        let file = path(data.path(), "record.json");
        std::fs::write(&file, record).expect("written");
        let output = again(&file, more);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert!(stderr.contains(said), "{name}: {stderr}");
    }
    let nowhere = again(&path(data.path(), "nowhere.json"), &with_data);
    assert_eq!(nowhere.status.code(), Some(1));
}
