//! Whatever is killed in the middle of a trial, the next attempt goes on from a checkpoint, on
//! whichever worker, to the same bits.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::harness::{Cluster, PATIENCE, Running, children_of, results, trials};
use crate::input::write_small_dataset;

/// One trial, long enough to be killed in the middle, with what training can hold beside weights.
const TRIAL: &str = "
method: points
dataset: ./my-digits
epochs: EPOCHS
max_attempts: 10
checkpoint: {every_epochs: 10}
points:
  - {hidden_sizes: [192], normalization: batch, dropout: 0.2, ema_decay: 0.9, batch_size: 16, schedule: cosine}
";
const EPOCHS: u64 = 400;

fn cluster() -> (Cluster, String) {
    of_one_trial(Cluster::prepare(&["--lease-seconds", "2"]))
}

/// Starts the coordinator; answers the search beside it.
pub(crate) fn of_one_trial(mut cluster: Cluster) -> (Cluster, String) {
    cluster.serve();
    write_small_dataset(&cluster.folder.path().join("my-digits"), 28, 28, 4);
    (cluster, TRIAL.replace("EPOCHS", &EPOCHS.to_string()))
}

/// Waits until the only trial runs and has done so many epochs.
pub(crate) fn wait_for_epoch(cluster: &Cluster, name: &str, epoch: u64) {
    cluster.wait_until(name, "in the middle of its trial", |board| {
        assert_ne!(board["state"], "COMPLETE", "the trial is too short to be killed in the middle");
        let [trial] = trials(board) else { return false };
        trial["state"] == "RUNNING" && trial["epoch"].as_u64() >= Some(epoch)
    });
}

fn model(cluster: &Cluster, name: &str) -> Vec<u8> {
    let out = cluster.folder.path().join(format!("best-{name}"));
    cluster.succeed(&["best", name, "--out", out.to_str().expect("UTF-8")]);
    std::fs::read(out.join("model.safetensors")).expect("the model")
}

/// What the trial comes to when nothing is killed; without checkpoints, which must make no difference.
pub(crate) fn undisturbed(cluster: &Cluster, trial: &str) -> (Vec<Json>, Vec<u8>) {
    cluster.launch("undisturbed", &trial.replace("{every_epochs: 10}", "never"));
    let board = cluster.wait_until_complete("undisturbed");
    assert_eq!(continued_from(&attempts(cluster, "undisturbed")), [None]);
    (results(&board), model(cluster, "undisturbed"))
}

pub(crate) fn attempts(cluster: &Cluster, name: &str) -> Vec<Json> {
    cluster.json(&["trial", name, "0"])["attempt_history"].as_array().expect("a list").clone()
}

fn epochs_of(attempt: &Json) -> Vec<u64> {
    let epochs = attempt["epochs"].as_array().expect("a list").iter();
    epochs.map(|epoch| epoch["epoch"].as_u64().expect("a number")).collect()
}

pub(crate) fn stored_checkpoints(cluster: &Cluster) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(cluster.data().join("artifacts/checkpoints"));
    folder.into_iter().flatten().map(|entry| entry.expect("lists").path()).collect()
}

