//! Kills of a coordinator that is keeping a snapshot in the middle of a search.

use std::time::{Duration, Instant};

use fittingroom_common::proto as pb;
use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Cluster, PATIENCE};
use crate::idler;
use crate::input::write_small_dataset;
use crate::moments::{held_if, is_log};
use crate::syncs::Syncs;

/// After how many events a coordinator keeps one.
const SNAPSHOT_EVERY: u64 = 16_384;
/// At once, so that many reports make one commit.
const TRIALS: u64 = 16;
const SEARCH: &str = "
method: grid
dataset: ./my-digits
epochs: 2000
parameters:
  learning_rate: {values: [1e-1, 2e-1, 3e-1, 4e-1, 1e-2, 2e-2, 3e-2, 4e-2, 1e-3, 2e-3, 3e-3, 4e-3, 1e-4, 2e-4, 3e-4, 4e-4]}
";

/// What is reported of an epoch: of each another number.
fn loss(trial: u64, epoch: u32) -> f64 {
    trial as f64 + 1.0 / f64::from(epoch)
}

/// Reports an epoch until that is acknowledged.
async fn report(mut calls: WorkerServiceClient<Channel>, holder: pb::AttemptHolder, epoch: u32) {
    let pb::AttemptHolder { worker_id, search, attempt } = holder;
    let score = Some(pb::Score { loss: loss(attempt.expect("held").trial, epoch), accuracy: 0.5 });
    let (seconds, images_per_second) = (f64::from(epoch), 1_000.0);
    let report =
        pb::Report { epoch, train: score, validation: score, test: None, seconds, images_per_second };
    let request = pb::ReportRequest { worker_id, search, attempt, report: Some(report) };
    let end = Instant::now() + PATIENCE;
    while let Err(status) = calls.report(request.clone()).await {
        assert!(Instant::now() < end, "epoch {epoch} is never acknowledged: {status}");
        let is_passing = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
        assert!(is_passing.contains(&status.code()), "epoch {epoch}: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many events the search had at the coordinator's last start, and how many of them a snapshot stood for.
fn loaded(cluster: &Cluster) -> [u64; 2] {
    let log = cluster.log("coordinator");
    let line = log.lines().rfind(|line| line.contains("search loaded")).expect("it was started again");
    ["events=", "snapshot="].map(|name| {
        let (_, number) = line.split_once(name).expect("a field");
        number.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_while_it_keeps_a_snapshot_goes_on_from_it_and_has_every_epoch() {
    let Some(syncs) = Syncs::new() else { return };
    let mut cluster = Cluster::asking(&syncs, &["--lease-seconds", "600"]);
    cluster.serve();
    write_small_dataset(&cluster.folder.path().join("my-digits"), 12, 9, 4);
    cluster.launch("long", SEARCH);
    let (calls, held) = idler::hold(&cluster.url, TRIALS as u32).await;

    // Nearly a snapshot's worth of epochs: the creation and the trials' plans and attempts are events too.
    let epochs = ((SNAPSHOT_EVERY - 1) / TRIALS - 4) as u32;
    let report_all = |holder: &pb::AttemptHolder| {
        let (calls, holder) = (calls.clone(), holder.clone());
        async move {
            for epoch in 1..=epochs {
                report(calls.clone(), holder.clone(), epoch).await;
            }
        }
    };
    held.iter().map(report_all).collect::<JoinSet<()>>().join_all().await;
    cluster.kill_coordinator();
    cluster.serve();
    let [events, snapshot] = loaded(&cluster);
    assert!((SNAPSHOT_EVERY - 3 * TRIALS..SNAPSHOT_EVERY).contains(&events), "{events} events");
    assert_eq!(snapshot, 0, "too early");

    let mut reported = vec![epochs; held.len()];
    let mut next = (0..held.len()).cycle();
    let mut report_one_more = || {
        let trial = next.next().expect("endless");
        reported[trial] += 1;
        tokio::spawn(report(calls.clone(), held[trial].clone(), reported[trial]))
    };
    for _ in events..SNAPSHOT_EVERY - 3 {
        report_one_more().await.expect("acknowledged");
    }
    // The coordinator is killed while each of these is written, and before anybody is told. The last keeps the snapshot.
    for number in SNAPSHOT_EVERY - 2..=SNAPSHOT_EVERY {
        syncs.judge(held_if(is_log));
        let reporting = report_one_more();
        assert!(syncs.wait_for_held(PATIENCE).is_some(), "nothing is written");
        cluster.kill_coordinator();
        syncs.pass();
        cluster.serve();
        let [events, snapshot] = loaded(&cluster);
        // A log that is begun anew syncs its head before there is an event in it.
        assert!(events == number || events == number - 1, "{events} events instead of {number}");
        assert_eq!(snapshot, if events < SNAPSHOT_EVERY { 0 } else { SNAPSHOT_EVERY });
        reporting.await.expect("acknowledged in the end");
    }
    report_one_more().await.expect("acknowledged");
    cluster.kill_coordinator();
    cluster.serve();
    assert_eq!(loaded(&cluster), [SNAPSHOT_EVERY + 1, SNAPSHOT_EVERY]);

    for (trial, count) in reported.into_iter().enumerate() {
        let history = cluster.json(&["trial", "long", &trial.to_string()]);
        let losses = history["attempt_history"][0]["epochs"].as_array().expect("a list").iter();
        let losses: Vec<Option<f64>> = losses.map(|epoch| epoch["validation_loss"].as_f64()).collect();
        let expected: Vec<Option<f64>> = (1..=count).map(|epoch| Some(loss(trial as u64, epoch))).collect();
        assert_eq!(losses, expected, "trial {trial}");
    }
    cluster.succeed(&["cancel", "long"]);
    cluster.check();
}
