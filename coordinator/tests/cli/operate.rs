//! What operators rely on: metrics, health, signs of life for systemd, a log for programs, and an end in time.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fittingroom_common::proto as pb;
use fittingroom_common::proto::operator_service_client::OperatorServiceClient;
use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::{Coordinator, pretend_to_work, write_search};

pub(crate) const WORKER: &[u8] = &[9; 16];

/// Asks for a page, and answers its head and its body.
pub(crate) fn get(url: &str, method: &str) -> (String, String) {
    let (address, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("one request a connection");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// Every sample of a scrape, by its name and labels. Each belongs to a metric that says what it is.
pub(crate) fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut described = Vec::new();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let (kind, rest) = rest.split_once(' ').expect("a kind");
            let (name, said) = rest.split_once(' ').expect("a name");
            assert!(!said.is_empty() && name.starts_with("fittingroom_"), "{line}");
            described.push((kind, name));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        for kind in ["HELP", "TYPE"] {
            let is_of = |(of, metric): &(&str, &str)| *of == kind && name.starts_with(metric);
            assert!(described.iter().any(is_of), "no {kind} for {series}");
        }
        let before = samples.insert(series.to_owned(), value.parse().expect("a number"));
        assert_eq!(before, None, "{series} is there twice");
    }
    samples
}

fn by_state(name: &str, samples: &BTreeMap<String, f64>) -> BTreeMap<String, u64> {
    let prefix = format!("fittingroom_{name}{{state=\"");
    let of = |(series, value): (&String, &f64)| {
        let state = series.strip_prefix(&prefix)?.trim_end_matches("\"}").to_ascii_lowercase();
        Some((state, *value as u64))
    };
    samples.iter().filter_map(of).collect()
}

pub(crate) async fn register(url: &str, slots: u32) -> WorkerServiceClient<tonic::transport::Channel> {
    let mut workers = WorkerServiceClient::connect(url.to_owned()).await.expect("connects");
    let register = pb::RegisterRequest {
        protocol_version: pb::PROTOCOL_VERSION,
        worker_id: WORKER.to_vec(),
        name: "slow".to_owned(),
        slots,
        device: "none".to_owned(),
        program_version: "0".to_owned(),
    };
    workers.register(register).await.expect("registers");
    workers
}

/// Takes a trial and reports its first epoch.
async fn begin_a_trial(workers: &mut WorkerServiceClient<tonic::transport::Channel>) -> pb::Attempt {
    let lease = pb::LeaseRequest { worker_id: WORKER.to_vec(), slot: 0, wait_ms: 500 };
    let assignment = workers.lease(lease).await.expect("answers").into_inner().assignment.expect("work");
    let score = Some(pb::Score { loss: 0.5, accuracy: 0.5 });
    let report = pb::Report {
        epoch: 1,
        train: score,
        validation: score,
        test: None,
        seconds: 1.0,
        images_per_second: 1.0,
    };
    let (search, attempt) = (assignment.search, assignment.attempt);
    let report = pb::ReportRequest { worker_id: WORKER.to_vec(), search, attempt, report: Some(report) };
    workers.report(report).await.expect("accepted");
    let held = pb::Held { search, attempt, epoch: 0, step: 0, steps: 0 };
    let heartbeat = pb::HeartbeatRequest {
        worker_id: WORKER.to_vec(),
        held: vec![held],
        draining: true,
        ..Default::default()
    };
    workers.heartbeat(heartbeat).await.expect("accepted");
    attempt.expect("an attempt")
}

