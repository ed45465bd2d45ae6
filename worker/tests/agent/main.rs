//! The agent against a coordinator on loopback, with a trainer that is a few lines of shell; in
//! [`program`], with the real trainer.
#![cfg(unix)]

mod absence;
mod checkpoints;
mod coordinator;
mod datasets;
mod gpus;
mod program;
mod stage;

use std::time::Duration;

use coordinator::Reports;
use fittingroom_common::hyperparameter::Value;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::trial::FailureReason;
use fittingroom_common::work::{Outcome, Work};
use fittingroom_worker::agent::Device;
use stage::{EPOCHS, FILES, GOOD, MODEL, Stage, assignment, training, training_for, training_with};

const WELL_TRAINED: [&str; 4] = ["epoch 1", "epoch 2", "epoch 3", "trained"];

#[tokio::test]
async fn trials_are_trained_one_after_the_other_by_the_same_trainer() {
    let stage = Stage::new().with_trials(2);
    let agent = stage.start(GOOD).await;
    stage.coordinator.outcome(0).await;
    stage.coordinator.outcome(1).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
    assert_eq!(stage.story(1), WELL_TRAINED);
    assert_eq!(stage.trials_of_trainer(1), Some(2.0));
    let registration = &stage.registrations()[0];
    assert_eq!((registration.name.as_str(), registration.slots), ("test-worker", 1));
    assert_eq!(stage.coordinator.state().downloads, FILES.map(ArtifactHash::of));
}

#[tokio::test]
async fn a_model_that_is_asked_for_is_uploaded_before_the_trial_is_completed() {
    let stage = Stage::new().with_trials(1);
    stage.coordinator.state().keep_models = true;
    let agent = stage.start(GOOD).await;
    let outcome = stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    let model = Some(ArtifactHash::of(MODEL.as_bytes()));
    assert_eq!(outcome, Outcome::Trained { model });
    assert_eq!(stage.story(0), ["epoch 1", "epoch 2", "epoch 3", "upload weights", "trained, model kept"]);
}

#[tokio::test]
async fn a_trial_may_end_early_once_its_patience_can_be_used_up() {
    for (name, train, told) in [
        (
            "patience used up",
            "epoch 1; epoch 2; model",
            &["epoch 1", "epoch 2", "upload weights", "trained, model kept"][..],
        ),
        ("too early", "epoch 1; model", &["epoch 1", "failed: trainer_crashed"]),
    ] {
        let stage = Stage::new();
        let settings = [("epochs", Value::Integer(EPOCHS)), ("early_stopping_patience", Value::Integer(1))];
        {
            let mut state = stage.coordinator.state();
            state.keep_models = true;
            state.work.push_back(assignment(0, training_with(&settings)));
        }
        let agent = stage.start(train).await;
        stage.coordinator.outcome(0).await;
        stage.end(agent).await;
        assert_eq!(stage.story(0), told, "{name}");
    }
}

#[tokio::test]
async fn a_model_is_evaluated_on_the_test_set() {
    let stage = Stage::new();
    let model = ArtifactHash::of(MODEL.as_bytes());
    {
        let mut state = stage.coordinator.state();
        state.artifacts.insert(model, MODEL.into());
        state.work.push_back(assignment(4, Work::Evaluate { model }));
    }
    let agent = stage.start(GOOD).await;
    let Outcome::Evaluated(score) = stage.coordinator.outcome(4).await else {
        panic!("not evaluated: {:?}", stage.story(4));
    };
    stage.end(agent).await;
    // The trainer of these tests tells the model's size as its accuracy.
    assert_eq!((score.loss.get(), score.accuracy.get()), (0.3, 0.7));
}

#[tokio::test]
async fn reports_are_repeated_in_order_until_they_are_answered() {
    let stage = Stage::new().with_trials(1);
    stage.coordinator.state().reports = Reports::Fail(4);
    let agent = stage.start(GOOD).await;
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
}

#[tokio::test]
async fn a_trial_that_is_no_longer_ours_is_dropped_and_the_trainer_kept() {
    for (how, reports, told) in
        [("superseded", Reports::Supersede, vec![]), ("told to drop it", Reports::Drop, vec!["epoch 1"])]
    {
        let stage = Stage::new().with_trials(2);
        stage.coordinator.state().reports = reports;
        let train = "if [ $trials = 1 ]; then epoch 1; else epochs; model; fi";
        let agent = stage.start(train).await;
        stage.coordinator.outcome(1).await;
        stage.end(agent).await;
        assert_eq!(stage.story(0), told, "{how}");
        assert_eq!(stage.story(1), WELL_TRAINED, "{how}");
        assert_eq!(stage.trials_of_trainer(1), Some(2.0), "{how}: another trainer");
    }
}

