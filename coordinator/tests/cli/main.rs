//! The program from the outside: commands against a real coordinator, with a worker that only pretends to train.

mod backup;
mod gpus;
mod operate;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fittingroom_common::proto as pb;
use fittingroom_common::proto::artifact_service_client::ArtifactServiceClient;
use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fittingroom");

/// A coordinator in a process of its own, killed when dropped.
struct Coordinator {
    process: Child,
    url: String,
    /// Where its metrics are.
    metrics: Option<String>,
}

impl Coordinator {
    fn start(data: &Path) -> Self {
        Self::start_with(data, &[], &[], Stdio::null())
    }

    fn start_with(data: &Path, flags: &[&str], environment: &[(&str, &str)], stderr: Stdio) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(flags)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("says its address");
        let said: Value = serde_json::from_str(&line).expect("one JSON document");
        let url = said["url"].as_str().expect("an address").to_owned();
        Self { process, url, metrics: said["metrics"].as_str().map(str::to_owned) }
    }

    /// Asks it to end; answers its exit code, and how long it took.
    fn terminate(mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
        while begun.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.process.try_wait().expect("waits") {
                return (status.code(), begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("process {id} does not end on SIGTERM");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&[arguments, &["--coordinator", &self.url]].concat())
    }

    /// What a command prints that must succeed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).expect("one JSON document")
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("runs")
}

