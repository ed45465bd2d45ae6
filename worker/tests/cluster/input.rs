//! What people get wrong: each is answered by one clear message, and leaves nothing half-written.

use std::path::Path;
use std::process::Output;

use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use fittingroom_common::proto::{PROTOCOL_VERSION, RegisterRequest};

use crate::harness::{Cluster, fittingroom, fittingroom_worker, real_data};

/// Writes a dataset of random images, each class brighter in another row.
pub(crate) fn write_small_dataset(folder: &Path, height: u32, width: u32, classes: u8) {
    std::fs::create_dir_all(folder).expect("makes");
    for (part, count) in [("train", 400_u32), ("t10k", 100)] {
        let labels: Vec<u8> = (0..count).map(|image| (image % u32::from(classes)) as u8).collect();
        let pixels: Vec<u8> = (0..count)
            .flat_map(|image| (0..height * width).map(move |pixel| (image, pixel)))
            .map(|(image, pixel)| {
                let is_bright = pixel / width == image % u32::from(classes);
                let noise = (image.wrapping_mul(2_654_435_761) ^ pixel.wrapping_mul(40_503)) >> 8;
                (noise % 100) as u8 + if is_bright { 150 } else { 0 }
            })
            .collect();
        let mut images = vec![0, 0, 8, 3];
        images.extend([count, height, width].iter().flat_map(|size| size.to_be_bytes()));
        images.extend(pixels);
        let mut classes = vec![0, 0, 8, 1];
        classes.extend(count.to_be_bytes());
        classes.extend(labels);
        std::fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).expect("writes");
        std::fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), classes).expect("writes");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code, one message with these words, and no panic.
fn check(what: &str, output: &Output, code: i32, words: &[&str]) {
    let message = said(output);
    assert_eq!(output.status.code(), Some(code), "{what}: {message}");
    for word in words {
        assert!(message.contains(word), "{what}: {word:?} is not in:\n{message}");
    }
    for bad in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!message.contains(bad), "{what}: {message}");
    }
}

#[test]
fn a_wrong_search_file_is_pointed_at() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("s.yaml");
    let path = path.to_str().expect("UTF-8");
    let grid = |parameter: &str| format!("method: grid\nparameters:\n  {parameter}\n");
    for (what, file, words) in [
        ("syntax", "method: [grid\n".to_owned(), vec!["s.yaml:"]),
        ("unknown key", "methd: grid\n".to_owned(), vec!["s.yaml:1:1", "methd", "method"]),
        ("unknown hyperparameter", grid("learning_rat: {value: 1}"), vec!["s.yaml:3:3", "learning_rate"]),
        ("unknown value", grid("optimizer: {value: addam}"), vec!["s.yaml:3:", "adam"]),
        ("min above max", grid("learning_rate: {min: 0.5, max: 0.1}"), vec!["s.yaml:3:"]),
        (
            "logarithm of zero",
            grid("learning_rate: {distribution: log_uniform_values, min: 0, max: 0.1}"),
            vec!["s.yaml:3:"],
        ),
        ("no values", grid("optimizer: {values: []}"), vec!["s.yaml:3:", "values"]),
        (
            "continuous grid",
            grid("learning_rate: {min: 0.01, max: 0.1}"),
            vec!["s.yaml:3:", "grid", "random"],
        ),
        (
            "huge grid",
            grid("batch_size: {min: 1, max: 65536}\n  epochs: {min: 1, max: 1000}"),
            vec!["1000000"],
        ),
        (
            "test metric",
            format!("metric: test_accuracy\n{}", grid("epochs: {value: 1}")),
            vec!["s.yaml:1:", "test"],
        ),
    ] {
        std::fs::write(path, file).expect("writes");
        // Nothing listens there: a wrong file never gets as far as the coordinator.
        check(what, &fittingroom("http://127.0.0.1:1", &["launch", path]), 2, &words);
        check(what, &fittingroom("http://127.0.0.1:1", &["launch", path, "--dry-run"]), 2, &words);
    }
    check("no file", &fittingroom("http://127.0.0.1:1", &["launch", "nowhere.yaml"]), 2, &["nowhere.yaml"]);
}

#[test]
fn a_dry_run_needs_no_coordinator() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("s.yaml");
    std::fs::write(&path, "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n").expect("writes");
    let path = path.to_str().expect("UTF-8");
    let output = fittingroom("http://127.0.0.1:1", &["launch", path, "--dry-run", "--show", "1", "--json"]);
    check("dry run", &output, 0, &[]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({
            "trials": 2, "method": "grid", "first": [{"trial": 0, "hyperparameters": {"optimizer": "sgd"}}]
        })
    );
}

