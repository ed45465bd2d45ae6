//! What operators rely on, with real training: backups in the middle of it, workers as systemd sees them,
//! logs for programs, and the units.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::digits::{self, undisturbed};
use crate::harness::{
    Cluster, PATIENCE, Running, children_of, coordinator_program, fittingroom, is_alive, log_file, results,
    trials, worker_program,
};
use crate::is_running;

#[test]
fn a_search_backed_up_in_the_middle_of_its_training_finds_the_same_after_it_is_restored() {
    let mut cluster = digits::start();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "backed-up");
    cluster.wait_until("backed-up", "in the middle of its second trial", |board| {
        is_running(board) && trials(board).iter().any(|trial| trial["state"] == "COMPLETE")
    });
    let backup = cluster.folder.path().join("backup.tar");
    let backup = backup.to_str().expect("UTF-8");
    cluster.succeed(&["backup", backup]);
    let before = cluster.wait_until_complete("backed-up");
    assert_eq!(results(&before), undisturbed(), "a backup disturbs nothing");
    assert_eq!(cluster.check()["searches"][0]["repeated_epochs"], 0);
    drop(worker);

    let mut restored = Cluster::prepare(&["--lease-seconds", "2"]);
    let data = restored.data();
    let data = data.to_str().expect("UTF-8");
    restored.succeed(&["restore", backup, "--data", data]);
    assert_eq!(restored.check()["sound"], true);
    restored.serve();
    let begun = restored.leaderboard("backed-up");
    assert_eq!(begun["state"], "RUNNING", "{begun:#}");
    assert!(trials(&begun).iter().any(|trial| trial["state"] == "COMPLETE"), "{begun:#}");
    let worker = restored.worker("one");
    let after = restored.wait_until_complete("backed-up");
    assert_eq!(results(&after), undisturbed());
    drop(worker);
    restored.check();
}

/// What a program tells its service manager, as systemd hears it.
struct ServiceManager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl ServiceManager {
    fn listen(folder: &Path) -> Self {
        let path = folder.join("notify");
        Self { socket: UnixDatagram::bind(&path).expect("binds"), path }
    }

    /// Waits for a message with such a line; answers the line, if it came in time.
    fn hears(&self, beginning: &str, patience: Duration) -> Option<String> {
        let end = Instant::now() + patience;
        let mut message = [0; 1024];
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).expect("sets");
            let length = self.socket.recv(&mut message).ok()?;
            let text = std::str::from_utf8(&message[..length]).expect("UTF-8");
            if let Some(line) = text.lines().find(|line| line.starts_with(beginning)) {
                return Some(line.to_owned());
            }
        }
        None
    }
}

/// A worker whose service manager gives it up after 3 s of silence, and which logs for programs.
fn watched_worker(url: &str, folder: &Path, manager: &ServiceManager) -> Running {
    let mut command = Command::new(worker_program());
    command.args(["run", "--coordinator", url, "--slots", "1", "--device", "cpu", "--name", "watched"]);
    command.args(["--log-format", "json", "--log-level", "debug"]);
    command.arg("--cache").arg(folder.join("cache"));
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "3000000");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(folder, "watched"));
    Running::of(command.spawn().expect("starts"))
}

