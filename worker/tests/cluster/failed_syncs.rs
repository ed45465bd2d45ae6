//! A disk that does not confirm what it was given: `fsync` fails.

use std::path::Path;

use crate::digits;
use crate::faults::{must_find_the_same, wait_for};
use crate::harness::{Cluster, trials};
use crate::is_running;
use crate::syncs::{Syncs, Verdict};

const LEASES: [&str; 2] = ["--lease-seconds", "2"];

#[test]
fn a_coordinator_whose_log_cannot_be_synced_acknowledges_nothing_more_and_ends() {
    let Some(syncs) = Syncs::new() else { return };
    let mut cluster = Cluster::asking(&syncs, &LEASES);
    cluster.serve();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "unsynced");
    let before = cluster.wait_until("unsynced", "in the middle of its second trial", |board| {
        trials(board).iter().any(|trial| trial["state"] == "COMPLETE") && is_running(board)
    });
    let fails = |path: &Path| {
        if path.to_string_lossy().contains("log.sqlite") { Verdict::Fail } else { Verdict::Pass }
    };
    syncs.judge(fails);
    assert_eq!(cluster.wait_for_coordinator(), Some(1), "{}", cluster.log("coordinator"));
    let told = |cluster: &Cluster| cluster.log("coordinator").matches("cannot be synced to its disk").count();
    let told_first = told(&cluster);
    assert!(told_first > 0, "{}", cluster.log("coordinator"));

    // What is read may not be on the disk: as long as it cannot be synced, nobody is told of it.
    assert_eq!(cluster.serve_in_vain(), Some(1), "{}", cluster.log("coordinator"));
    assert!(told(&cluster) > told_first, "{}", cluster.log("coordinator"));
    assert!(!cluster.log("coordinator").contains("panicked"), "{}", cluster.log("coordinator"));

    syncs.pass();
    cluster.serve();
    let now = cluster.leaderboard("unsynced");
    for done in trials(&before).iter().filter(|trial| trial["state"] == "COMPLETE") {
        let is_it = |trial: &&serde_json::Value| {
            trial["trial"] == done["trial"] && trial["validation_loss"] == done["validation_loss"]
        };
        assert!(trials(&now).iter().any(|trial| is_it(&trial)), "{done:#} is gone: {now:#}");
    }
    let board = must_find_the_same(&cluster, "unsynced");
    assert!(trials(&board).iter().all(|trial| trial["attempts"] == 1), "the worker trained on: {board:#}");
    drop(worker);
    cluster.check();
}

#[test]
fn a_model_that_cannot_be_synced_is_stored_anew_before_its_trial_is_complete() {
    let Some(syncs) = Syncs::new() else { return };
    for (what, is_folder) in [("file", false), ("folder", true)] {
        let mut cluster = Cluster::asking(&syncs, &LEASES);
        cluster.serve();
        digits::launch(&cluster, what);
        let failed_before = syncs.failed();
        syncs.judge(move |path| {
            let is_artifact = path.to_string_lossy().contains("/artifacts/");
            if is_artifact && path.is_dir() == is_folder { Verdict::Fail } else { Verdict::Pass }
        });
        let worker = cluster.worker("one");
        // After the first failure the model may well be there, but not for good.
        wait_for("uploads that fail again and again", || syncs.failed() >= failed_before + 3);
        let board = cluster.leaderboard(what);
        assert!(trials(&board).iter().all(|trial| trial["state"] == "RUNNING"), "{what}: {board:#}");
        syncs.pass();
        let board = must_find_the_same(&cluster, what);
        assert!(trials(&board).iter().all(|trial| trial["attempts"] == 1), "{what}: {board:#}");
        drop(worker);
        cluster.check();
    }
}
