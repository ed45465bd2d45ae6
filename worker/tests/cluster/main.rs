//! The whole cluster, end to end: the real programs, the real Fashion-MNIST, real kills.

mod access;
mod calls;
mod chaos;
mod clocks;
mod digits;
mod failed_syncs;
mod faults;
mod harness;
mod idler;
mod input;
mod machines;
mod moments;
mod operate;
mod proxy;
mod resume;
mod snapshots;
mod strangers;
mod syncs;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use harness::{Cluster, children_of, fittingroom, is_alive, real_data, results, trials};
use serde_json::Value as Json;

/// Small enough for a few seconds a trial, large enough to be killed in the middle.
const GRID: &str = "
method: grid
epochs: 2
parameters:
  hidden_sizes: {values: [[32], [16]]}
  optimizer: {values: [adam, sgd]}
  learning_rate: {values: [0.01, 0.001]}
  batch_size: {value: 256}
";

fn points(board: &Json) -> BTreeSet<String> {
    trials(board).iter().map(|trial| trial["hyperparameters"].to_string()).collect()
}

fn is_running(board: &Json) -> bool {
    trials(board).iter().any(|trial| trial["state"] == "RUNNING" && trial["epoch"].as_u64() >= Some(1))
}

#[test]
fn a_grid_search_trains_every_point_once_ranks_them_and_exports_the_best_model() {
    let cluster = Cluster::start(&[]);
    let _worker = cluster.worker("one");
    cluster.launch("grid", GRID);
    let board = cluster.wait_until_complete("grid");

    assert_eq!(trials(&board).len(), 8);
    assert_eq!(points(&board).len(), 8, "every point once: {board:#}");
    let fields: Vec<&str> =
        trials(&board)[0].as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "rank",
            "trial",
            "state",
            "attempts",
            "worker",
            "hyperparameters",
            "epoch",
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "test_loss",
            "test_accuracy",
            "seconds",
            "failure"
        ]
    );
    let accuracies: Vec<f64> =
        trials(&board).iter().map(|trial| trial["validation_accuracy"].as_f64().expect("a number")).collect();
    assert!(accuracies.is_sorted_by(|a, b| a >= b), "ranked by validation accuracy: {accuracies:?}");
    let best = &trials(&board)[0];
    assert!(best["test_accuracy"].as_f64() > Some(0.75), "the best learned something: {best:#}");
    assert!(
        trials(&board)[1..].iter().all(|trial| trial["test_accuracy"].is_null()),
        "the test set is touched once"
    );

    let out = cluster.folder.path().join("best");
    cluster.succeed(&["best", "grid", "--out", out.to_str().expect("UTF-8")]);
    check_exported_model(&out, best);
    check_exports(&cluster, &board);
}

fn check_exported_model(out: &Path, best: &Json) {
    let bytes = std::fs::read(out.join("model.safetensors")).expect("the model");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let sizes = best["hyperparameters"]["hidden_sizes"].as_array().expect("a list");
    let hidden = sizes[0].as_u64().expect("a size") as usize;
    assert_eq!(tensors.tensor("fc1.weight").expect("as PyTorch names it").shape(), [hidden, 784]);
    assert_eq!(tensors.tensor("fc2.weight").expect("as PyTorch names it").shape(), [10, hidden]);
    let record: Json =
        serde_json::from_slice(&std::fs::read(out.join("model.json")).expect("the record")).expect("JSON");
    assert_eq!(record["trial"], best["trial"]);
    assert_eq!(record["hyperparameters"]["batch_size"], 256);
    assert_eq!(record["hyperparameters"]["beta1"], 0.9, "what the search did not name is in the record too");

    let again = out.join("again.safetensors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fittingroom-worker"));
    command.args(["train", "--device", &harness::device(), "--from"]).arg(out.join("model.json"));
    command.arg("--data").arg(real_data()).arg("--save").arg(&again);
    let trained = command.output().expect("it runs");
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    assert!(std::fs::read(&again).expect("saved") == bytes, "the record gives another model");
}

