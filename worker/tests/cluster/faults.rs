//! What goes wrong in a week, each once: processes killed and stopped, networks cut, disks full,
//! files damaged. Each test ends with the check of the real data, and with the leaderboard of an
//! undisturbed run, to the bit.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::digits::{self, undisturbed};
use crate::harness::{
    Cluster, PATIENCE, children_of, fittingroom, is_alive, results, serve_on, signal, trials,
};
use crate::is_running;
use crate::proxy::{Proxy, Weather};

pub(crate) fn attempts(board: &Json) -> u64 {
    trials(board).iter().map(|trial| trial["attempts"].as_u64().expect("a number")).sum()
}

/// Whether a worker is in the middle of a trial.
fn is_running_on(board: &Json, worker: &str) -> bool {
    let is_there = |trial: &Json| trial["worker"] == worker && trial["epoch"].as_u64() >= Some(1);
    trials(board).iter().any(|trial| trial["state"] == "RUNNING" && is_there(trial))
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut wish: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !wish() {
        assert!(Instant::now() < end, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a search is complete, and holds what it found against an undisturbed run.
pub(crate) fn must_find_the_same(cluster: &Cluster, name: &str) -> Json {
    let board = cluster.wait_until_complete(name);
    assert_eq!(results(&board), undisturbed(), "{name}: {board:#}");
    board
}

#[test]
fn killed_trainers_agents_and_coordinators_change_nothing_that_is_found() {
    let mut cluster = digits::start();
    let mut workers = [cluster.worker("one"), cluster.worker("two")];
    for victim in ["trainer", "agent", "coordinator", "everything"] {
        digits::launch(&cluster, victim);
        for pause in [0, 300] {
            cluster.wait_until(victim, "in the middle of a trial", |board| is_running_on(board, "one"));
            std::thread::sleep(Duration::from_millis(pause));
            match victim {
                "trainer" => children_of(workers[0].id()).into_iter().for_each(|id| signal(id, "KILL")),
                "agent" => {
                    let trainers = children_of(workers[0].id());
                    workers[0].signal("KILL");
                    wait_for("the trainer's end", || !trainers.iter().any(|&id| is_alive(id)));
                    workers[0] = cluster.worker("one");
                }
                "coordinator" => {
                    cluster.kill_coordinator();
                    cluster.serve();
                }
                _ => {
                    workers.iter().for_each(|worker| worker.signal("KILL"));
                    cluster.kill_coordinator();
                    cluster.serve();
                    workers = [cluster.worker("one"), cluster.worker("two")];
                }
            }
        }
        let board = must_find_the_same(&cluster, victim);
        let was_repeated = attempts(&board) > digits::TRIALS as u64;
        assert_eq!(was_repeated, victim != "coordinator", "{victim}: {board:#}");
    }
    drop(workers);
    cluster.check();
}

#[test]
fn a_worker_that_was_stopped_past_its_lease_drops_its_work_and_takes_new() {
    let mut cluster = digits::start();
    let sleeper = cluster.worker("sleeper");
    digits::launch(&cluster, "stopped");
    cluster.wait_until("stopped", "running", is_running);
    // The agent alone: its trainer trains on, and what it reports is late.
    sleeper.signal("STOP");
    cluster.wait_until("stopped", "given up", |board| trials(board)[0]["state"] == "WAITING");
    sleeper.signal("CONT");
    let board = must_find_the_same(&cluster, "stopped");
    assert_eq!(trials_with_attempts(&board, 2), 1, "{board:#}");
    assert!(cluster.log("sleeper").contains("attempt dropped"), "{}", cluster.log("sleeper"));
    drop(sleeper);
    let checked = cluster.check();
    assert!(checked["searches"][0]["repeated_epochs"].as_u64() >= Some(1), "{checked:#}");
}

fn trials_with_attempts(board: &Json, attempts: u64) -> usize {
    trials(board).iter().filter(|trial| trial["attempts"] == attempts).count()
}

#[test]
fn a_network_that_is_cut_slow_or_reset_changes_nothing_that_is_found() {
    let mut cluster = digits::start();
    let proxy = Proxy::before(&cluster.url);
    let worker = cluster.worker_at(&proxy.url, "far");
    let past_the_lease = Duration::from_secs(4);
    for (name, weather, lasts, loses_the_lease) in [
        ("cut", Weather::Cut, past_the_lease, true),
        ("cut-to-the-coordinator", Weather::CutToCoordinator, past_the_lease, true),
        // Heartbeats still arrive, so that the lease is kept.
        ("cut-to-the-worker", Weather::CutToWorker, past_the_lease, false),
        ("cut-for-a-moment", Weather::Cut, Duration::from_secs(1), false),
        ("slow", Weather::Slow, past_the_lease, false),
        ("reset", Weather::Clear, Duration::ZERO, false),
    ] {
        digits::launch(&cluster, name);
        cluster.wait_until(name, "in the middle of a trial", is_running);
        match name {
            "reset" => (0..5).for_each(|_| {
                proxy.reset();
                std::thread::sleep(Duration::from_millis(400));
            }),
            _ => {
                proxy.weather(weather);
                std::thread::sleep(lasts);
                proxy.weather(Weather::Clear);
            }
        }
        let board = must_find_the_same(&cluster, name);
        if loses_the_lease {
            assert!(attempts(&board) > digits::TRIALS as u64, "{name}: {board:#}");
        } else if lasts < past_the_lease || weather == Weather::Slow {
            assert_eq!(attempts(&board), digits::TRIALS as u64, "{name}: {board:#}");
        }
    }
    drop(worker);
    cluster.check();
}

#[test]
fn a_second_coordinator_on_a_data_folder_is_refused_and_the_first_goes_on() {
    let mut cluster = digits::start();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "claimed");
    cluster.wait_until("claimed", "running", is_running);
    let second = serve_on(&cluster.data());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another coordinator (process"), "{said}");
    let data = cluster.data();
    let checked = fittingroom(&cluster.url, &["check", "--data", data.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains("a coordinator runs on"), "{said}");
    must_find_the_same(&cluster, "claimed");
    drop(worker);
    cluster.check();
}

/// A file system of its own, taken away with this.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one of so many bytes on a folder; `None`, and a line that says so, where that is not allowed.
    pub(crate) fn on(folder: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("makes");
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder);
        let output = mount.output().ok().filter(|output| output.status.success());
        if output.is_none() {
            eprintln!("NOT RUN: no file system can be mounted here, which needs root");
        }
        output.map(|_| Self(folder.to_owned()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().expect("mount runs");
        assert!(done.success(), "{options}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whatever still has files open there keeps them; the folder is free at once.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_a_search_and_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::prepare(&["--lease-seconds", "2"]);
    let Some(_mounted) = Mounted::on(&cluster.data(), 6 << 20) else { return };
    cluster.serve();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "full");
    let before = cluster.wait_until("full", "in the middle of its second trial", |board| {
        trials(board).iter().any(|trial| trial["state"] == "COMPLETE")
            && trials(board).iter().any(|trial| trial["state"] == "RUNNING")
    });
    let filler = cluster.data().join("filler");
    let filled = std::fs::write(&filler, vec![0; 8 << 20]);
    assert!(filled.is_err(), "the disk is full");
    wait_for("a full disk that is noticed", || cluster.log("coordinator").contains("is full"));
    // Reads go on, and what was acknowledged is there.
    let now = cluster.leaderboard("full");
    for done in trials(&before).iter().filter(|trial| trial["state"] == "COMPLETE") {
        assert!(trials(&now).contains(done), "{done:#} is gone: {now:#}");
    }
    let refused = fittingroom(&cluster.url, &["pause", "full"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("full"), "{said}");
    std::fs::remove_file(&filler).expect("removes");
    must_find_the_same(&cluster, "full");
    drop(worker);
    cluster.check();
}

#[test]
fn a_data_folder_that_cannot_be_written_is_refused_with_its_name() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = folder.path().join("data");
    // Root writes wherever the file system lets it.
    let Some(mounted) = Mounted::on(&data, 1 << 20) else {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).expect("sets");
        return must_refuse(&data);
    };
    mounted.remount("ro");
    must_refuse(&data);
}

fn must_refuse(data: &Path) {
    let refused = serve_on(data);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(data.to_str().expect("UTF-8")) && !said.contains("panicked"), "{said}");
}

#[test]
fn a_coordinator_that_is_out_of_file_descriptors_goes_on_when_it_has_some_again() {
    let mut cluster = Cluster::prepare(&["--lease-seconds", "2"]);
    cluster.through = ["prlimit", "--nofile=48:48"].map(str::to_owned).to_vec();
    cluster.serve();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "crowded");
    cluster.wait_until("crowded", "running", is_running);
    let address = cluster.url.trim_start_matches("http://").to_owned();
    let mut crowd: Vec<TcpStream> =
        (0..80).map(|_| TcpStream::connect(&address).expect("the system accepts it")).collect();
    wait_for("the lack of file descriptors", || {
        cluster.log("coordinator").contains("a connection could not be accepted")
    });
    std::thread::sleep(Duration::from_secs(3));
    crowd.clear();
    must_find_the_same(&cluster, "crowded");
    drop(worker);
    cluster.check();
}

#[test]
fn a_log_whose_tail_is_cut_off_goes_on_from_what_is_left() {
    let mut cluster = digits::start();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "cut");
    cluster.wait_until("cut", "in the middle of its second trial", |board| {
        trials(board).iter().any(|trial| trial["state"] == "COMPLETE") && is_running(board)
    });
    // What the worker was told is durable is lost with the tail: it must not go on from there.
    cluster.kill_coordinator();
    let tail = cluster.data().join("log.sqlite-wal");
    let length = std::fs::metadata(&tail).expect("there").len();
    let file = std::fs::File::options().write(true).open(&tail).expect("opens");
    file.set_len(length * 9 / 10 - 100).expect("cuts");
    cluster.serve();
    must_find_the_same(&cluster, "cut");
    drop(worker);
    cluster.check();
}

#[test]
fn a_log_that_is_damaged_is_refused_and_a_check_says_what_is_wrong() {
    let mut cluster = digits::start();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "damaged");
    cluster.wait_until_complete("damaged");
    drop(worker);
    cluster.check();
    let data = cluster.data();
    let check = || {
        let output = fittingroom("http://127.0.0.1:1", &["check", "--data", data.to_str().expect("UTF-8")]);
        let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        (output.status.code(), said.concat())
    };

    // An artifact with other bytes, and one that is gone.
    let mut artifacts = artifacts(&data.join("artifacts"));
    // The smallest are the dataset's labels, without which nothing can be trained.
    artifacts.sort_by_key(|path| std::fs::metadata(path).expect("is there").len());
    let kept: Vec<Vec<u8>> = artifacts.iter().map(|path| std::fs::read(path).expect("reads")).collect();
    std::fs::write(&artifacts[0], b"other bytes").expect("writes");
    std::fs::remove_file(&artifacts[1]).expect("removes");
    let (code, said) = check();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("its bytes are others") && said.contains("it is missing"), "{said}");
    assert!(said.contains("2 problems"), "{said}");
    artifacts.iter().zip(kept).for_each(|(path, bytes)| std::fs::write(path, bytes).expect("writes"));
    let (code, said) = check();
    assert!(code == Some(0) && said.contains("nothing is wrong"), "{said}");

    // Half of the log.
    let log = data.join("log.sqlite");
    let length = std::fs::metadata(&log).expect("there").len();
    std::fs::File::options().write(true).open(&log).and_then(|file| file.set_len(length / 2)).expect("cuts");
    let (code, said) = check();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("malformed") || said.contains("damaged"), "{said}");
    let refused = serve_on(&data);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("event log") && !said.contains("panicked"), "{said}");
}

/// Every file below a folder.
fn artifacts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("lists").path());
    entries.flat_map(|path| if path.is_dir() { artifacts(&path) } else { vec![path] }).collect()
}
