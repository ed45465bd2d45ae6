//! Starts the real programs on loopback and asks them with the real command line.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::syncs::Syncs;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn worker_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_fittingroom-worker"))
}

/// What workers train on: the CPU, unless `FITTINGROOM_TEST_DEVICE` names another device.
pub(crate) fn device() -> String {
    std::env::var("FITTINGROOM_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

pub(crate) fn coordinator_program() -> PathBuf {
    let program = worker_program().with_file_name("fittingroom");
    assert!(
        program.exists(),
        "{program:?} is not built: run `cargo build --workspace --bins`, or deploy/test"
    );
    program
}

/// The folder that holds fashion-mnist's folder of four files.
pub(crate) fn real_data() -> PathBuf {
    let folder = place_of_real_data();
    assert!(folder.is_dir(), "{folder:?} is not there: run deploy/test, which obtains Fashion-MNIST");
    folder
}

fn place_of_real_data() -> PathBuf {
    let named = std::env::var_os("FITTINGROOM_TEST_DATA").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from("/usr/share/datasets/fashion-mnist"))
}

/// A started program, killed when the test ends.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) const fn of(child: Child) -> Self {
        Self(child)
    }

    /// Waits until it ends by itself; answers its exit code.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait().expect("waits") {
                Some(status) => return status.code(),
                None if Instant::now() > end => panic!("process {} does not end", self.0.id()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("ends");
    }

    /// Asks it to end, and waits until it has; answers its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
        let end = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait().expect("waits") {
                Some(status) => return status.code(),
                None if Instant::now() > end => panic!("process {id} does not end on SIGTERM"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().expect("asks").is_none()
    }
}

/// Sends a signal by its name to a process, which may have ended.
pub(crate) fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), &process.to_string()]).stderr(Stdio::null());
    kill.status().expect("kill runs");
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A coordinator with a data folder of its own, and what is needed to talk to it.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    coordinator: Option<Running>,
    pub(crate) url: String,
    flags: Vec<String>,
    /// What the coordinator is started through: a program that limits it, with its arguments.
    pub(crate) through: Vec<String>,
    /// Environment variables that the coordinator is given.
    pub(crate) variables: Vec<(String, String)>,
    /// Whom the coordinator's syncs ask.
    pub(crate) syncs: Option<Syncs>,
}