#[test]
fn systemd_hears_of_a_worker_that_it_lives_with_its_coordinator_or_without_and_that_it_ends() {
    const ALIVE: &str = "WATCHDOG=1";
    let mut cluster = digits::start();
    let manager = ServiceManager::listen(cluster.folder.path());
    cluster.kill_coordinator();
    let worker = watched_worker(&cluster.url, cluster.folder.path(), &manager);
    assert!(manager.hears("READY=1", PATIENCE).is_some(), "a worker waits for its coordinator as for work");
    for _ in 0..3 {
        assert!(
            manager.hears(ALIVE, PATIENCE).is_some(),
            "a coordinator that is away is no fault of its own"
        );
    }
    cluster.serve();
    assert!(manager.hears("STATUS=joined; 0 of 1 slots busy", PATIENCE).is_some());
    digits::launch(&cluster, "watched");
    assert!(manager.hears("STATUS=joined; 1 of 1 slots busy", PATIENCE).is_some());
    cluster.wait_until("watched", "running", is_running);

    // A coordinator that takes calls and answers none.
    crate::harness::signal(cluster.coordinator_id(), "STOP");
    for _ in 0..4 {
        assert!(manager.hears(ALIVE, Duration::from_secs(3)).is_some(), "it works, though nobody answers");
    }
    crate::harness::signal(cluster.coordinator_id(), "CONT");

    let trainers = children_of(worker.id());
    worker.signal("TERM");
    assert!(manager.hears("STOPPING=1", PATIENCE).is_some());
    assert_eq!(worker.wait(), Some(0), "{}", cluster.log("watched"));
    assert!(!trainers.iter().any(|&id| is_alive(id)), "nothing is left of it");
    check_log(&cluster.log("watched"));
}

/// Every line is a document that says which worker it is of; those of an attempt say of which.
fn check_log(log: &str) {
    let lines: Vec<Json> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    for (line, text) in lines.iter().zip(log.lines()) {
        for name in line.as_object().expect("an object").keys() {
            assert_eq!(text.matches(&format!("\"{name}\":")).count(), 1, "{name} is there twice: {text}");
        }
    }
    let taken = lines.iter().find(|line| line["message"] == "attempt taken").expect("takes one");
    for (field, value) in [
        ("worker", Json::from("watched")),
        ("slot", 0.into()),
        ("search", "watched".into()),
        ("trial", 0.into()),
        ("attempt", 1.into()),
    ] {
        assert_eq!(taken[field], value, "{field}: {taken}");
    }
    let joined = lines.iter().find(|line| line["message"] == "joined the coordinator").expect("joins");
    assert_eq!(joined["worker"], "watched");
}

#[test]
fn a_worker_whose_trainer_does_not_let_go_ends_in_time_all_the_same() {
    let cluster = digits::start();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "held");
    cluster.wait_until("held", "running", is_running);
    let trainers = children_of(worker.id());
    trainers.iter().for_each(|&id| crate::harness::signal(id, "STOP"));
    let begun = Instant::now();
    worker.terminate();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}\n{}", begun.elapsed(), cluster.log("one"));
    assert!(!trainers.iter().any(|&id| is_alive(id)), "nothing is left of it");
}

/// deploy/test installs what this needs; elsewhere there may be no systemd.
#[test]
fn the_units_are_in_order() {
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    for (unit, program, command) in [
        ("fittingroom.service", coordinator_program(), "serve"),
        ("fittingroom-worker.service", worker_program(), "run"),
    ] {
        let text = std::fs::read_to_string(units.join(unit)).expect("reads");
        let installed = format!("ExecStart=/usr/local/bin/{}", unit.trim_end_matches(".service"));
        assert!(text.contains(&installed), "{unit}");
        let text = text.replace(&installed, &format!("ExecStart={}", program.display()));
        let copy = folder.path().join(unit);
        std::fs::write(&copy, &text).expect("writes");
        let verified = Command::new("systemd-analyze").arg("verify").arg(&copy).output().expect("runs");
        let said = [verified.stdout, verified.stderr].concat();
        assert!(verified.status.success() && said.is_empty(), "{unit}: {}", String::from_utf8_lossy(&said));

        // What the environment says is said in variables that the program has.
        let help = Command::new(&program).args([command, "--help"]).output().expect("runs").stdout;
        let help = String::from_utf8(help).expect("UTF-8");
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let variables = text.lines().filter_map(|line| line.strip_prefix("Environment="));
        for variable in variables.flat_map(|line| line.split(' ')).filter_map(|it| it.split('=').next()) {
            assert!(help.contains(&format!("[env: {variable}=")), "{unit}: {variable}");
        }
    }
    let misused = fittingroom("http://127.0.0.1:1", &["serve", "--data", "d", "--log-level", "loud"]);
    assert_eq!(misused.status.code(), Some(2), "wrong usage ends with what the units do not try again");
}
