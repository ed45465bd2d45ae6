//! What a worker's machine runs out of: its disk, and its file descriptors.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use crate::digits;
use crate::faults::{Mounted, attempts, must_find_the_same, wait_for};
use crate::harness::{children_of, signal, trials};
use crate::is_running;

/// Takes what is left of a disk.
fn fill(disk: &Path) {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let mut filler = options.create(true).append(true).open(disk.join("filler")).expect("opens");
    while filler.write_all(&[0; 4096]).is_ok() {}
}

fn all_ran_on(board: &Json, worker: &str) -> bool {
    trials(board).iter().all(|trial| trial["worker"] == worker)
}

#[test]
fn a_worker_whose_disk_is_full_gives_its_trial_back_and_takes_no_other_before_there_is_room() {
    let mut cluster = digits::start();
    let disk = cluster.folder.path().join("full");
    let Some(_mounted) = Mounted::on(&disk, 4 << 20) else { return };
    // A single failure would be one too many: that a disk is full counts against no trial.
    let once = "max_attempts: 1\ncheckpoint: {every_epochs: 5}";

    // No room for the dataset.
    let poor = cluster.worker_with_cache("poor", "full");
    wait_for("the worker's folders", || disk.join("training").is_dir());
    fill(&disk);
    digits::launch_with(&cluster, "dataset", once);
    let told = |what: &str| cluster.log("poor").matches(what).count();
    wait_for("a disk that is in the way", || told("disk is in the way") == 1);
    let board = cluster.wait_until("dataset", "given back", |board| trials(board)[0]["state"] == "WAITING");
    assert_eq!(trials(&board)[0]["failure"], Json::Null, "{board:#}");
    let rich = cluster.worker_with_cache("rich", "roomy");
    let board = must_find_the_same(&cluster, "dataset");
    assert!(all_ran_on(&board, "rich"), "{board:#}");
    assert_eq!(told("disk is in the way"), 1, "one trial was enough: {}", cluster.log("poor"));
    drop(rich);

    // With room it takes trials again, until its checkpoints and models have none.
    std::fs::remove_file(disk.join("filler")).expect("removes");
    digits::launch_with(&cluster, "model", once);
    cluster.wait_until("model", "running", is_running);
    assert_eq!(told("the disk has room again"), 1, "{}", cluster.log("poor"));
    wait_for("a checkpoint that is told to be missing", || {
        fill(&disk);
        told("training goes on without a checkpoint") >= 1
    });
    wait_for("a model that has no room", || {
        fill(&disk);
        told("disk is in the way") == 2
    });
    let rich = cluster.worker_with_cache("rich", "roomy");
    let board = must_find_the_same(&cluster, "model");
    assert!(trials(&board).iter().all(|trial| trial["failure"] == Json::Null), "{board:#}");
    assert!(told("disk is in the way") == 2, "{}", cluster.log("poor"));
    drop((poor, rich));
    cluster.check();
}

/// How many files a process may have open from now on; those that it has stay.
fn limit_descriptors(process: u32, most: u32) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &process.to_string(), &format!("--nofile={most}:")]);
    assert!(prlimit.status().expect("prlimit runs").success());
}

#[test]
fn a_worker_that_is_out_of_file_descriptors_takes_no_work_until_it_has_some() {
    let mut cluster = digits::start();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "crowded");
    cluster.wait_until("crowded", "running", is_running);
    limit_descriptors(worker.id(), 5);
    children_of(worker.id()).into_iter().for_each(|trainer| signal(trainer, "KILL"));
    wait_for("a slot without a trainer", || cluster.log("one").contains("takes no work"));
    let board = cluster.wait_until("crowded", "given up", |board| !is_running(board));
    limit_descriptors(worker.id(), 1024);
    let tried = attempts(&board);
    let board = must_find_the_same(&cluster, "crowded");
    assert_eq!(attempts(&board), 1 + digits::TRIALS as u64, "the killed one, and no other: {board:#}");
    assert!(tried <= attempts(&board));
    drop(worker);
    cluster.check();
}