#[test]
fn metrics_say_what_list_and_leaderboard_say() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = write_search(folder.path());
    let flags = ["--metrics-listen", "127.0.0.1:0"];
    let coordinator = Coordinator::start_with(&folder.path().join("data"), &flags, &[], Stdio::null());
    let url = coordinator.metrics.clone().expect("asked for");
    let check = |row: &str| -> BTreeMap<String, f64> {
        let (head, body) = get(&url, "GET");
        assert!(head.starts_with("http/1.1 200"), "{row}: {head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{row}: {head}");
        let scraped = samples(&body);
        let list = coordinator.json(&["list", "--json"]);
        let searches = list["searches"].as_array().expect("a list");
        let (trials, states) = (by_state("trials", &scraped), by_state("searches", &scraped));
        for (state, count) in &trials {
            let listed: u64 = searches.iter().map(|it| it[state].as_u64().expect("a number")).sum();
            assert_eq!(*count, listed, "{row}: trials that are {state}");
        }
        assert_eq!(states.values().sum::<u64>(), searches.len() as u64, "{row}");
        for search in searches {
            let board =
                coordinator.json(&["leaderboard", search["search"].as_str().expect("a name"), "--json"]);
            let shown = board["trials"].as_array().expect("a list").len() as u64;
            assert_eq!(trials.values().sum::<u64>(), shown, "{row}");
            let state = search["state"].as_str().expect("a state").to_ascii_lowercase();
            assert_eq!(states[&state], 1, "{row}: {state}");
        }
        scraped
    };
    let is = |scraped: &BTreeMap<String, f64>, name: &str| -> f64 {
        *scraped.get(&format!("fittingroom_{name}")).unwrap_or_else(|| panic!("no {name}"))
    };

    let nothing = check("nothing launched");
    assert_eq!(is(&nothing, "reports_total"), 0.0);
    assert_eq!(is(&nothing, "attempts_failed_total{reason=\"diverged\"}"), 0.0, "there from the beginning");
    coordinator.text(&["launch", &file]);
    let launched = check("launched");
    assert_eq!(is(&launched, "log_append_seconds_count"), 1.0);

    let runtime = Runtime::new().expect("a runtime");
    let mut workers = runtime.block_on(register(&coordinator.url, 3));
    runtime.block_on(begin_a_trial(&mut workers));
    let running = check("running");
    for (name, value) in [
        ("reports_total", 1.0),
        ("attempts_total", 1.0),
        ("leases", 1.0),
        ("workers", 1.0),
        ("workers_draining", 1.0),
        ("slots", 3.0),
        ("slots_busy", 1.0),
        ("trials{state=\"RUNNING\"}", 1.0),
        ("searches{state=\"RUNNING\"}", 1.0),
        ("log_writable", 1.0),
        (concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
        ("calls_total{method=\"/fittingroom.v1.WorkerService/Report\"}", 1.0),
    ] {
        assert_eq!(is(&running, name), value, "{name}");
    }
    assert!(is(&running, "connections") >= 1.0);
    assert_eq!(is(&running, "log_append_events_count"), is(&running, "log_append_seconds_count"));
    assert!(is(&running, "log_append_events_sum") >= 4.0, "created, planned, started, reported");

    runtime.block_on(pretend_to_work(coordinator.url.clone())).expect("works");
    let worked = check("the others are trained");
    assert_eq!(is(&worked, "reports_total"), 1.0 + 2.0 * 2.0);
    assert_eq!(is(&worked, "trials_ended_total{state=\"COMPLETE\"}"), 2.0);

    let base = url.trim_end_matches("/metrics");
    for (row, url, method, status) in [
        ("another page", format!("{base}/"), "GET", "404"),
        ("a change", url.clone(), "POST", "405"),
        ("its head alone", url.clone(), "HEAD", "200"),
    ] {
        let (head, _) = get(&url, method);
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{row}: {head}");
    }
}

#[test]
fn metrics_are_not_shown_to_other_machines_before_there_are_certificates_and_tokens() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "0.0.0.0:0", "--data", &data];
    let refused = crate::run(&serve);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("0.0.0.0:0") && said.contains("fittingroom certs"), "{said}");
}

fn status(answer: tonic::Response<HealthCheckResponse>) -> ServingStatus {
    answer.into_inner().status()
}

#[test]
fn health_is_told_and_watchers_hear_of_the_end_which_comes_in_time_whoever_holds_on() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = write_search(folder.path());
    let coordinator = Coordinator::start(&folder.path().join("data"));
    coordinator.text(&["launch", &file]);
    let url = coordinator.url.clone();
    Runtime::new().expect("a runtime").block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(url.clone()).expect("an address");
        let mut health = HealthClient::new(endpoint.connect().await.expect("connects"));
        let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
        for service in ["", "OperatorService", "WorkerService", "ArtifactService"] {
            let service =
                if service.is_empty() { String::new() } else { format!("fittingroom.v1.{service}") };
            let answer = health.check(of(&service)).await.expect("answers");
            assert_eq!(status(answer), ServingStatus::Serving, "{service:?}");
        }
        let unknown = health.check(of("fittingroom.v1.Nothing")).await.expect_err("there is no such service");
        assert_eq!(unknown.code(), Code::NotFound);
        let mut watched = health.watch(of("")).await.expect("answers").into_inner();
        let first = watched.message().await.expect("goes on").expect("a message");
        assert_eq!(first.status(), ServingStatus::Serving);

        // Those who would hold it up: a slot that waits for work, and readers that do not read.
        let mut workers = register(&url, 2).await;
        begin_a_trial(&mut workers).await;
        coordinator.text(&["pause", "tiny"]);
        let wait = pb::LeaseRequest { worker_id: WORKER.to_vec(), slot: 1, wait_ms: 60_000 };
        let mut operator = OperatorServiceClient::connect(url.clone()).await.expect("connects");
        let follow = pb::WatchLeaderboardRequest { name: "tiny".to_owned(), top: 10 };
        let followed = operator.watch_leaderboard(follow).await.expect("answers");
        let backup = operator.backup(pb::BackupRequest::default()).await.expect("answers");
        let mut silent = TcpStream::connect(url.trim_start_matches("http://")).expect("connects");
        silent.write_all(b"PRI * HTTP").expect("writes");
        let waiting = tokio::spawn(async move { workers.lease(wait).await });

        let ended = tokio::task::spawn_blocking(move || coordinator.terminate());
        let last = watched.message().await.expect("is told before the end").expect("a message");
        assert_eq!(last.status(), ServingStatus::NotServing);
        let (code, took) = ended.await.expect("waits");
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(10), "it took {took:?}");
        drop((followed, backup, silent, waiting));
    });
}