#[tokio::test]
async fn a_heartbeat_answered_with_drop_ends_the_run() {
    for (how, first_trial, trials_of_trainer) in [
        ("a trainer that stops when told", "epoch 1", 2.0),
        ("a trainer that must be killed", "epoch 1; while :; do sleep 0.1; done", 1.0),
    ] {
        let stage = Stage::new().with_trials(1);
        let train = format!("case $id in 1/0*) {first_trial} ;; *) epochs; model ;; esac");
        let agent = stage.start(&train).await;
        stage.progress(0).await;
        {
            let mut state = stage.coordinator.state();
            state.drop_trials.insert(0);
            state.work.push_back(assignment(1, training()));
        }
        stage.coordinator.outcome(1).await;
        stage.end(agent).await;
        assert_eq!(stage.story(0), ["epoch 1"], "{how}");
        assert_eq!(stage.story(1), WELL_TRAINED, "{how}");
        assert_eq!(stage.trials_of_trainer(1), Some(trials_of_trainer), "{how}");
    }
}

#[tokio::test]
async fn what_goes_wrong_in_a_trainer_fails_its_trial_alone() {
    let failed =
        r#"say "{\"event\":\"failed\",\"id\":\"$id\",\"reason\":\"diverged\",\"detail\":\"loss is NaN\"}""#;
    for (how, first_trial, reason, said) in [
        ("killed", "echo last words >&2; kill -9 $$", FailureReason::TrainerCrashed, "SIGKILL"),
        (
            "exits",
            "echo last words >&2; exit 4",
            FailureReason::TrainerCrashed,
            "status 4; its last lines were:\nlast words",
        ),
        (
            "no memory",
            "echo 'memory allocation of 9 bytes failed' >&2; kill -6 $$",
            FailureReason::OutOfMemory,
            "signal 6",
        ),
        ("diverges", failed, FailureReason::Diverged, "loss is NaN"),
        ("talks nonsense", "say hello", FailureReason::TrainerCrashed, "\"hello\""),
        ("ends too early", "model", FailureReason::TrainerCrashed, "does not belong here"),
        ("never ends", "epochs; epoch 4", FailureReason::TrainerCrashed, "does not belong here"),
        ("falls silent", ":", FailureReason::Timeout, "no sign of progress"),
    ] {
        let mut stage = Stage::new().with_trials(2);
        stage.timing.trainer_silence = Duration::from_secs(1);
        let train = format!("case $id in 1/0*) epoch 1; {first_trial} ;; *) epochs; model ;; esac");
        let agent = stage.start(&train).await;
        let outcome = stage.coordinator.outcome(0).await;
        stage.coordinator.outcome(1).await;
        stage.end(agent).await;
        let Outcome::Failed(failure) = outcome else {
            panic!("{how}: {outcome:?}");
        };
        assert_eq!(failure.reason, reason, "{how}");
        assert!(failure.detail.contains(said), "{how}: {}", failure.detail);
        assert_eq!(stage.story(0)[0], "epoch 1", "{how}: the epoch before was lost");
        assert_eq!(stage.story(1), WELL_TRAINED, "{how}: the next trial");
    }
}

#[tokio::test]
async fn a_model_that_the_disk_does_not_take_is_no_fault_of_its_trial() {
    let stage = Stage::new().with_trials(2);
    let full =
        r#"say "{\"event\":\"unwritten\",\"id\":\"$id\",\"problem\":\"the disk is full\",\"bytes\":10}""#;
    let train = format!("case $id in 1/0*) epochs; {full} ;; *) epochs; model ;; esac");
    let agent = stage.start(&train).await;
    stage.coordinator.outcome(1).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), ["epoch 1", "epoch 2", "epoch 3", "released"]);
    assert_eq!(stage.story(1), WELL_TRAINED);
}

#[tokio::test]
async fn an_agent_that_ends_gives_its_trial_back() {
    let stage = Stage::new().with_trials(1);
    let agent = stage.start("epoch 1").await;
    stage.progress(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), ["epoch 1", "released"]);
    let state = stage.coordinator.state();
    let last = state.heartbeats.last().expect("heartbeats");
    assert!(last.draining && last.held.is_empty(), "{last:?}");
}

#[tokio::test]
async fn an_agent_that_ends_lets_its_trial_finish_if_there_is_time_for_it() {
    let mut stage = Stage::new().with_trials(2);
    stage.timing.drain = Duration::from_secs(10);
    let agent = stage.start("epoch 1; sleep 0.4; epoch 2; epoch 3; model").await;
    stage.progress(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
    assert_eq!(stage.story(1), [""; 0]);
}

#[tokio::test]
async fn a_slot_without_a_trainer_takes_no_work() {
    let mut stage = Stage::new().with_trials(1);
    // The trainer of these tests starts on the processor only.
    stage.device = Device::Cuda(0);
    let agent = stage.start(GOOD).await;
    stage.coordinator.wait("a heartbeat", |state| (state.heartbeats.len() > 3).then_some(())).await;
    stage.end(agent).await;
    assert_eq!(stage.coordinator.state().work.len(), 1);
}