#[test]
fn what_is_missing_taken_or_not_there_is_said() {
    let mut cluster = Cluster::start(&[]);
    let folder = cluster.folder.path().to_owned();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("writes");
        path.to_str().expect("UTF-8").to_owned()
    };
    let grid = "method: grid\nparameters: {optimizer: {values: [sgd, adam]}}\n";
    let good = file("good.yaml", grid);
    let url = cluster.url.clone();

    check(
        "a coordinator that is not there",
        &fittingroom("http://127.0.0.1:1", &["list"]),
        1,
        &["127.0.0.1:1", "serve"],
    );
    check("usage", &fittingroom(&url, &["launch"]), 2, &["FILE"]);
    cluster.succeed(&["launch", &good, "--name", "taken"]);
    check(
        "a name that is taken",
        &fittingroom(&url, &["launch", &good, "--name", "taken"]),
        1,
        &["taken", "--name"],
    );
    check("a search that is not there", &fittingroom(&url, &["leaderboard", "tken"]), 1, &["tken", "taken"]);
    check("no best model yet", &fittingroom(&url, &["best", "taken", "--out", "nowhere"]), 1, &["taken"]);
    assert!(!Path::new("nowhere").exists(), "nothing half-written");

    let unknown = file("unknown.yaml", &format!("dataset: fashion-mnits\n{grid}"));
    check(
        "an unknown dataset",
        &fittingroom(&url, &["launch", &unknown]),
        1,
        &["fashion-mnits", "dataset fetch"],
    );
    let missing = file("missing.yaml", &format!("dataset: ./nothing-here\n{grid}"));
    check("a folder that is not there", &fittingroom(&url, &["launch", &missing]), 1, &["nothing-here"]);

    let truncated = folder.join("truncated");
    write_small_dataset(&truncated, 8, 8, 3);
    let images = truncated.join("train-images-idx3-ubyte");
    let bytes = std::fs::read(&images).expect("reads");
    std::fs::write(&images, &bytes[..bytes.len() - 1]).expect("writes");
    let path = truncated.to_str().expect("UTF-8");
    let words = ["train-images-idx3-ubyte", "25599 of 25600"];
    check("a truncated file", &fittingroom(&url, &["dataset", "fetch", "short", "--from", path]), 1, &words);

    let altered = folder.join("altered");
    std::fs::create_dir(&altered).expect("makes");
    for entry in std::fs::read_dir(real_data()).expect("lists") {
        let entry = entry.expect("is there");
        std::fs::copy(entry.path(), altered.join(entry.file_name())).expect("copies");
    }
    let mut labels = vec![0, 0, 8, 1];
    labels.extend(10_000_u32.to_be_bytes());
    labels.extend([3; 10_000]);
    std::fs::write(altered.join("t10k-labels-idx1-ubyte"), labels).expect("writes");
    let path = altered.to_str().expect("UTF-8");
    let fetched = fittingroom(&url, &["dataset", "fetch", "fashion-mnist", "--from", path]);
    check("an altered file", &fetched, 1, &["t10k-labels-idx1-ubyte", "SHA-256"]);

    let address = url.trim_start_matches("http://").to_owned();
    let other = folder.join("other-data");
    let other = other.to_str().expect("UTF-8");
    let serve = |listen: &str, data: &str| fittingroom(&url, &["serve", "--listen", listen, "--data", data]);
    check("a port in use", &serve(&address, other), 1, &[&address, "--listen"]);
    assert!(!Path::new(other).exists(), "nothing half-written");
    let data = cluster.data();
    let data = data.to_str().expect("UTF-8");
    check("a data folder in use", &serve("127.0.0.1:0", data), 1, &[data, "another coordinator", "--data"]);
    check("an open address", &serve("0.0.0.0:0", other), 2, &["--insecure"]);
    assert_eq!(cluster.stop_coordinator(), Some(0));
}

#[test]
fn the_workers_program_says_what_is_wrong_too() {
    let data = real_data();
    let data = data.to_str().expect("UTF-8");
    let train = |arguments: &[&str]| {
        let all: Vec<&str> =
            ["train", "--data", data, "--epochs", "1"].iter().chain(arguments).copied().collect();
        fittingroom_worker(&all)
    };
    check("an unknown hyperparameter", &train(&["--set", "learning_rat=0.1"]), 2, &["learning_rate"]);
    check("an unknown value", &train(&["--set", "optimizer=addam"]), 2, &["adam"]);
    check("a value out of range", &train(&["--set", "dropout=1.5"]), 2, &["dropout"]);
    check("no equals sign", &train(&["--set", "dropout"]), 2, &["dropout"]);
    check("no data", &fittingroom_worker(&["train", "--data", "/nowhere"]), 1, &["/nowhere"]);
    check("no such device", &train(&["--device", "cuda:0"]), 1, &["cuda"]);
    check("a wrong address", &fittingroom_worker(&["run", "--coordinator", "not a url"]), 2, &["not a url"]);
}

#[tokio::test]
async fn a_worker_of_another_protocol_version_is_refused() {
    let cluster = Cluster::start(&[]);
    let mut calls = WorkerServiceClient::connect(cluster.url.clone()).await.expect("connects");
    let request = RegisterRequest {
        protocol_version: PROTOCOL_VERSION + 1,
        worker_id: vec![7; 16],
        name: "from-the-future".to_owned(),
        slots: 1,
        device: "cpu".to_owned(),
        program_version: "99.0.0".to_owned(),
    };
    let refused = calls.register(request.clone()).await.expect_err("another version");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    for word in ["99.0.0", "version 2", "version 1", "same release"] {
        assert!(refused.message().contains(word), "{word:?} is not in {:?}", refused.message());
    }
    let same = RegisterRequest { protocol_version: PROTOCOL_VERSION, ..request };
    calls.register(same).await.expect("the same version is welcome");
}