/// Nothing polls the folder but this test.
pub(crate) fn wait_for_checkpoints(cluster: &Cluster, what: &str, mut wish: impl FnMut(usize) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !wish(stored_checkpoints(cluster).len()) {
        assert!(Instant::now() < end, "{what}: {:?}", stored_checkpoints(cluster));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until two more checkpoints are known: a third is brought only then. The calls that bring reports and
/// those that bring checkpoints wait each for themselves to be tried again, so that epochs may be ahead.
fn wait_for_newer_checkpoints(cluster: &Cluster) {
    let before = stored_checkpoints(cluster);
    let mut newer = HashSet::new();
    wait_for_checkpoints(cluster, "three newer checkpoints are brought", |_| {
        newer.extend(stored_checkpoints(cluster).into_iter().filter(|path| !before.contains(path)));
        newer.len() >= 3
    });
}

/// Waits for the end, and checks that the trial came to the same as it did undisturbed, from attempts
/// that went on from one another; answers them.
pub(crate) fn check(cluster: &Cluster, name: &str, undisturbed: &(Vec<Json>, Vec<u8>)) -> Vec<Json> {
    let board = cluster.wait_until_complete(name);
    assert_eq!(results(&board), undisturbed.0, "{name}");
    assert!(model(cluster, name) == undisturbed.1, "{name}: another model");
    let attempts = attempts(cluster, name);
    for attempt in &attempts {
        let from = attempt["continued_from_epoch"].as_u64().unwrap_or(0);
        let expected: Vec<u64> = (from + 1..).take(epochs_of(attempt).len()).collect();
        assert_eq!(epochs_of(attempt), expected, "{name}: epochs are contiguous from the checkpoint");
    }
    let path = cluster.folder.path().join(format!("{name}.json"));
    cluster.succeed(&[
        "export",
        name,
        "--format",
        "json",
        "--epochs",
        "--out",
        path.to_str().expect("UTF-8"),
    ]);
    let exported: Json = serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON");
    let exported: Vec<u64> = epochs_of(&exported);
    assert_eq!(exported, (1..=EPOCHS).collect::<Vec<_>>(), "{name}: each epoch once");
    wait_for_checkpoints(cluster, "all checkpoints go with their trial", |count| count == 0);
    attempts
}

fn continued_from(attempts: &[Json]) -> Vec<Option<u64>> {
    attempts.iter().map(|attempt| attempt["continued_from_epoch"].as_u64()).collect()
}

fn kill_trainer(worker: &Running) {
    let trainers = children_of(worker.id());
    assert_eq!(trainers.len(), 1, "one trainer for one slot");
    let killed = Command::new("kill").args(["-KILL", &trainers[0].to_string()]).status();
    assert!(killed.expect("kill runs").success());
}

#[test]
fn whatever_is_killed_in_the_middle_of_a_trial_it_goes_on_from_a_checkpoint_to_the_same_bits() {
    let (mut cluster, trial) = cluster();
    let first = cluster.worker_with_cache("first", "cache-1");
    let undisturbed = undisturbed(&cluster, &trial);

    cluster.launch("trainer", &trial);
    wait_for_epoch(&cluster, "trainer", 40);
    kill_trainer(&first);
    let [before, after] = &check(&cluster, "trainer", &undisturbed)[..] else { panic!("two attempts") };
    assert_eq!(before["failure"], "trainer_crashed");
    let (last, from) = (epochs_of(before).pop(), after["continued_from_epoch"].as_u64());
    assert!(
        from.is_some() && last < from.map(|from| from + 20),
        "at most an interval or two: {last:?} {from:?}"
    );

    cluster.launch("agent", &trial);
    wait_for_epoch(&cluster, "agent", 40);
    first.kill();
    let second = cluster.worker_with_cache("second", "cache-2");
    let [before, after] = &check(&cluster, "agent", &undisturbed)[..] else { panic!("two attempts") };
    assert_eq!((&before["worker"], &before["failure"]), (&"first".into(), &"worker_lost".into()));
    assert_eq!(after["worker"], "second");
    assert!(after["continued_from_epoch"].as_u64() >= Some(30), "{:?}", after["continued_from_epoch"]);

    cluster.launch("coordinator", &trial);
    wait_for_epoch(&cluster, "coordinator", 40);
    cluster.kill_coordinator();
    cluster.serve();
    wait_for_newer_checkpoints(&cluster);
    wait_for_epoch(&cluster, "coordinator", 80);
    cluster.kill_coordinator();
    second.kill();
    let leftover = cluster.data().join(format!("artifacts/checkpoints/1-0-{}", "0".repeat(64)));
    std::fs::write(&leftover, "what a crash left of a trial that is over").expect("writable");
    cluster.serve();
    wait_for_checkpoints(&cluster, "what was left is swept", |_| !leftover.exists());
    let third = cluster.worker_with_cache("third", "cache-3");
    let all = check(&cluster, "coordinator", &undisturbed);
    let [before, after] = &all[..] else {
        panic!("killing the coordinator alone costs no attempt: {:?}", continued_from(&all))
    };
    assert_eq!((&before["worker"], &after["worker"]), (&"second".into(), &"third".into()));
    assert!(after["continued_from_epoch"].as_u64() >= Some(60), "{:?}", after["continued_from_epoch"]);

    // A worker that is told to end makes a last checkpoint, so that nothing is repeated.
    cluster.launch("drained", &trial.replace("every_epochs: 10", "every_seconds: 3600"));
    wait_for_epoch(&cluster, "drained", 40);
    assert_eq!(third.terminate(), Some(0), "{}", cluster.log("third"));
    let _fourth = cluster.worker_with_cache("fourth", "cache-4");
    let all = check(&cluster, "drained", &undisturbed);
    let [before, after] = &all[..] else { panic!("{:?}", continued_from(&all)) };
    assert_eq!(epochs_of(before).pop(), after["continued_from_epoch"].as_u64(), "no epoch twice");
    assert_eq!(before["failure"], Json::Null);
}

/// The epochs that are done in a checkpoint.
fn epochs_in(checkpoint: &PathBuf) -> u64 {
    let bytes = std::fs::read(checkpoint).expect("readable");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Json = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let content = header["__metadata__"]["content"].as_str().expect("a text");
    let content: Json = serde_json::from_str(content).expect("JSON");
    content["numbers"]["epoch"].as_u64().expect("a number") - 1
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let (mut cluster, trial) = cluster();
    let first = cluster.worker_with_cache("first", "cache-1");
    let undisturbed = undisturbed(&cluster, &trial);

    cluster.launch("damaged", &trial);
    wait_for_epoch(&cluster, "damaged", 50);
    first.kill();
    cluster.wait_until("damaged", "given up", |board| trials(board)[0]["state"] == "WAITING");
    // Two that are kept; the one before them may still be there, or one that was not named any more.
    wait_for_checkpoints(&cluster, "two are kept", |count| count >= 2);
    std::thread::sleep(Duration::from_millis(300));
    let mut stored: BTreeMap<u64, PathBuf> =
        stored_checkpoints(&cluster).into_iter().map(|path| (epochs_in(&path), path)).collect();
    let (oldest, _) = stored.pop_first().expect("two are kept");
    for path in stored.values() {
        let mut bytes = std::fs::read(path).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).expect("writable");
    }
    let _second = cluster.worker_with_cache("second", "cache-2");
    let all = check(&cluster, "damaged", &undisturbed);
    assert_eq!(continued_from(&all), [None, Some(oldest)], "{}", cluster.log("coordinator"));
    assert!(cluster.log("coordinator").contains("checkpoint lost"), "{}", cluster.log("coordinator"));
    cluster.kill_coordinator();
    cluster.serve();
    assert_eq!(attempts(&cluster, "damaged"), all, "the log tells the same");
}