fn idx(dimensions: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// A search file, and the folder with a dataset that it names.
fn write_search(folder: &Path) -> String {
    let dataset = folder.join("digits");
    std::fs::create_dir_all(&dataset).expect("a folder");
    for (name, bytes) in [
        ("train-images-idx3-ubyte", idx(&[4, 2, 2], &[7; 16])),
        ("train-labels-idx1-ubyte", idx(&[4], &[0, 1, 0, 1])),
        ("t10k-images-idx3-ubyte", idx(&[2, 2, 2], &[7; 8])),
        ("t10k-labels-idx1-ubyte", idx(&[2], &[0, 1])),
    ] {
        std::fs::write(dataset.join(name), bytes).expect("writes");
    }
    let file = folder.join("search.yaml");
    let text = "name: tiny\nmethod: grid\nepochs: 2\ndataset: ./digits\nparameters:\n  optimizer: {values: [sgd, adam, rmsprop]}\n";
    std::fs::write(&file, text).expect("writes");
    file.to_string_lossy().into_owned()
}

/// A model of one tensor.
fn model() -> Vec<u8> {
    let header =
        r#"{"__metadata__":{"input_mean":"0.5"},"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// Does the work of a worker without its training, until there is no more. The later a trial, the better.
async fn pretend_to_work(url: String) -> Result<(), Box<dyn std::error::Error>> {
    pretend_to_work_on(url, usize::MAX).await
}

/// The same, for so many attempts.
async fn pretend_to_work_on(url: String, most: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut workers = WorkerServiceClient::connect(url.clone()).await?;
    let mut artifacts = ArtifactServiceClient::connect(url).await?;
    let worker_id = vec![7; 16];
    workers
        .register(pb::RegisterRequest {
            protocol_version: pb::PROTOCOL_VERSION,
            worker_id: worker_id.clone(),
            name: "pretender".to_owned(),
            slots: 1,
            device: "none".to_owned(),
            program_version: "0".to_owned(),
        })
        .await?;
    for _ in 0..most {
        let lease = pb::LeaseRequest { worker_id: worker_id.clone(), slot: 0, wait_ms: 500 };
        let Some(assignment) = workers.lease(lease).await?.into_inner().assignment else { return Ok(()) };
        let attempt = assignment.attempt.ok_or("no attempt")?;
        let accuracy = 0.5 + 0.1 * attempt.trial as f64;
        let score = Some(pb::Score { loss: 0.25, accuracy });
        let outcome = match assignment.work.ok_or("no work")? {
            pb::assignment::Work::Evaluate(_) => {
                pb::complete_request::Outcome::Evaluated(pb::Score { loss: 0.5, accuracy: 0.625 })
            }
            pb::assignment::Work::Train(_) => {
                let mut model_hash = Vec::new();
                for epoch in 1..=2 {
                    let report = pb::Report {
                        epoch,
                        train: score,
                        validation: score,
                        test: None,
                        seconds: f64::from(epoch),
                        images_per_second: 1_000.0,
                    };
                    let report = pb::ReportRequest {
                        worker_id: worker_id.clone(),
                        search: assignment.search,
                        attempt: Some(attempt),
                        report: Some(report),
                    };
                    if workers.report(report).await?.into_inner().keep_model {
                        let chunk = pb::Chunk { data: model().into() };
                        model_hash = artifacts.upload(tokio_stream::iter([chunk])).await?.into_inner().hash;
                    }
                }
                pb::complete_request::Outcome::Trained(pb::Trained { model_hash })
            }
        };
        workers
            .complete(pb::CompleteRequest {
                worker_id: worker_id.clone(),
                search: assignment.search,
                attempt: Some(attempt),
                outcome: Some(outcome),
            })
            .await?;
    }
    Ok(())
}

#[test]
fn a_search_from_its_launch_to_its_best_model() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = write_search(folder.path());
    let coordinator = Coordinator::start(&folder.path().join("data"));

    let launched = coordinator.text(&["launch", &file]);
    assert!(launched.starts_with("launched tiny: 3 trials by grid on digits-"), "{launched}");
    assert!(launched.contains("fittingroom leaderboard tiny --follow"), "{launched}");
    let again = coordinator.run(&["launch", &file]);
    assert_eq!(again.status.code(), Some(1), "the name is taken");
    assert_eq!(coordinator.json(&["pause", "tiny", "--json"])["state"], "PAUSED");
    assert_eq!(coordinator.json(&["resume", "tiny", "--json"])["state"], "RUNNING");

    let follower = Command::new(PROGRAM)
        .args(["leaderboard", "tiny", "--follow", "--json", "--coordinator", &coordinator.url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(pretend_to_work(coordinator.url.clone())).expect("works");

    // The follower ends by itself, since the search has ended.
    let followed = follower.wait_with_output().expect("ends");
    assert!(followed.status.success());
    let lines = String::from_utf8(followed.stdout).expect("UTF-8");
    let documents: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    assert_eq!(documents.last().map(|last| &last["state"]), Some(&Value::from("COMPLETE")));

    let leaderboard = coordinator.json(&["leaderboard", "tiny", "--json"]);
    assert_eq!(Some(&leaderboard), documents.last());
    let best = &leaderboard["trials"][0];
    assert_eq!(leaderboard["metric"], "validation_accuracy");
    for (field, value) in [
        ("rank", Value::from(1)),
        ("trial", Value::from(2)),
        ("state", Value::from("COMPLETE")),
        ("attempts", Value::from(1)),
        ("worker", Value::from("pretender")),
        ("epoch", Value::from(2)),
        ("validation_accuracy", Value::from(0.7)),
        ("test_accuracy", Value::from(0.625)),
        ("failure", Value::Null),
    ] {
        assert_eq!(best[field], value, "{field}");
    }
    assert_eq!(coordinator.json(&["list", "--json"])["searches"][0]["complete"], 3);
    assert_eq!(coordinator.json(&["workers", "--json"])["workers"][0]["worker"], "pretender");
    assert_eq!(coordinator.json(&["dataset", "list", "--json"])["datasets"][0]["classes"], 2);
    let trial = coordinator.json(&["trial", "tiny", "2", "--json"]);
    assert_eq!(trial["attempt_history"][0]["epochs"].as_array().map(Vec::len), Some(2));

    let out = folder.path().join("best");
    let out = out.to_string_lossy();
    let said = coordinator.text(&["best", "tiny", "--out", &out]);
    assert!(said.contains("test accuracy 62.50 %"), "{said}");
    assert_eq!(std::fs::read(format!("{out}/model.safetensors")).expect("written"), model());
    let description: Value =
        serde_json::from_slice(&std::fs::read(format!("{out}/model.json")).expect("written")).expect("JSON");
    assert_eq!(description["hyperparameters"]["optimizer"], "rmsprop");
    assert_eq!(description["tensors"][0]["name"], "weight");
    assert_eq!(description["metadata"]["input_mean"], "0.5");
    assert_eq!(std::fs::read_dir(&*out).expect("a folder").count(), 2, "nothing else is left behind");

    let trials = coordinator.text(&["export", "tiny", "--format", "csv", "--out", "-"]);
    assert_eq!(trials.lines().count(), 1 + 3);
    let epochs = coordinator.text(&["export", "tiny", "--format", "csv", "--epochs", "--out", "-"]);
    assert_eq!(epochs.lines().count(), 1 + 6);
}

#[test]
fn what_goes_wrong_has_its_exit_code_and_prints_nothing_on_stdout() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let coordinator = Coordinator::start(&folder.path().join("data"));
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.to_string_lossy().into_owned()
    };
    let bad = write("bad.yaml", "method: grid\nparameters:\n  optimiser: {values: [sgd]}\n");
    let lost =
        write("lost.yaml", "method: grid\ndataset: ./none\nparameters:\n  optimizer: {values: [sgd]}\n");
    let missing = folder.path().join("missing.yaml").to_string_lossy().into_owned();
    let url = coordinator.url.as_str();
    for (row, arguments, code, said) in [
        ("no such command", vec!["lunch"], 2, "launch"),
        ("no value", vec!["serve", "--data"], 2, "--data"),
        ("a bad search file", vec!["launch", &bad], 2, "bad.yaml:3:3: "),
        ("a bad search file, dry", vec!["launch", &bad, "--dry-run"], 2, "did you mean"),
        ("no search file", vec!["launch", &missing], 2, "missing.yaml"),
        ("no dataset", vec!["launch", &lost, "--dry-run"], 1, "train-images-idx3-ubyte"),
        ("no coordinator", vec!["list", "--coordinator", "127.0.0.1:1"], 1, "fittingroom serve --data DIR"),
        ("no search", vec!["leaderboard", "none", "--coordinator", url], 1, "there is no search none"),
        (
            "no search to follow",
            vec!["leaderboard", "none", "--follow", "--coordinator", url],
            1,
            "no search none",
        ),
        (
            "no search to export",
            vec!["export", "none", "--format", "csv", "--out", &missing, "--coordinator", url],
            1,
            "none",
        ),
        ("no dataset of the name", vec!["dataset", "fetch", "none", "--coordinator", url], 1, "none"),
    ] {
        let output = run(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{row}: {stderr}");
        assert!(stderr.contains(said), "{row}: {stderr:?} does not say {said:?}");
        assert!(!stderr.contains("panicked"), "{row}: {stderr}");
        assert!(output.stdout.is_empty(), "{row}");
    }
    assert!(!Path::new(&missing).exists(), "a failed export leaves nothing behind");
}

#[test]
fn a_dry_run_needs_no_coordinator() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = write_search(folder.path());
    let output =
        run(&["launch", &file, "--dry-run", "--show", "1", "--json", "--coordinator", "http://127.0.0.1:1"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        document,
        serde_json::json!({
            "trials": 3,
            "method": "grid",
            "first": [{"trial": 0, "hyperparameters": {"optimizer": "sgd", "epochs": 2}}],
        })
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("many.yaml");
    // More trials than a pipe holds.
    let text = "method: random\nrun_cap: 20000\nparameters:\n  learning_rate: {min: 0.1, max: 1.0}\n";
    std::fs::write(&file, text).expect("writes");
    let mut process = Command::new(PROGRAM)
        .args(["launch", "--dry-run", "--show", "20000"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(process.stdout.take());
    let output = process.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
}