impl Cluster {
    /// Starts a coordinator on a free port.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(flags);
        cluster.serve();
        cluster
    }

    /// What [`Cluster::start`] makes, before the coordinator is started.
    pub(crate) fn prepare(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        Self {
            folder,
            coordinator: None,
            url: "http://127.0.0.1:0".to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            through: Vec::new(),
            variables: Vec::new(),
            syncs: None,
        }
    }

    /// What [`Cluster::prepare`] makes, with a coordinator whose syncs ask.
    pub(crate) fn asking(syncs: &Syncs, flags: &[&str]) -> Self {
        Self { syncs: Some(syncs.clone()), ..Self::prepare(flags) }
    }

    /// Starts the coordinator on the address it had before, or on a free port if it had none.
    pub(crate) fn serve(&mut self) {
        let mut child = self.spawn();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("reads");
        self.coordinator = Some(Running(child));
        assert!(line.starts_with("http://"), "the coordinator did not start: {}", self.log("coordinator"));
        self.url = line.trim().to_owned();
    }

    /// Starts the coordinator, which is to end before it answers calls; answers its exit code.
    pub(crate) fn serve_in_vain(&self) -> Option<i32> {
        let mut child = self.spawn();
        let mut said = child.stdout.take().expect("piped");
        let code = Running(child).wait();
        let mut address = String::new();
        said.read_to_string(&mut address).expect("reads");
        assert_eq!(address, "", "it was ready: {}", self.log("coordinator"));
        code
    }

    fn spawn(&self) -> Child {
        let listen = self.url.trim_start_matches("http://").to_owned();
        let program = coordinator_program();
        let mut command = match self.through.split_first() {
            Some((limiter, arguments)) => {
                let mut command = Command::new(limiter);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["serve", "--listen", &listen, "--data"]).arg(self.data()).args(&self.flags);
        // Fashion-MNIST is taken from where the tests have it, wherever that is.
        command.env("FITTINGROOM_DATASETS", place_of_real_data().parent().expect("a folder in a folder"));
        command.envs(self.variables.iter().cloned());
        let asking = self.syncs.as_ref().map(|syncs| syncs.prepare(&mut command));
        command.stdout(Stdio::piped()).stderr(log_file(self.folder.path(), "coordinator"));
        let child = command.spawn().expect("starts");
        if let Some((syncs, asking)) = self.syncs.as_ref().zip(asking) {
            syncs.attend(asking);
        }
        child
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// SIGKILL.
    pub(crate) fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("runs").kill();
    }

    /// The process, for signals.
    pub(crate) fn coordinator_id(&self) -> u32 {
        self.coordinator.as_ref().expect("runs").id()
    }

    /// Waits until the coordinator ends by itself; answers its exit code.
    pub(crate) fn wait_for_coordinator(&mut self) -> Option<i32> {
        self.coordinator.take().expect("runs").wait()
    }

    pub(crate) fn stop_coordinator(&mut self) -> Option<i32> {
        self.coordinator.take().expect("runs").terminate()
    }

    /// Starts a worker with one slot.
    pub(crate) fn worker(&self, name: &str) -> Running {
        self.worker_with(&self.url, name, "cache")
    }

    /// Starts a worker with one slot, and a cache that only workers of the same name for it share.
    pub(crate) fn worker_with_cache(&self, name: &str, cache: &str) -> Running {
        self.worker_with(&self.url, name, cache)
    }

    /// Starts a worker with one slot that finds the coordinator at this address.
    pub(crate) fn worker_at(&self, url: &str, name: &str) -> Running {
        self.worker_with(url, name, "cache")
    }

    fn worker_with(&self, url: &str, name: &str, cache: &str) -> Running {
        self.worker_given(url, name, cache, &[])
    }

    /// The same, with environment variables.
    pub(crate) fn worker_given(
        &self,
        url: &str,
        name: &str,
        cache: &str,
        variables: &[(String, String)],
    ) -> Running {
        let mut command = Command::new(worker_program());
        command.envs(variables.iter().cloned());
        command.args(["run", "--coordinator", url, "--slots", "1", "--name", name, "--device", &device()]);
        command.arg("--cache").arg(self.folder.path().join(cache));
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(self.folder.path(), name));
        Running(child.spawn().expect("starts"))
    }

    /// What a program wrote to stderr.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Writes a search file, launches it, and answers its name.
    pub(crate) fn launch(&self, name: &str, search: &str) {
        let path = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&path, search).expect("writes");
        self.succeed(&["launch", path.to_str().expect("UTF-8"), "--name", name]);
    }

    /// Runs the command line and answers what it printed; it must succeed.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = fittingroom(&self.url, arguments);
        assert!(
            output.status.success(),
            "fittingroom {arguments:?} ended with {:?}: {}\n{}",
            output.status.code(),
            String::from_utf8_lossy(&output.stderr),
            self.log("coordinator")
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Json {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.succeed(&arguments)).expect("one JSON document")
    }

    pub(crate) fn leaderboard(&self, name: &str) -> Json {
        self.json(&["leaderboard", name])
    }

    /// Waits until the leaderboard is as wished.
    pub(crate) fn wait_until(&self, name: &str, what: &str, wish: impl Fn(&Json) -> bool) -> Json {
        let end = Instant::now() + PATIENCE;
        loop {
            let board = self.leaderboard(name);
            if wish(&board) {
                return board;
            }
            assert!(
                Instant::now() < end,
                "search {name} is not {what} in time: {board:#}\n{}",
                self.log("coordinator")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn wait_until_complete(&self, name: &str) -> Json {
        self.wait_until(name, "complete", |board| board["state"] == "COMPLETE")
    }

    /// Stops the coordinator, and has its data checked: every log kept its promises, and every
    /// artifact is what it was.
    pub(crate) fn check(&mut self) -> Json {
        if self.coordinator.is_some() {
            assert_eq!(self.stop_coordinator(), Some(0), "{}", self.log("coordinator"));
        }
        let data = self.data();
        let output = fittingroom(&self.url, &["check", "--json", "--data", data.to_str().expect("UTF-8")]);
        let checked: Json = serde_json::from_slice(&output.stdout).expect("one JSON document");
        assert!(output.status.success() && checked["sound"] == true, "{checked:#}");
        checked
    }
}

pub(crate) fn log_file(folder: &Path, name: &str) -> std::fs::File {
    let path = folder.join(format!("{name}.log"));
    std::fs::OpenOptions::new().create(true).append(true).open(path).expect("opens")
}

/// Runs the command line against a coordinator.
pub(crate) fn fittingroom(url: &str, arguments: &[&str]) -> Output {
    Command::new(coordinator_program())
        .args(arguments)
        .env("FITTINGROOM_COORDINATOR", url)
        .stdin(Stdio::null())
        .output()
        .expect("runs")
}

/// Starts a second coordinator or the like, and answers how it ended.
pub(crate) fn serve_on(data: &Path) -> Output {
    let data = data.to_str().expect("UTF-8");
    fittingroom("http://127.0.0.1:1", &["serve", "--listen", "127.0.0.1:0", "--data", data])
}

/// Runs the worker's program.
pub(crate) fn fittingroom_worker(arguments: &[&str]) -> Output {
    Command::new(worker_program()).args(arguments).stdin(Stdio::null()).output().expect("runs")
}

/// The trials of a leaderboard.
pub(crate) fn trials(board: &Json) -> &[Json] {
    board["trials"].as_array().expect("a list of trials")
}

/// What must be the same bits whenever and wherever a trial is run: everything but where and how fast.
pub(crate) fn results(board: &Json) -> Vec<Json> {
    let mut trials = trials(board).to_vec();
    for trial in &mut trials {
        let trial = trial.as_object_mut().expect("an object");
        for accident in ["worker", "seconds", "attempts"] {
            trial.remove(accident).expect("is there");
        }
    }
    trials
}

/// Processes whose parent is this one, whichever of its threads started them.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).expect("the process lives");
    let children =
        threads.map(|thread| std::fs::read_to_string(thread.expect("lists").path().join("children")));
    let children: Vec<String> = children.map(|it| it.unwrap_or_default()).collect();
    children.join(" ").split_whitespace().map(|id| id.parse().expect("a process id")).collect()
}

pub(crate) fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}
