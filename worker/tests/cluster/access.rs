//! A coordinator that trusts not just anybody: certificates, tokens and roles, with the real programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::faults::wait_for;
use crate::harness::{Running, coordinator_program, log_file, worker_program};
use crate::input::write_small_dataset;
use crate::proxy::Proxy;

/// Long enough to be looked at while it runs, and longer than any test: it is cancelled.
pub(crate) const LONG: &str = "
method: grid
dataset: ./digits
epochs: 100000
parameters:
  hidden_sizes: {value: [8]}
  learning_rate: {values: [0.01, 0.001]}
";

/// A coordinator's data folder, what was made in it, and the coordinator that runs on it.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    coordinator: Option<Running>,
    pub(crate) url: String,
    pub(crate) fingerprint: Option<String>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        write_small_dataset(&folder.path().join("digits"), 6, 6, 3);
        Self { folder, coordinator: None, url: String::new(), fingerprint: None }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Makes certificates; from then on everybody is told the fingerprint.
    pub(crate) fn certs(&mut self) {
        let made = self.offline(&["certs", "--json"]);
        self.fingerprint = Some(made["fingerprint"].as_str().expect("a text").to_owned());
    }

    /// Makes a token.
    pub(crate) fn token(&self, role: &str, name: &str) -> String {
        let made = self.offline(&["token", "create", "--role", role, "--name", name, "--json"]);
        made["token"].as_str().expect("a text").to_owned()
    }

    /// Runs a command that works on the data folder alone.
    pub(crate) fn offline(&self, arguments: &[&str]) -> Json {
        let mut command = Command::new(coordinator_program());
        let output = command.args(arguments).arg("--data").arg(self.data()).output().expect("runs");
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Starts the coordinator: on every address of this machine if it is protected, else on loopback.
    pub(crate) fn serve(&mut self) {
        let listen = if self.fingerprint.is_some() { "0.0.0.0:0" } else { "127.0.0.1:0" };
        let mut child = Command::new(coordinator_program())
            .args(["serve", "--listen", listen, "--lease-seconds", "5", "--data"])
            .arg(self.data())
            .env("FITTINGROOM_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(log_file(self.folder.path(), "coordinator"))
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("reads");
        self.coordinator = Some(Running::of(child));
        self.url = line.trim().replace("0.0.0.0", "127.0.0.1");
        let scheme = if self.fingerprint.is_some() { "https://" } else { "http://" };
        assert!(line.starts_with(scheme), "{line:?}: {}", self.log("coordinator"));
    }

    pub(crate) fn process(&self) -> u32 {
        self.coordinator.as_ref().expect("runs").id()
    }

    fn command(&self, program: PathBuf, token: Option<&str>) -> Command {
        let mut command = Command::new(program);
        command.env("FITTINGROOM_COORDINATOR", &self.url).env_remove("FITTINGROOM_TOKEN");
        if let Some(token) = token {
            command.env("FITTINGROOM_TOKEN", token);
        }
        if let Some(fingerprint) = &self.fingerprint {
            command.env("FITTINGROOM_CA_FINGERPRINT", fingerprint);
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command as the bearer of a token.
    pub(crate) fn call(&self, token: Option<&str>, arguments: &[&str]) -> Output {
        self.command(coordinator_program(), token).args(arguments).output().expect("runs")
    }

    pub(crate) fn json(&self, token: &str, arguments: &[&str]) -> Json {
        let output = self.call(Some(token), &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }

    /// Starts following a search, in a process of its own.
    fn follow(&self, token: &str, search: &str) -> Running {
        let mut command = self.command(coordinator_program(), Some(token));
        command.args(["leaderboard", search, "--follow"]).stdout(Stdio::null());
        let log = log_file(self.folder.path(), "follow");
        Running::of(command.stderr(log).spawn().expect("starts"))
    }

    pub(crate) fn worker(&self, token: &str, name: &str) -> Running {
        self.worker_given(Some(token), name, &[])
    }

    /// Starts a worker with environment variables beside, or instead of, those that everybody gets.
    pub(crate) fn worker_given(
        &self,
        token: Option<&str>,
        name: &str,
        variables: &[(String, String)],
    ) -> Running {
        let mut command = self.command(worker_program(), token);
        command.envs(variables.iter().cloned());
        command.args(["run", "--slots", "1", "--device", "cpu", "--name", name]);
        command.arg("--cache").arg(self.folder.path().join("cache"));
        let child = command.stdout(Stdio::null()).stderr(log_file(self.folder.path(), name));
        Running::of(child.spawn().expect("starts"))
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    pub(crate) fn launch(&self, token: &str, name: &str, search: &str) {
        std::fs::write(self.folder.path().join("search.yaml"), search).expect("writes");
        self.json(token, &["launch", "search.yaml", "--name", name]);
    }

    /// Waits until a search's leaderboard is as wished.
    pub(crate) fn wait_until(&self, token: &str, name: &str, wish: impl Fn(&Json) -> bool) -> Json {
        let end = std::time::Instant::now() + crate::harness::PATIENCE;
        loop {
            let board = self.json(token, &["leaderboard", name]);
            if wish(&board) {
                return board;
            }
            assert!(std::time::Instant::now() < end, "{board:#}\n{}", self.log("coordinator"));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn is_training(board: &Json) -> bool {
    crate::trials(board).iter().any(|trial| trial["epoch"].as_u64() >= Some(1))
}

#[test]
fn a_cluster_with_certificates_and_tokens_works_and_lets_nobody_else_in() {
    let mut site = Site::new();
    site.certs();
    let (operator, viewer) = (site.token("operator", "me"), site.token("viewer", "guest"));
    let secret = site.token("worker", "gpu-box");
    site.serve();

    for (row, token, arguments, message) in [
        ("no token", None, vec!["list"], "FITTINGROOM_TOKEN"),
        ("no token's form", Some("hunter2"), vec!["list"], "no token"),
        (
            "another coordinator's token",
            Some("fr_0000000000000000000000000000000000000000000000000000000000000000"),
            vec!["list"],
            "not known here",
        ),
        ("a worker looks", Some(secret.as_str()), vec!["list"], "for workers"),
        ("a viewer changes something", Some(&viewer), vec!["cancel", "long"], "for viewers"),
    ] {
        let output = site.call(token, &arguments);
        let message_there = said(&output);
        assert!(!output.status.success() && message_there.contains(message), "{row}: {message_there}");
        assert!(!message_there.contains("hunter2"), "{row} tells the secret: {message_there}");
    }
    let mut impostor = site.fingerprint.clone().expect("made");
    impostor.replace_range(..2, if impostor.starts_with("00") { "11" } else { "00" });
    let output = site
        .command(coordinator_program(), Some(&operator))
        .args(["list", "--ca-fingerprint", &impostor])
        .output()
        .expect("runs");
    assert!(said(&output).contains(&impostor), "another authority is not trusted: {}", said(&output));
    let authority = site.data().join("certs/ca.pem");
    let mut by_file = site.command(coordinator_program(), Some(&viewer));
    by_file.env_remove("FITTINGROOM_CA_FINGERPRINT").arg("list").arg("--ca").arg(&authority);
    assert!(by_file.status().expect("runs").success(), "the authority's file will do as well");
    let elsewhere = site.url.replace("127.0.0.1", "127.0.0.2");
    let misnamed = site.call(Some(&operator), &["list", "--coordinator", &elsewhere]);
    assert!(said(&misnamed).contains("certificate not valid for name"), "{}", said(&misnamed));

    site.launch(&operator, "long", LONG);
    let worker = site.worker(&secret, "gpu-box");
    site.wait_until(&viewer, "long", is_training);
    let follower = site.follow(&viewer, "long");
    std::thread::sleep(std::time::Duration::from_millis(500));

    // A revoked token ends what was called with it: a long poll or a heartbeat, and a stream.
    site.offline(&["token", "revoke", "guest", "--json"]);
    assert_eq!(follower.wait(), Some(1), "{}", site.log("follow"));
    assert!(site.log("follow").contains("revoked"), "{}", site.log("follow"));
    site.wait_until(&operator, "long", is_training);
    site.offline(&["token", "revoke", "gpu-box", "--json"]);
    assert_eq!(worker.wait(), Some(1), "{}", site.log("gpu-box"));
    assert!(site.log("gpu-box").contains("revoked"), "{}", site.log("gpu-box"));
    assert!(!site.call(Some(&secret), &["list"]).status.success());
    assert_eq!(site.json(&operator, &["cancel", "long"])["state"], "CANCELLED");

    for name in ["coordinator", "gpu-box", "follow"] {
        let log = site.log(name);
        for secret in [&operator, &viewer, &secret] {
            assert!(!log.contains(&secret[3..]), "{name}'s log tells a token");
        }
    }
    check_private(&site.data().join("tokens.json"));
    for entry in std::fs::read_dir(site.data().join("certs")).expect("lists") {
        check_private(&entry.expect("lists").path());
    }
}

fn check_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{path:?}");
}

#[test]
fn other_machines_are_let_in_after_the_two_commands_that_the_refusal_names() {
    let site = Site::new();
    let data = site.data();
    let serve = || {
        let mut command = Command::new(coordinator_program());
        command.args(["serve", "--listen", "0.0.0.0:0", "--json", "--data"]).arg(&data);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    };
    let refused = serve().wait_with_output().expect("ends");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let message = said(&refused);
    let commands: Vec<&str> =
        message.lines().filter_map(|line| line.trim().strip_prefix("fittingroom ")).collect();
    assert_eq!(commands.len(), 2, "{message}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
        let words: Vec<&str> =
            words.iter().map(|word| if *word == "HOST" { "node-1" } else { word }).collect();
        let output = Command::new(coordinator_program()).args(&words).output().expect("runs");
        assert!(output.status.success(), "{words:?}: {}", said(&output));
    }
    let mut child = serve();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("reads");
    let _running = Running::of(child);
    assert!(line.contains("https://0.0.0.0:"), "{line}");
}

#[test]
fn a_coordinator_notices_its_first_token_and_a_renewed_certificate_while_it_runs() {
    let mut open = Site::new();
    open.serve();
    assert!(open.call(None, &["list"]).status.success(), "nothing is asked for on loopback");
    let operator = open.token("operator", "me");
    let closed = || !open.call(None, &["list"]).status.success();
    assert!((0..100).any(|_| closed()), "the first token closes the door");
    assert!(open.call(Some(&operator), &["list"]).status.success());
    std::fs::remove_file(open.data().join("tokens.json")).expect("was there");
    let shut_out = || !open.call(Some(&operator), &["list"]).status.success();
    assert!((0..100).any(|_| shut_out()), "a lost file opens nothing");
    assert!(!open.call(None, &["list"]).status.success());

    let mut site = Site::new();
    site.certs();
    let operator = site.token("operator", "me");
    site.serve();
    let elsewhere = site.url.replace("127.0.0.1", "127.0.0.2");
    let reached = || site.call(Some(&operator), &["list", "--coordinator", &elsewhere]).status.success();
    assert!(!reached(), "the certificate is not for that address");
    site.offline(&["certs", "--renew", "--name", "127.0.0.2", "--json"]);
    assert!((0..100).any(|_| reached()), "the renewed one is: {}", site.log("coordinator"));
}

#[test]
fn the_first_token_of_an_open_coordinator_ends_its_workers_and_their_trials_wait_for_others() {
    let mut site = Site::new();
    site.serve();
    std::fs::write(site.folder.path().join("search.yaml"), LONG).expect("writes");
    assert!(site.call(None, &["launch", "search.yaml", "--name", "long"]).status.success());
    let strangers = [site.worker_given(None, "first", &[]), site.worker_given(None, "second", &[])];
    for name in ["first", "second"] {
        wait_for("a trial that is taken", || site.log(name).contains("attempt taken"));
    }
    let operator = site.token("operator", "me");
    for (name, stranger) in ["first", "second"].into_iter().zip(strangers) {
        assert_eq!(stranger.wait(), Some(1), "{}", site.log(name));
        assert!(site.log(name).contains("this coordinator asks for a token"), "{}", site.log(name));
    }
    let is_waiting = |trial: &Json| trial["state"] == "WAITING";
    site.wait_until(&operator, "long", |board| crate::trials(board).iter().all(is_waiting));
    for trial in ["0", "1"] {
        let history = site.json(&operator, &["trial", "long", trial]);
        assert_eq!(history["attempt_history"][0]["failure"], Json::Null, "it was no fault: {history:#}");
    }
    let secret = site.token("worker", "gpu-box");
    let _worker = site.worker(&secret, "gpu-box");
    site.wait_until(&operator, "long", is_training);
    site.json(&operator, &["cancel", "long"]);
}

#[test]
fn a_worker_ends_if_it_does_not_trust_the_coordinator_and_waits_if_it_did_before() {
    let mut site = Site::new();
    site.certs();
    let (operator, secret) = (site.token("operator", "me"), site.token("worker", "gpu-box"));
    site.serve();
    let mut open = Site::new();
    open.serve();
    let impostor = "0".repeat(64);
    for (row, variable, value, said) in [
        ("another-authority", "FITTINGROOM_CA_FINGERPRINT", impostor.clone(), impostor.as_str()),
        (
            "another-name",
            "FITTINGROOM_COORDINATOR",
            site.url.replace("127.0.0.1", "127.0.0.2"),
            "not valid for name",
        ),
        (
            "no-encryption",
            "FITTINGROOM_COORDINATOR",
            open.url.replace("http://", "https://"),
            "it does not encrypt",
        ),
    ] {
        let worker = site.worker_given(Some(&secret), row, &[(variable.to_owned(), value)]);
        assert_eq!(worker.wait(), Some(1), "{row}: {}", site.log(row));
        let log = site.log(row);
        assert!(log.contains("is not trusted") && log.contains(said), "{row}: {log}");
    }

    let proxy = Proxy::before(&site.url.replace("https://", "http://"));
    let through = proxy.url.replace("http://", "https://");
    let mut worker =
        site.worker_given(Some(&secret), "gpu-box", &[("FITTINGROOM_COORDINATOR".to_owned(), through)]);
    site.launch(&operator, "long", LONG);
    site.wait_until(&operator, "long", is_training);
    let [certs, aside] = ["certs", "aside"].map(|name| site.data().join(name));
    std::fs::rename(&certs, &aside).expect("moves");
    site.offline(&["certs", "--json"]);
    wait_for("another authority", || !site.call(Some(&operator), &["list"]).status.success());
    proxy.reset();
    let fingerprint = site.fingerprint.clone().expect("made");
    wait_for("a worker that says why it waits", || {
        site.log("gpu-box").lines().any(|it| it.contains("not trusted") && it.contains(&fingerprint))
    });
    std::fs::remove_dir_all(&certs).expect("removes");
    std::fs::rename(&aside, &certs).expect("moves");
    wait_for("a worker that is back", || site.log("gpu-box").contains("the coordinator answers again"));
    assert!(worker.runs(), "{}", site.log("gpu-box"));
    site.json(&operator, &["cancel", "long"]);
}
