//! Checkpoints between a trainer and the coordinator.

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace, CheckpointRule};
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::work::{Outcome, Work};

use crate::coordinator::Reports;
use crate::{Stage, assignment, training};

/// A stage with a trial that makes checkpoints, and is to go on from these, the newest first.
fn stage(resume_from: &[Checkpoint]) -> Stage {
    let stage = Stage::new();
    let mut work = training();
    if let Work::Train { checkpoint, resume_from: from, .. } = &mut work {
        *checkpoint = CheckpointRule::default();
        *from = resume_from.to_vec();
    }
    stage.coordinator.state().work.push_back(assignment(0, work));
    stage
}

/// The checkpoint that the trainer of these tests would make.
fn checkpoint(epoch: u32, step: u32) -> Checkpoint {
    let hash = ArtifactHash::of(bytes(epoch, step).as_bytes());
    Checkpoint { place: CheckpointPlace { epoch, step }, hash }
}

fn bytes(epoch: u32, step: u32) -> String {
    format!("state {epoch}.{step}")
}

fn at(story: &[String], what: &str) -> usize {
    story.iter().position(|it| it == what).unwrap_or_else(|| panic!("no {what:?} in {story:?}"))
}

#[tokio::test]
async fn a_checkpoint_is_stored_before_it_is_named_and_named_after_its_epochs() {
    let stage = stage(&[]);
    // The reports need some tries, the upload does not.
    stage.coordinator.state().reports = Reports::Fail(4);
    let gate = stage.folder.path().join("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    let agent = stage.start(&format!("epoch 1; checkpoint 1 5; {wait}; epoch 2; epoch 3; model")).await;
    let kept = || stage.story(0).contains(&"kept 1.5".to_owned()).then_some(());
    stage.coordinator.wait("a checkpoint", |_| Some(())).await;
    while kept().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    std::fs::write(gate, "").expect("writable");
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    let story = stage.story(0);
    assert!(at(&story, "stored state 1.5") < at(&story, "kept 1.5"), "{story:?}");
    assert!(at(&story, "epoch 1") < at(&story, "kept 1.5"), "{story:?}");
    let rest: Vec<_> = story.iter().filter(|it| it.starts_with("epoch") || *it == "trained").collect();
    assert_eq!(rest, ["epoch 1", "epoch 2", "epoch 3", "trained"]);
}

#[tokio::test]
async fn training_goes_on_from_the_newest_checkpoint_that_can_be_used() {
    // The trainer of these tests takes what begins with "state", and says where it begins.
    const TRAIN: &str = r#"
        case $state in
        "state 2."*) epoch 3; model ;;
        "state 1."*) epoch 2; epoch 3; model ;;
        "") epochs; model ;;
        *) refuse ;;
        esac"#;
    let [newer, older] = [checkpoint(2, 9), checkpoint(1, 4)];
    let refused = Checkpoint { hash: ArtifactHash::of(b"nonsense"), ..newer };
    let there = |it: Checkpoint, bytes: String| Some((it.hash, bytes.into_bytes()));
    for (name, from, stored, told) in [
        ("the newest", [newer, older], [there(newer, bytes(2, 9)), None], &["epoch 3"][..]),
        (
            "the newest is missing",
            [newer, older],
            [None, there(older, bytes(1, 4))],
            &["lost: artifact", "epoch 2", "epoch 3"],
        ),
        (
            "the newest is damaged",
            [newer, older],
            [there(newer, "other bytes".to_owned()), there(older, bytes(1, 4))],
            &["lost: artifact", "epoch 2", "epoch 3"],
        ),
        (
            "the trainer refuses the newest",
            [refused, older],
            [there(refused, "nonsense".to_owned()), there(older, bytes(1, 4))],
            &["lost: not a state", "epoch 2", "epoch 3"],
        ),
        (
            "neither can be used",
            [refused, older],
            [there(refused, "nonsense".to_owned()), None],
            &["lost: not a state", "lost: artifact", "epoch 1", "epoch 2", "epoch 3"],
        ),
    ] {
        let stage = stage(&from);
        stage.coordinator.state().artifacts.extend(stored.into_iter().flatten());
        let agent = stage.start(TRAIN).await;
        let outcome = stage.coordinator.outcome(0).await;
        stage.end(agent).await;
        let story = stage.story(0);
        assert_eq!(outcome, Outcome::Trained { model: None }, "{name}: {story:?}");
        let told = [told, &["trained"]].concat();
        assert_eq!(story.len(), told.len(), "{name}: {story:?}");
        assert!(story.iter().zip(told).all(|(it, begins)| it.starts_with(begins)), "{name}: {story:?}");
    }
}

#[tokio::test]
async fn an_agent_that_ends_brings_a_last_checkpoint_before_it_gives_its_trial_back() {
    let stage = stage(&[]);
    let agent = stage.start("epoch 1").await;
    stage.progress(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), ["epoch 1", "stored state 1.7", "kept 1.7", "released"]);
}

#[tokio::test]
async fn what_a_trainer_wrote_before_it_was_killed_is_kept() {
    let stage = stage(&[]);
    let agent = stage.start("epoch 1; checkpoint 1 5; kill -9 $$").await;
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    let mut story = stage.story(0);
    assert_eq!(story.pop().as_deref(), Some("failed: trainer_crashed"));
    assert!(at(&story, "epoch 1") < at(&story, "kept 1.5"), "{story:?}");
}

#[tokio::test]
async fn only_the_newest_of_the_checkpoints_that_wait_is_brought_and_none_stays_on_the_disk() {
    let stage = stage(&[]);
    let many: String = (1..=50).map(|step| format!("checkpoint 1 {step}; ")).collect();
    let agent = stage.start(&format!("epoch 1; {many} kill -9 $$")).await;
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    let kept: Vec<_> = stage.story(0).into_iter().filter(|it| it.starts_with("kept")).collect();
    assert_eq!(kept.last().map(String::as_str), Some("kept 1.50"));
    assert!(kept.len() < 50, "each was brought: {kept:?}");
    let training = std::fs::read_dir(stage.folder.path().join("cache/training")).expect("there");
    assert_eq!(training.count(), 0);
}