fn check_exports(cluster: &Cluster, board: &Json) {
    let path = cluster.folder.path().join("trials.csv");
    let path = path.to_str().expect("UTF-8");
    let exported = cluster.json(&["export", "grid", "--format", "csv", "--out", path]);
    assert_eq!((&exported["unit"], &exported["rows"]), (&"trial".into(), &8.into()));
    assert_eq!(std::fs::read_to_string(path).expect("written").lines().count(), 1 + 8);
    cluster.succeed(&["export", "grid", "--format", "json", "--epochs", "--out", path]);
    let epochs: Json = serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("JSON");
    assert_eq!(epochs["epochs"].as_array().expect("a list").len(), 8 * 2);
    let listed = cluster.json(&["list"]);
    assert!(listed.to_string().contains("\"COMPLETE\""), "{listed:#}");
    let trial = trials(board)[0]["trial"].to_string();
    let history = cluster.json(&["trial", "grid", &trial]);
    assert_eq!(history["attempt_history"][0]["epochs"].as_array().expect("a list").len(), 2, "{history:#}");
}

#[test]
fn the_same_file_and_seed_give_the_same_trials_and_the_same_bits_on_one_worker_and_on_three() {
    const RANDOM: &str = "
method: random
seed: 7
run_cap: 6
epochs: 1
track_test: true
parameters:
  hidden_sizes: {values: [[24], [32, 16]]}
  learning_rate: {distribution: log_uniform_values, min: 0.0005, max: 0.05}
  dropout: {min: 0.0, max: 0.5}
  normalization: {values: [none, batch, layer]}
  initialization: {values: [xavier_normal, kaiming_uniform]}
  batch_size: {values: [128, 256]}
";
    let cluster = Cluster::start(&[]);
    let first = cluster.worker("one");
    cluster.launch("alone", RANDOM);
    let alone = cluster.wait_until_complete("alone");
    let _others = [cluster.worker("two"), cluster.worker("three")];
    cluster.launch("together", RANDOM);
    let together = cluster.wait_until_complete("together");
    assert_eq!(results(&alone), results(&together));
    let workers: BTreeSet<String> =
        trials(&together).iter().map(|trial| trial["worker"].to_string()).collect();
    assert!(workers.len() > 1, "the search was shared: {workers:?}");
    assert_eq!(first.terminate(), Some(0), "{}", cluster.log("one"));
}

#[test]
fn a_worker_killed_in_the_middle_of_a_trial_loses_nothing() {
    let mut cluster = Cluster::start(&["--lease-seconds", "3"]);
    let victim = cluster.worker("victim");
    cluster.launch("grid", GRID);
    cluster.wait_until("grid", "in the middle of a trial", is_running);
    let trainers = children_of(victim.id());
    assert_eq!(trainers.len(), 1, "one trainer for one slot");
    victim.kill();
    let _heir = cluster.worker("heir");
    let board = cluster.wait_until_complete("grid");
    assert_eq!(points(&board).len(), 8, "every point once: {board:#}");
    assert!(trials(&board).iter().all(|trial| trial["state"] == "COMPLETE"), "{board:#}");
    assert!(
        trials(&board).iter().any(|trial| trial["attempts"].as_u64() >= Some(2) && trial["worker"] == "heir"),
        "the victim's trial was tried again: {board:#}"
    );
    assert!(!is_alive(trainers[0]), "a trainer does not outlive its agent");
    cluster.check();
}

#[test]
fn a_coordinator_killed_in_the_middle_of_a_search_loses_nothing() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker("one");
    cluster.launch("grid", GRID);
    for _ in 0..3 {
        cluster.wait_until("grid", "in the middle of a trial", |board| {
            is_running(board) || board["state"] == "COMPLETE"
        });
        cluster.kill_coordinator();
        cluster.serve();
    }
    let board = cluster.wait_until_complete("grid");
    assert_eq!(points(&board).len(), 8, "every point once: {board:#}");
    assert!(
        trials(&board).iter().all(|trial| trial["state"] == "COMPLETE" && trial["attempts"] == 1),
        "the worker went on meanwhile, so that nothing was trained twice: {board:#}"
    );
    let undisturbed = Cluster::start(&[]);
    let _other = undisturbed.worker("other");
    undisturbed.launch("grid", GRID);
    assert_eq!(results(&board), results(&undisturbed.wait_until_complete("grid")));
    cluster.check();
}

