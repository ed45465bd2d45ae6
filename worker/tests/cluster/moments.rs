//! Kills at the moments that random ones hardly hit: between what is written and what is acknowledged.

use std::path::Path;
use std::time::Duration;

use fittingroom_common::id::ArtifactHash;
use fittingroom_common::proto as pb;
use fittingroom_common::proto::artifact_service_client::ArtifactServiceClient;

use crate::faults::must_find_the_same;
use crate::harness::{Cluster, PATIENCE, trials};
use crate::resume::{
    check, of_one_trial, stored_checkpoints, undisturbed, wait_for_checkpoints, wait_for_epoch,
};
use crate::syncs::{Syncs, Verdict};
use crate::{digits, idler};

const LEASES: [&str; 2] = ["--lease-seconds", "2"];

pub(crate) fn held_if(
    is_meant: impl Fn(&str) -> bool + Send + 'static,
) -> impl Fn(&Path) -> Verdict + Send + 'static {
    move |path| if is_meant(&path.to_string_lossy()) { Verdict::Hold } else { Verdict::Pass }
}

pub(crate) fn is_log(path: &str) -> bool {
    path.ends_with("log.sqlite-wal")
}

fn is_checkpoint(path: &str) -> bool {
    path.contains("/checkpoints/")
}

#[test]
fn a_coordinator_killed_at_each_commit_of_a_searchs_end_finds_the_same() {
    let Some(syncs) = Syncs::new() else { return };
    // So long that none ends while its worker waits to try again what nobody answered.
    let mut cluster = Cluster::asking(&syncs, &["--lease-seconds", "6"]);
    cluster.serve();
    let worker = cluster.worker("one");
    digits::launch(&cluster, "end");
    cluster.wait_until("end", "near its end", |board| {
        let is_there = |trial: &&serde_json::Value| {
            trial["state"] == "COMPLETE" || trial["epoch"].as_u64() >= Some(digits::EPOCHS - 40)
        };
        trials(board).iter().filter(is_there).count() == digits::TRIALS
    });
    // The last epochs, the outcome with its model, the evaluation, the end with its snapshot: what each writes is
    // there, and nobody is told.
    let mut kills = 0;
    syncs.judge(held_if(is_log));
    while syncs.wait_for_held(Duration::from_secs(3)).is_some() {
        kills += 1;
        cluster.kill_coordinator();
        // A start syncs what is there.
        syncs.pass();
        cluster.serve();
        syncs.judge(held_if(is_log));
    }
    syncs.pass();
    assert!(kills >= 4, "{kills} commits were interrupted");
    let board = must_find_the_same(&cluster, "end");
    for trial in trials(&board) {
        let history = cluster.json(&["trial", "end", &trial["trial"].to_string()]);
        assert_eq!(trial["attempts"], 1, "{:#}", history["attempt_history"]);
    }
    assert!(trials(&board)[0]["test_accuracy"].is_number(), "{board:#}");
    drop(worker);
    cluster.check();
}

#[test]
fn what_is_killed_while_a_checkpoint_is_uploaded_goes_on_from_one_to_the_same_bits() {
    let Some(syncs) = Syncs::new() else { return };
    let (mut cluster, trial) = of_one_trial(Cluster::asking(&syncs, &LEASES));
    let mut worker = cluster.worker("one");
    let undisturbed = undisturbed(&cluster, &trial);
    for victim in ["agent", "coordinator", "everything"] {
        cluster.launch(victim, &trial);
        wait_for_epoch(&cluster, victim, 40);
        syncs.judge(held_if(is_checkpoint));
        let held = syncs.wait_for_held(PATIENCE);
        assert!(held.is_some(), "{victim}: no checkpoint is uploaded");
        let [kills_worker, kills_coordinator] = match victim {
            "agent" => [true, false],
            "coordinator" => [false, true],
            _ => [true, true],
        };
        if kills_worker {
            worker.kill();
            worker = cluster.worker("one");
        }
        if kills_coordinator {
            cluster.kill_coordinator();
        }
        syncs.pass();
        if kills_coordinator {
            cluster.serve();
        }
        let attempts = check(&cluster, victim, &undisturbed);
        assert_eq!(attempts.len(), 1 + usize::from(kills_worker), "{victim}: {attempts:#?}");
        if kills_worker {
            assert!(attempts[1]["continued_from_epoch"].as_u64() >= Some(10), "{victim}: {attempts:#?}");
        }
    }
    drop(worker);
    cluster.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_whose_worker_left_during_the_upload_is_known_and_goes_with_its_trial() {
    let Some(syncs) = Syncs::new() else { return };
    let mut cluster = Cluster::asking(&syncs, &["--lease-seconds", "60"]);
    cluster.serve();
    digits::launch(&cluster, "late");
    let holder = idler::hold(&cluster.url, 1).await.1.pop();
    let mut transfers = ArtifactServiceClient::connect(cluster.url.clone()).await.expect("connects");
    syncs.judge(held_if(is_checkpoint));
    let state = b"a checkpoint that is whole".to_vec();
    let hash = ArtifactHash::of(&state).to_string();
    let chunk = pb::CheckpointChunk { holder, data: state.into() };
    let upload = tokio::spawn(async move { transfers.upload_checkpoint(tokio_stream::once(chunk)).await });
    assert!(syncs.wait_for_held(PATIENCE).is_some(), "it is being stored");
    // All of it is there, and nobody waits for the answer any more.
    upload.abort();
    tokio::time::sleep(Duration::from_millis(500)).await;
    syncs.pass();
    let is_whole = |path: &Path| path.to_string_lossy().ends_with(&hash);
    wait_for_checkpoints(&cluster, "it is stored", |_| {
        stored_checkpoints(&cluster).iter().any(|path| is_whole(path))
    });
    // Its trial holds on to it until then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.succeed(&["cancel", "late"]);
    wait_for_checkpoints(&cluster, "it goes with its trial", |count| count == 0);
    cluster.check();
}
