//! What strangers send through the real port: everything is answered or cut, nothing grows, and a
//! search that runs meanwhile does not notice.

mod floods;
mod given_up;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fittingroom_common::access::{Access, Channel};
use fittingroom_common::proto as pb;
use fittingroom_common::proto::artifact_service_client::ArtifactServiceClient;
use fittingroom_common::proto::operator_service_client::OperatorServiceClient;
use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

use crate::access::{Site, is_training, said};
use crate::trials;

const GRID: &str = "
method: grid
dataset: ./digits
epochs: 1500
parameters:
  hidden_sizes: {value: [64, 64]}
  batch_size: {value: 16}
  learning_rate: {values: [0.01, 0.003, 0.001]}
";
/// The most that the coordinator's memory may grow, in KiB. What the table sends claims gigabytes.
const MOST_GROWTH: u64 = 96 << 10;

/// Memory that a process has in use, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is told");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Sends bytes, and answers whether the other side then ended the connection in time.
fn is_cut(address: &str, bytes: &[u8], patience: Duration) -> bool {
    let mut stream = TcpStream::connect(address).expect("connects");
    // The other side may have had enough before the last byte.
    let _ = stream.write_all(bytes);
    let end = Instant::now() + patience;
    let mut answer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        stream.set_read_timeout(Some(left)).expect("a time");
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

/// Bytes that look like nothing in particular.
fn garbage(count: u32) -> Vec<u8> {
    (0..count).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A TLS 1.2 record that announces a handshake message of 16 MiB.
const CLIENT_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0xff, 0xff, 0xff, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

#[test]
fn whatever_is_no_call_is_cut() {
    let mut plain = Site::new();
    plain.token("operator", "me");
    plain.serve();
    let mut encrypted = Site::new();
    encrypted.certs();
    encrypted.token("operator", "me");
    encrypted.serve();
    let garbage = garbage(100_000);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings_of_another_length =
        [preface.as_slice(), &[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]].concat();
    let frame_of_16_mib = [preface.as_slice(), &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat();
    let quick = Duration::from_secs(5);
    // What says nothing is given ten seconds.
    let slow = Duration::from_secs(14);
    // Who has begun and then answers no ping, 15 and 10.
    let silent = Duration::from_secs(29);
    let begun = [preface.as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let endless = [begun.as_slice(), &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84]].concat();
    std::thread::scope(|scope| {
        let mut rows = Vec::new();
        for site in [&plain, &encrypted] {
            let address = site.url.rsplit('/').next().expect("an address");
            for (row, bytes, patience) in [
                ("garbage", garbage.as_slice(), quick),
                ("zeros", &[0; 100_000], quick),
                ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", quick),
                ("a TLS hello of another kind", CLIENT_HELLO, slow),
                ("settings of another length", &settings_of_another_length, quick),
                ("a frame of 16 MiB", &frame_of_16_mib, quick),
                ("half a preface", &preface[..12], slow),
                ("nothing", b"", slow),
                ("nothing after the beginning", &begun, silent),
                ("a call that never ends", &endless, silent),
            ] {
                let url = &site.url;
                rows.push(scope.spawn(move || assert!(is_cut(address, bytes, patience), "{row} to {url}")));
            }
        }
        for row in rows {
            row.join().expect("is cut");
        }
    });
    for site in [plain, encrypted] {
        let log = site.log("coordinator");
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn channel(url: &str, token: Option<&str>) -> Channel {
    let access = Access { token: token.map(|it| it.parse().expect("a token")), trust: None };
    let endpoint = access.endpoint(&url.parse().expect("a URL")).expect("no TLS");
    access.show(endpoint.connect_lazy())
}

/// Makes a call with this body as it is, and answers its status.
async fn raw(channel: &mut Channel, path: &str, body: &str) -> Status {
    std::future::poll_fn(|context| channel.poll_ready(context)).await.expect("connects");
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body.to_owned()))
        .expect("a request");
    let answer = match channel.call(request).await {
        Ok(answer) => answer,
        Err(error) => return Status::unknown(error.to_string()),
    };
    Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::unknown("no status in the headers"))
}

fn report(worker_id: Vec<u8>, assignment: &pb::Assignment, epoch: u32) -> pb::ReportRequest {
    let score = Some(pb::Score { loss: 1.0, accuracy: 0.5 });
    let report = pb::Report { epoch, train: score, validation: score, seconds: 1.0, ..Default::default() };
    pb::ReportRequest {
        worker_id,
        search: assignment.search,
        attempt: assignment.attempt,
        report: Some(report),
    }
}

async fn registered(url: &str, token: &str, id: u8) -> WorkerServiceClient<Channel> {
    let mut client = WorkerServiceClient::new(channel(url, Some(token)));
    let request = pb::RegisterRequest {
        protocol_version: pb::PROTOCOL_VERSION,
        worker_id: vec![id; 16],
        name: format!("pretender-{id}"),
        slots: 4,
        device: "none".to_owned(),
        program_version: "0".to_owned(),
    };
    client.register(request).await.expect("a good worker");
    client
}

async fn lease(client: &mut WorkerServiceClient<Channel>, id: u8, slot: u32) -> Option<pb::Assignment> {
    let request = pb::LeaseRequest { worker_id: vec![id; 16], slot, wait_ms: 1000 };
    client.lease(request).await.expect("a good call").into_inner().assignment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_touches_only_what_it_holds_and_a_repeated_call_changes_nothing() {
    let mut site = Site::new();
    let operator = site.token("operator", "me");
    let (one, two) = (site.token("worker", "one"), site.token("worker", "two"));
    site.serve();
    site.launch(&operator, "held", GRID);
    let mut a = registered(&site.url, &one, 1).await;
    let mut b = registered(&site.url, &two, 2).await;
    let held_by_b = lease(&mut b, 2, 0).await.expect("there is work");

    for (row, request, code) in [
        ("with its own id", report(vec![1; 16], &held_by_b, 1), Code::FailedPrecondition),
        ("with the other's id", report(vec![2; 16], &held_by_b, 1), Code::PermissionDenied),
        ("with nobody's id", report(vec![9; 16], &held_by_b, 1), Code::FailedPrecondition),
        ("with half an id", report(vec![2; 8], &held_by_b, 1), Code::InvalidArgument),
    ] {
        let refused = a.report(request).await.expect_err(row);
        assert_eq!(refused.code(), code, "{row}: {}", refused.message());
    }
    let released = |worker_id| pb::CompleteRequest {
        worker_id,
        search: held_by_b.search,
        attempt: held_by_b.attempt,
        outcome: Some(pb::complete_request::Outcome::Released(pb::Released {})),
    };
    assert_eq!(
        a.complete(released(vec![1; 16])).await.expect_err("not its own").code(),
        Code::FailedPrecondition
    );
    assert_eq!(
        a.complete(released(vec![2; 16])).await.expect_err("not its own").code(),
        Code::PermissionDenied
    );
    let heartbeat = pb::HeartbeatRequest { worker_id: vec![2; 16], ..Default::default() };
    assert_eq!(a.heartbeat(heartbeat).await.expect_err("not its own").code(), Code::PermissionDenied);
    let stolen = pb::LeaseRequest { worker_id: vec![2; 16], slot: 0, wait_ms: 0 };
    assert_eq!(a.lease(stolen).await.expect_err("not its own").code(), Code::PermissionDenied);

    for _ in 0..3 {
        b.report(report(vec![2; 16], &held_by_b, 1)).await.expect("repeated, and accepted each time");
    }
    let trial = held_by_b.attempt.expect("an attempt").trial.to_string();
    let history = site.json(&operator, &["trial", "held", &trial]);
    assert_eq!(history["attempt_history"][0]["epochs"].as_array().map(Vec::len), Some(1), "{history:#}");
    let gap = b.report(report(vec![2; 16], &held_by_b, 3)).await.expect_err("epoch 2 is missing");
    assert_eq!(gap.code(), Code::OutOfRange);

    let mut artifacts = ArtifactServiceClient::new(channel(&site.url, Some(&one)));
    for (row, hash, code) in [
        ("a path", b"../../../../../etc/passwd".to_vec(), Code::InvalidArgument),
        ("a path as long as a hash", b"../../../../../../../etc/passwd\0".to_vec(), Code::NotFound),
        ("nothing", vec![], Code::InvalidArgument),
        ("slashes", vec![b'/'; 32], Code::NotFound),
    ] {
        let refused = artifacts.download(pb::DownloadRequest { hash }).await.expect_err(row);
        assert_eq!(refused.code(), code, "{row}: {}", refused.message());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_neither_fill_the_coordinator_nor_disturb_a_search() {
    let mut site = Site::new();
    let (operator, viewer) = (site.token("operator", "me"), site.token("viewer", "guest"));
    let (real, bad) = (site.token("worker", "real"), site.token("worker", "bad"));
    let gone = site.token("operator", "gone");
    site.offline(&["token", "revoke", "gone", "--json"]);
    site.serve();
    site.launch(&operator, "undisturbed", GRID);
    let _worker = site.worker(&real, "real");
    site.wait_until(&operator, "undisturbed", is_training);

    // A worker that asks for nothing but trouble.
    let mut pretender = registered(&site.url, &bad, 3).await;
    let before = resident(site.process());
    const LEASE: &str = "/fittingroom.v1.WorkerService/Lease";
    const LIST: &str = "/fittingroom.v1.OperatorService/ListSearches";
    const CONTROL: &str = "/fittingroom.v1.OperatorService/Control";
    // Each of these claims that a message of 2 GiB follows.
    const HUGE: &str = "\0\x7f\x7f\x7f\x7f";
    for (row, path, token, body, code) in [
        ("no token", LIST, None, "", Code::Unauthenticated),
        ("no token, and a claim", LIST, None, HUGE, Code::Unauthenticated),
        ("a revoked token", LIST, Some(&gone), HUGE, Code::Unauthenticated),
        ("a viewer changes something", CONTROL, Some(&viewer), HUGE, Code::PermissionDenied),
        ("a worker lists", LIST, Some(&bad), HUGE, Code::PermissionDenied),
        (
            "a call that is not there",
            "/fittingroom.v1.OperatorService/Shutdown",
            Some(&operator),
            HUGE,
            Code::PermissionDenied,
        ),
        ("a path that is none", "/../etc/passwd", Some(&operator), HUGE, Code::PermissionDenied),
        ("a claim by one who may call", LEASE, Some(&bad), HUGE, Code::OutOfRange),
        ("a claim by an operator", LIST, Some(&operator), HUGE, Code::OutOfRange),
        (
            "a claim of 60 MiB where a launch alone may",
            LIST,
            Some(&operator),
            "\0\x03\x40\0\0",
            Code::OutOfRange,
        ),
        ("compressed, which was not agreed", LEASE, Some(&bad), "\x01\0\0\0\x01x", Code::Internal),
        ("no message at all", LEASE, Some(&bad), "", Code::Internal),
        ("a message of something else", LEASE, Some(&bad), "\0\0\0\0\x03\x7f\x7f\x7f", Code::Internal),
    ] {
        let mut channel = channel(&site.url, token.map(String::as_str));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let mut channel = channel.clone();
                async move { raw(&mut channel, path, body).await }
            })
            .collect();
        for status in futures_util::future::join_all(calls).await {
            assert_eq!(status.code(), code, "{row}: {}", status.message());
        }
        let status = raw(&mut channel, path, body).await;
        assert_eq!(status.code(), code, "{row}, after that: {}", status.message());
    }

    // Thousands of calls at once on one connection: those that are too many are told so.
    for _ in 0..2 {
        let mut polls = tokio::task::JoinSet::new();
        for number in 0..6000_u32 {
            let mut client = pretender.clone();
            let request = pb::LeaseRequest { worker_id: vec![3; 16], slot: number % 5, wait_ms: 0 };
            polls.spawn(async move { client.lease(request).await.map(|_| ()) });
        }
        let mut codes = std::collections::BTreeMap::new();
        while let Some(answered) = polls.join_next().await {
            let answered = answered.expect("no panic");
            let (code, example) = match answered {
                Ok(()) => ("Ok".to_owned(), String::new()),
                Err(status) => (format!("{:?}", status.code()), format!("{status:?}")),
            };
            codes.entry(code).or_insert((0, example)).0 += 1;
        }
        let allowed = ["Ok", "ResourceExhausted", "InvalidArgument"];
        assert!(codes.keys().all(|code| allowed.contains(&code.as_str())), "{codes:?}");
        assert!(
            codes.values().map(|(count, _)| count).sum::<u32>() == 6000 && codes["Ok"].0 > 0,
            "{codes:?}"
        );
    }

    // Thousands of strangers' calls, and streams that nobody reads.
    let strangers = OperatorServiceClient::new(channel(&site.url, None));
    let viewers = OperatorServiceClient::new(channel(&site.url, Some(&viewer)));
    let mut watched = Vec::new();
    for _ in 0..500 {
        let request = pb::WatchLeaderboardRequest { name: "undisturbed".to_owned(), top: 1000 };
        match viewers.clone().watch_leaderboard(request).await {
            Ok(stream) => watched.push(stream),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
    }
    assert!(
        (200..500).contains(&watched.len()),
        "a viewer may watch, but not without end: {}",
        watched.len()
    );
    for _ in 0..5000 {
        let denied = strangers.clone().list_searches(pb::ListSearchesRequest {}).await.expect_err("no token");
        assert_eq!(denied.code(), Code::Unauthenticated);
    }
    let headers = "x".repeat(100_000);
    let mut request = tonic::Request::new(pb::ListSearchesRequest {});
    request.metadata_mut().insert("x-large", headers.parse().expect("ASCII"));
    assert!(strangers.clone().list_searches(request).await.is_err(), "headers of 100 kB");

    let grown = resident(site.process()).saturating_sub(before);
    assert!(grown < MOST_GROWTH, "the coordinator grew by {grown} KiB");
    drop(watched);

    // The pretender gives back what it took by asking. The search has not noticed anything else.
    let draining = pb::HeartbeatRequest { worker_id: vec![3; 16], draining: true, ..Default::default() };
    if let Err(forgotten) = pretender.heartbeat(draining).await {
        // It has been silent for a lease, and holds nothing any more.
        assert_eq!(forgotten.code(), Code::NotFound, "{forgotten:?}");
    }
    let board = site.wait_until(&operator, "undisturbed", |board| board["state"] == "COMPLETE");
    for trial in trials(&board) {
        assert_eq!((&trial["state"], &trial["worker"]), (&"COMPLETE".into(), &"real".into()), "{board:#}");
    }
    assert!(!site.log("coordinator").contains("panicked"), "{}", site.log("coordinator"));
    assert!(
        site.call(Some(&operator), &["list"]).status.success(),
        "{}",
        said(&site.call(Some(&operator), &["list"]))
    );
}
