//! The port at which metrics are read, with real sockets; and what events are counted as.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fittingroom_common::id::{Attempt, AttemptNumber, TrialId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::Failure;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::{CertificateFolder, Existing, Keys, Role, Tls, TokenFile};

/// Serves a page of one word behind a door, and answers its address.
async fn served(door: Door) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener, door, || Ok("metrics".to_owned()), CancellationToken::new()));
    address
}

/// The first line of the answer to a request with this header, and whether it has the page.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, header: &str) -> (String, bool) {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("one request a connection");
    (answer.lines().next().unwrap_or_default().to_owned(), answer.ends_with("metrics"))
}

#[tokio::test]
async fn beyond_loopback_the_page_is_encrypted_and_shown_to_those_who_may_look() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let certificates = CertificateFolder::in_data(folder.path());
    certificates.issue(&["node-1".to_owned()], Existing::Renew, SystemTime::now()).expect("issues");
    let tls = Tls::load(certificates.server_files().expect("issued")).expect("loads");
    let tokens = TokenFile::in_data(folder.path());
    let token = |role| tokens.create(role, None, Timestamp::from_millis(0)).expect("creates").1;
    let [viewer, worker] = [Role::Viewer, Role::Worker].map(token);
    let keys = Arc::new(Keys::default());
    keys.replace(tokens.read().expect("reads"));
    let address = served(Door::Guarded { tls: Some(Arc::new(tls)), keys }).await;

    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder.path().join("certs/ca.pem")).expect("reads");
    roots.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // As Prometheus does.
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(client));
    let bearer =
        |token: &fittingroom_common::access::Token| format!("Authorization: Bearer {}\r\n", token.reveal());
    for (row, header, expected) in [
        ("a viewer", bearer(&viewer), "HTTP/1.1 200 OK"),
        ("a worker", bearer(&worker), "HTTP/1.1 403 Forbidden"),
        ("nobody", String::new(), "HTTP/1.1 401 Unauthorized"),
        ("a stranger", "Authorization: Bearer x\r\n".to_owned(), "HTTP/1.1 401 Unauthorized"),
    ] {
        let stream = TcpStream::connect(address).await.expect("connects");
        let name = ServerName::try_from("node-1").expect("a name");
        let stream = connector.connect(name, stream).await.expect("speaks TLS");
        assert_eq!(ask(stream, &header).await, (expected.to_owned(), expected.contains("200")), "{row}");
    }
    let mut plain = TcpStream::connect(address).await.expect("connects");
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("asks");
    let mut answer = Vec::new();
    // It may be reset.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.ends_with(b"metrics"), "nothing is told unencrypted");
}

#[tokio::test]
async fn too_many_connections_are_closed_and_the_port_goes_on() {
    let address = served(Door::Open).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.expect("connects"));
    }
    let mut closed = 0;
    for stream in &mut silent {
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 1])).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(closed, 40 - 32, "the rest may still say what they want");
    drop(silent);
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while !ask(TcpStream::connect(address).await.expect("connects"), "").await.1 {
        assert!(tokio::time::Instant::now() < end, "nobody is let in any more");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn events_are_counted_by_what_they_are() {
    let attempt = Attempt { trial: TrialId::new(0), number: AttemptNumber::FIRST };
    let failure = Failure::new(FailureReason::OutOfMemory, "");
    let facts = [
        Fact::TrialCompleted { attempt, model: None },
        Fact::AttemptFailed { attempt, failure: failure.clone() },
        Fact::TrialFailed { trial: attempt.trial, failure },
        Fact::SearchPaused,
    ];
    let events = facts.map(|fact| Event { at: Timestamp::from_millis(0), fact });
    let metrics = Metrics::new(["/a.B/C"]);
    metrics.appended(0.002, &Appended::count(&events));
    metrics.append_failed();
    metrics.called("/a.B/C");
    metrics.call_refused(RefusedCall::PermissionDenied);
    metrics.connection_refused(RefusedConnection::NoTls);
    let connected = metrics.connected();
    let mut text = String::new();
    encode_registry(&mut text, &metrics.counted()).expect("writes");
    for line in [
        "# TYPE fittingroom_attempts_failed counter",
        "fittingroom_attempts_failed_total{reason=\"out_of_memory\"} 1",
        "fittingroom_attempts_failed_total{reason=\"worker_lost\"} 0",
        "fittingroom_trials_ended_total{state=\"COMPLETE\"} 1",
        "fittingroom_trials_ended_total{state=\"FAILED\"} 1",
        "fittingroom_log_append_events_sum 4.0",
        "fittingroom_log_append_seconds_bucket{le=\"0.001\"} 0",
        "fittingroom_log_append_seconds_bucket{le=\"0.0025\"} 1",
        "fittingroom_log_appends_failed_total 1",
        "fittingroom_calls_total{method=\"/a.B/C\"} 1",
        "fittingroom_calls_refused_total{reason=\"permission_denied\"} 1",
        "fittingroom_connections_refused_total{reason=\"no_tls\"} 1",
        "fittingroom_connections 1",
    ] {
        assert!(text.lines().any(|it| it == line), "no {line:?} in\n{text}");
    }
    drop(connected);
    text.clear();
    encode_registry(&mut text, &metrics.counted()).expect("writes");
    assert!(text.contains("\nfittingroom_connections 0\n"), "{text}");
}
