//! Frames of HTTP/2 by the thousand, each of them well formed: the connection bears them or is cut, the
//! coordinator's memory stays as it is, and those who mean well notice nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::access::{Site, said};

use super::{MOST_GROWTH, resident};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a flood is poured, and how long it is waited for that the connection is cut.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long that may take where it must be.
const CUT_WITHIN: Duration = Duration::from_secs(30);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_OF_HEADERS: u8 = 4;
/// `POST /` over HTTP, from the static table.
const A_CALL: &[u8] = &[0x83, 0x86, 0x84];

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Cut,
    /// Cut or borne, as the coordinator likes.
    Any,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Pours bytes into a connection without reading what comes back, then answers whether it was cut.
fn pour(address: &str, bytes: &[u8], patience: Duration) -> bool {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time");
    // It may be cut before the last byte, or take no more until somebody reads.
    let _ = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), bytes].concat());
    let end = Instant::now() + patience;
    let mut answer = vec![0; 1 << 16];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        stream.set_read_timeout(Some(left)).expect("a time");
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
    false
}

#[test]
fn floods_of_frames_are_borne_or_cut_and_fill_nothing() {
    let mut site = Site::new();
    let operator = site.token("operator", "me");
    site.serve();
    let before = resident(site.process());
    let opened = |count: u32| {
        let call = |number| frame(HEADERS, END_OF_HEADERS, 2 * number + 1, A_CALL);
        (0..count).map(call).collect::<Vec<_>>().concat()
    };
    let given_up = |count: u32| {
        let reset = |number| {
            let stream = 2 * number + 1;
            [frame(HEADERS, END_OF_HEADERS, stream, A_CALL), frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
        };
        (0..count).map(reset).collect::<Vec<_>>().concat()
    };
    let continued =
        [frame(HEADERS, 0, 1, A_CALL), frame(CONTINUATION, 0, 1, &[0; 16_000]).repeat(200)].concat();
    let small = [opened(1), frame(DATA, 0, 1, &[0]).repeat(100_000)].concat();
    let nothing = [opened(1), frame(DATA, 0, 1, &[]).repeat(100_000)].concat();
    let rows: Vec<(&str, Vec<u8>, End)> = vec![
        ("pings whose answers nobody reads", frame(PING, 0, 0, &[0; 8]).repeat(200_000), End::Any),
        ("settings again and again", frame(SETTINGS, 0, 0, &[]).repeat(200_000), End::Any),
        ("calls whose answers nobody reads", opened(50_000), End::Any),
        ("calls given up at once", given_up(50_000), End::Any),
        ("headers without end", continued, End::Cut),
        ("bytes one by one", small, End::Any),
        ("frames of nothing", nothing, End::Any),
        ("a window of more than there is", frame(WINDOW_UPDATE, 0, 0, &[0x7f; 4]).repeat(2), End::Cut),
        ("a stream that a server opens", frame(HEADERS, END_OF_HEADERS, 2, A_CALL), End::Cut),
        ("data of no call", frame(DATA, 0, 9, &[1; 100]), End::Cut),
    ];
    let address = site.url.rsplit('/').next().expect("an address");
    std::thread::scope(|scope| {
        for (row, bytes, expected) in &rows {
            scope.spawn(move || {
                let must_be_cut = *expected == End::Cut;
                let is_cut = pour(address, bytes, if must_be_cut { CUT_WITHIN } else { PATIENCE });
                assert!(is_cut || !must_be_cut, "{row} is borne");
            });
        }
        for _ in 0..5 {
            std::thread::sleep(PATIENCE / 5);
            let grown = resident(site.process()).saturating_sub(before);
            assert!(grown < MOST_GROWTH, "the coordinator grew by {grown} KiB");
            let listed = site.call(Some(&operator), &["list"]);
            assert!(listed.status.success(), "{}", said(&listed));
        }
    });
    let grown = resident(site.process()).saturating_sub(before);
    assert!(grown < MOST_GROWTH, "the coordinator grew by {grown} KiB");
    assert!(site.call(Some(&operator), &["list"]).status.success(), "{}", site.log("coordinator"));
    assert!(!site.log("coordinator").contains("panicked"), "{}", site.log("coordinator"));
}