/// What a program tells its service manager.
struct ServiceManager {
    socket: UnixDatagram,
}

impl ServiceManager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("binds");
        Self { socket }
    }

    /// Waits for a message with this line; answers whether it came in time.
    fn hears(&self, line: &str, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut message = [0; 1024];
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).expect("sets");
            let Ok(length) = self.socket.recv(&mut message) else { return false };
            let text = std::str::from_utf8(&message[..length]).expect("UTF-8");
            if text.lines().any(|said| said == line) {
                return true;
            }
        }
        false
    }
}

#[test]
fn systemd_hears_that_it_is_ready_that_it_lives_as_long_as_its_log_answers_and_that_it_ends() {
    const ALIVE: &str = "WATCHDOG=1";
    let (soon, long) = (Duration::from_millis(1_500), Duration::from_secs(20));
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = folder.path().join("data");
    let socket = folder.path().join("notify");
    let manager = ServiceManager::listen(&socket);
    let environment = [("NOTIFY_SOCKET", socket.to_str().expect("UTF-8")), ("WATCHDOG_USEC", "900000")];
    let coordinator = Coordinator::start_with(&data, &[], &environment, Stdio::null());
    assert!(manager.hears("READY=1", long));
    for _ in 0..3 {
        assert!(manager.hears(ALIVE, long));
    }

    // A disk that does not answer, as far as the log's writer can tell.
    let other = rusqlite::Connection::open(data.join("log.sqlite")).expect("opens");
    other.busy_timeout(Duration::from_secs(5)).expect("sets");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    manager.hears("no such line", Duration::from_millis(200));
    assert!(!manager.hears(ALIVE, soon), "a program whose log hangs does not work");
    other.execute_batch("ROLLBACK").expect("unlocks");
    assert!(manager.hears(ALIVE, long), "and it does again");

    let id = coordinator.process.id().to_string();
    std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
    assert!(manager.hears("STOPPING=1", long));
    assert_eq!(coordinator.terminate().0, Some(0));
}

#[test]
fn a_log_for_programs_has_a_document_a_line_with_the_names_of_everything() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = write_search(folder.path());
    let path = folder.path().join("log");
    let flags = ["--log-format", "json", "--log-level", "warn,fittingroom_coordinator=debug"];
    let log = std::fs::File::create(&path).expect("writes");
    let coordinator = Coordinator::start_with(&folder.path().join("data"), &flags, &[], log.into());
    coordinator.text(&["launch", &file]);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(pretend_to_work(coordinator.url.clone())).expect("works");
    assert_eq!(coordinator.terminate().0, Some(0));

    let text = std::fs::read_to_string(&path).expect("reads");
    let mut said = Vec::new();
    for line in text.lines() {
        let document: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message", "target"] {
            assert!(document[field].is_string(), "{field}: {line}");
        }
        for name in document.as_object().expect("an object").keys() {
            assert_eq!(line.matches(&format!("\"{name}\":")).count(), 1, "{name} is there twice: {line}");
        }
        said.push(document);
    }
    let of = |message: &str| {
        let found = said.iter().find(|it| it["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in {text}"))
    };
    let started = of("attempt started");
    for (field, value) in [
        ("search", Value::from("tiny")),
        ("trial", Value::from(0)),
        ("attempt", Value::from(1)),
        ("worker", Value::from("pretender")),
        ("slot", Value::from(0)),
    ] {
        assert_eq!(started[field], value, "{field}: {started}");
    }
    assert_eq!(of("search created")["search"], "tiny");
    assert_eq!(of("epoch reported")["epoch"], 1);
}
