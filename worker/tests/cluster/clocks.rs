//! Clocks that are wrong, and that are set while programs run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::{LONG, Site, is_training};
use crate::digits;
use crate::faults::must_find_the_same;
use crate::harness::{Cluster, trials};
use crate::is_running;

/// The library that tells a program another time, if it is installed.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|folder| folder.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists());
    if found.is_none() {
        eprintln!("NOT RUN: no program can be told another time here: libfaketime is not installed");
    }
    found
}

/// What a program is given so that its clock is off by what a file says, and is set whenever that changes.
/// The steady clock stays as it is, as it does when a real clock is set.
fn clock(library: &Path, file: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let variables = [
        ("LD_PRELOAD", text(library)),
        ("FAKETIME_TIMESTAMP_FILE", text(file)),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn set(file: &Path, offset: &str) {
    std::fs::write(file, format!("{offset}\n")).expect("writes");
}

/// The hours in which a program wrote its lines.
fn hours(log: &str) -> BTreeSet<&str> {
    log.lines().filter_map(|line| line.get(.."2026-11-22T10".len())).collect()
}

#[test]
fn clocks_that_are_set_an_hour_forth_and_back_change_nothing_that_is_found() {
    let Some(library) = faketime() else { return };
    let mut cluster = Cluster::prepare(&["--lease-seconds", "2"]);
    let [coordinators, workers] = ["coordinator", "worker"].map(|name| cluster.folder.path().join(name));
    set(&coordinators, "+0");
    set(&workers, "-1h");
    cluster.variables = clock(&library, &coordinators);
    cluster.serve();
    let agent = cluster.worker_given(&cluster.url, "one", "cache", &clock(&library, &workers));
    digits::launch(&cluster, "set");
    for (coordinator, worker, restarts) in
        [("+1h", "+1h", false), ("-1h", "-1h", false), ("-1h", "+1h", true), ("+1h", "-1h", true)]
    {
        cluster.wait_until("set", "running", is_running);
        // While nothing is heard of the worker, which is for less than a lease.
        agent.signal("STOP");
        set(&coordinators, coordinator);
        set(&workers, worker);
        if restarts {
            cluster.kill_coordinator();
            cluster.serve();
        }
        std::thread::sleep(Duration::from_millis(700));
        agent.signal("CONT");
    }
    let board = must_find_the_same(&cluster, "set");
    assert!(trials(&board).iter().all(|trial| trial["attempts"] == 1), "no lease was lost: {board:#}");
    for program in ["coordinator", "one"] {
        assert!(hours(&cluster.log(program)).len() >= 2, "{program}'s clock was not set");
    }
    drop(agent);
    cluster.variables.clear();
    cluster.check();
}

#[test]
fn a_budget_goes_by_the_steady_clock_but_by_the_coordinators_across_its_restarts() {
    let Some(library) = faketime() else { return };
    let mut cluster = Cluster::prepare(&[]);
    let file = cluster.folder.path().join("clock");
    set(&file, "+0");
    cluster.variables = clock(&library, &file);
    cluster.serve();
    digits::launch_with(&cluster, "short", "budget: 30m");
    let used_up = |cluster: &Cluster| cluster.log("coordinator").contains("its budget of time is used up");
    for (offset, restarts) in [("+1h", false), ("-1h", false), ("-1h", true)] {
        set(&file, offset);
        if restarts {
            cluster.kill_coordinator();
            cluster.serve();
        }
        // Long enough to look at budgets several times.
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(cluster.leaderboard("short")["state"], "RUNNING", "{offset}, restarts: {restarts}");
        assert!(!used_up(&cluster), "{offset}, restarts: {restarts}");
    }
    set(&file, "+1h");
    cluster.kill_coordinator();
    cluster.serve();
    cluster.wait_until("short", "at its end", |board| {
        board["state"] != "RUNNING" && board["state"] != "STOPPING"
    });
    assert!(used_up(&cluster), "{}", cluster.log("coordinator"));
    cluster.variables.clear();
    cluster.check();
}

#[test]
fn a_worker_whose_clock_is_an_hour_off_trusts_a_coordinator_that_was_certified_just_now() {
    let Some(library) = faketime() else { return };
    let mut site = Site::new();
    site.certs();
    let operator = site.token("operator", "me");
    let secret = site.token("worker", "gpu-box");
    site.serve();
    for (name, offset) in [("behind", "-1h"), ("ahead", "+1h")] {
        let file = site.folder.path().join("clock");
        set(&file, offset);
        let worker = site.worker_given(Some(&secret), name, &clock(&library, &file));
        site.launch(&operator, name, LONG);
        site.wait_until(&operator, name, is_training);
        site.json(&operator, &["cancel", name]);
        drop(worker);
    }
}

/// Leases, heartbeats and waits are measured by the steady clock; what time it is, a worker does not ask.
#[test]
fn a_worker_reads_no_wall_clock() {
    fn look(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("lists") {
            let path = entry.expect("lists").path();
            if path.is_dir() {
                look(&path, found);
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("SystemTime")) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, [""; 0].map(PathBuf::from), "a worker's clock may be wrong");
}
