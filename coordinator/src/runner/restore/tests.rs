//! Logs of released versions, and logs with damaged snapshots.

use std::path::{Path, PathBuf};

use fittingroom_common::id::TrialId;
use fittingroom_common::view::{SearchState, TrialRow};
use rusqlite::Connection;

use super::*;
use crate::log::{Append, SqliteLog};

const LEASE: Duration = Duration::from_secs(30);

/// A search in a released log: name, state, events, trials, complete and failed ones, and the best one's
/// validation accuracy.
type Left = (&'static str, SearchState, u64, usize, u64, u64, Option<f64>);

/// What the log holds that version 0.1.0 left before it knew of snapshots.
const LEFT: [Left; 5] = [
    ("grid", SearchState::Complete, 40, 6, 6, 0, Some(1.0)),
    ("random", SearchState::Complete, 29, 5, 5, 0, Some(1.0)),
    ("points", SearchState::Complete, 68, 2, 2, 0, Some(1.0)),
    ("long", SearchState::Paused, 626, 3, 0, 2, None),
    ("cancelled", SearchState::Cancelled, 2, 0, 0, 0, None),
];

/// A copy of a released version's log.
fn released(folder: &Path) -> PathBuf {
    let path = folder.join("log.sqlite");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-0.1.0.sqlite");
    std::fs::copy(fixture, &path).expect("copies");
    path
}

fn rows(search: &Search) -> Vec<TrialRow> {
    search.ranked().chain(search.unranked()).collect()
}

async fn loaded(log: &SqliteLog, id: SearchId) -> Loaded {
    load(log, id, LEASE).await.expect("reads").expect("begins with its creation")
}

/// Loads every search, and keeps a snapshot of each.
async fn snapshot_all(log: &SqliteLog) {
    for listed in log.searches().await.expect("reads") {
        let mut search = loaded(log, listed.id).await.search;
        let snapshot = Some(Box::new(search.take_snapshot(usize::MAX)));
        let append =
            Append { search: listed.id, expected_version: search.version(), events: Vec::new(), snapshot };
        log.append(append).await.expect("keeps");
    }
}

#[tokio::test]
async fn the_log_of_a_released_version_is_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let log = SqliteLog::open(&released(folder.path())).expect("opens");
    let mut found = Vec::new();
    for listed in log.searches().await.expect("reads") {
        let Loaded { search, snapshot } = loaded(&log, listed.id).await;
        assert_eq!(snapshot, 0, "there was none");
        let summary = search.summary();
        let best = summary.best.and_then(|row| row.report).map(|report| report.validation.accuracy.get());
        let (complete, failed) = (summary.counts.complete, summary.counts.failed);
        found.push((
            listed.name,
            search.state(),
            search.version(),
            rows(&search).len(),
            complete,
            failed,
            best,
        ));
    }
    let found: Vec<_> = found.iter().map(|it| (it.0.as_str(), it.1, it.2, it.3, it.4, it.5, it.6)).collect();
    assert_eq!(found, LEFT);
}

#[tokio::test]
async fn a_damaged_snapshot_costs_a_replay_and_nothing_else() {
    for (name, damage, is_used) in [
        ("none", "SELECT 1", true),
        ("a bit of a head", "UPDATE snapshots SET payload = CAST(payload || x'00' AS BLOB)", false),
        ("a head's checksum", "UPDATE snapshots SET checksum = checksum + 1", false),
        ("no head", "DELETE FROM snapshots", false),
        (
            "another search's trials",
            "DELETE FROM snapshot_trials WHERE search = 3;
             UPDATE snapshot_trials SET search = 3 WHERE search = 1 AND trial < 2",
            false,
        ),
        ("a trial's bytes", "UPDATE snapshot_trials SET payload = zeroblob(40) WHERE trial = 1", false),
        ("a trial in the middle missing", "DELETE FROM snapshot_trials WHERE trial = 0", false),
        ("the last trial missing", "DELETE FROM snapshot_trials WHERE trial = 1", false),
    ] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = released(folder.path());
        let log = SqliteLog::open(&path).expect("opens");
        let search = SearchId::new(3);
        let replayed = loaded(&log, search).await.search;
        snapshot_all(&log).await;
        Connection::open(&path).and_then(|it| it.execute_batch(damage)).expect(name);
        let Loaded { search, snapshot } = loaded(&log, search).await;
        assert_eq!(snapshot, if is_used { replayed.version() } else { 0 }, "{name}");
        assert_eq!(search.summary(), replayed.summary(), "{name}");
        assert_eq!(rows(&search), rows(&replayed), "{name}");
        let origins = |it: &Search| [0, 1].map(|trial| it.origin(TrialId::new(trial)));
        assert_eq!(origins(&search), origins(&replayed), "{name}");
    }
}

#[tokio::test]
async fn events_after_a_snapshot_are_part_of_the_search() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let log = SqliteLog::open(&released(folder.path())).expect("opens");
    snapshot_all(&log).await;
    let long = SearchId::new(4);
    let mut search = loaded(&log, long).await.search;
    let (expected_version, now) = (search.version(), fittingroom_common::time::Timestamp::from_millis(1));
    let events = search.handle(crate::search::Command::Cancel, now).expect("is paused");
    log.append(Append { search: long, expected_version, events, snapshot: None }).await.expect("appends");
    let again = loaded(&log, long).await;
    assert_eq!((again.snapshot, again.search.version()), (expected_version, expected_version + 1));
    assert_eq!(again.search.summary(), search.summary());
    assert_eq!(again.search.state(), SearchState::Cancelled);
}