#[test]
fn searches_are_paused_resumed_stopped_and_cancelled() {
    let cluster = Cluster::start(&[]);
    cluster.launch("long", &GRID.replace("epochs: 2", "epochs: 50"));
    assert!(cluster.succeed(&["pause", "long"]).contains("PAUSED"));
    let worker = cluster.worker("one");
    cluster.launch("other", &GRID.replace("epochs: 2", "epochs: 50"));
    cluster.wait_until("other", "running", is_running);
    assert!(trials(&cluster.leaderboard("long")).is_empty(), "a paused search starts no trial");

    assert!(cluster.succeed(&["cancel", "other"]).contains("CANCELLED"));
    cluster.succeed(&["resume", "long"]);
    let board = cluster.wait_until("long", "running", is_running);
    assert_eq!(trials(&board)[0]["worker"], "one", "the worker dropped the cancelled trial and took another");
    assert_eq!(trials(&cluster.leaderboard("other"))[0]["state"], "CANCELLED");

    // A drained worker gives its trial back at once, and stopping drops what waits.
    assert_eq!(worker.terminate(), Some(0), "{}", cluster.log("one"));
    cluster.wait_until("long", "given back", |board| trials(board)[0]["state"] == "WAITING");
    cluster.succeed(&["stop", "long"]);
    let board = cluster.wait_until_complete("long");
    assert_eq!(trials(&board)[0]["state"], "CANCELLED");
    let refused = fittingroom(&cluster.url, &["resume", "long"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn a_second_worker_joins_during_a_search_and_following_ends_with_it() {
    let cluster = Cluster::start(&[]);
    cluster.launch("grid", GRID);
    let _first = cluster.worker("first");
    cluster.wait_until("grid", "running", is_running);
    let _second = cluster.worker("second");
    cluster
        .wait_until("grid", "shared", |board| trials(board).iter().any(|trial| trial["worker"] == "second"));
    let workers = cluster.json(&["workers"]).to_string();
    assert!(workers.contains("first") && workers.contains("second"), "{workers}");
    let followed = cluster.succeed(&["leaderboard", "grid", "--follow"]);
    assert!(followed.contains("COMPLETE"), "{followed}");
    assert_eq!(cluster.leaderboard("grid")["state"], "COMPLETE");
}

#[test]
fn trials_that_stop_early_are_complete_and_the_best_is_evaluated() {
    let cluster = Cluster::start(&[]);
    let _worker = cluster.worker("one");
    let folder = cluster.folder.path().join("my-digits");
    input::write_small_dataset(&folder, 6, 6, 3);
    const STOPPING: &str = "
method: grid
dataset: ./my-digits
epochs: 300
parameters:
  hidden_sizes: {value: [8]}
  learning_rate: {values: [0.5, 0.3]}
  early_stopping_patience: {value: 2}
";
    cluster.launch("early", STOPPING);
    let board = cluster.wait_until_complete("early");
    for trial in trials(&board) {
        assert_eq!((&trial["state"], &trial["attempts"]), (&"COMPLETE".into(), &1.into()), "{trial:#}");
        let epoch = trial["epoch"].as_u64().expect("a number");
        assert!((3..300).contains(&epoch), "{trial:#}");
    }
    assert!(trials(&board)[0]["test_accuracy"].is_number(), "{board:#}");
}

#[test]
fn a_dataset_of_ones_own_is_uploaded_and_its_sizes_are_read_from_it() {
    let cluster = Cluster::start(&[]);
    let _worker = cluster.worker("one");
    let folder = cluster.folder.path().join("my-digits");
    input::write_small_dataset(&folder, 12, 9, 4);
    cluster.launch("own", &format!("{GRID}\ndataset: ./my-digits\n"));
    let board = cluster.wait_until_complete("own");
    assert_eq!(trials(&board).len(), 8);
    assert!(trials(&board)[0]["test_accuracy"].is_number(), "{board:#}");
    let out = cluster.folder.path().join("best");
    cluster.succeed(&["best", "own", "--out", out.to_str().expect("UTF-8")]);
    let bytes = std::fs::read(out.join("model.safetensors")).expect("the model");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    assert_eq!(tensors.tensor("fc1.weight").expect("there").shape()[1], 12 * 9);
    assert_eq!(tensors.tensor("fc2.weight").expect("there").shape()[0], 4);
}
