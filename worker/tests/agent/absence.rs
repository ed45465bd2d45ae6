//! A coordinator that is away, comes back, or is another.

use super::*;
use crate::coordinator::Heard;

#[tokio::test]
async fn a_coordinator_that_was_restarted_gets_the_worker_back_and_its_trial_goes_on() {
    let stage = Stage::new().with_trials(1);
    let gate = stage.folder.path().join("gate");
    let train =
        format!("epoch 1; while [ ! -e {} ]; do sleep 0.02; done; epoch 2; epoch 3; model", gate.display());
    let agent = stage.start(&train).await;
    stage.progress(0).await;
    stage.coordinator.state().forget();
    stage
        .coordinator
        .wait("a second registration", |state| {
            let registered = |heard: &&Heard| matches!(heard, Heard::Registered(_));
            (state.heard.iter().filter(registered).count() == 2).then_some(())
        })
        .await;
    std::fs::write(gate, "").expect("writable");
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
    let registrations = stage.registrations();
    assert_eq!(registrations.len(), 2);
    assert_eq!(registrations[0], registrations[1]);
}

#[tokio::test]
async fn an_absent_coordinator_is_waited_for() {
    let stage = Stage::new().with_trials(1);
    let address = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.local_addr().expect("bound")
    };
    let agent = stage.start_at(address, GOOD);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!agent.is_finished());
    stage.coordinator.serve(address).await;
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
}

#[tokio::test]
async fn an_absent_coordinator_does_not_keep_the_agent_from_ending() {
    let stage = Stage::new();
    let agent = stage.start_at(([127, 0, 0, 1], 1).into(), GOOD);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.end(agent).await;
}

#[tokio::test]
async fn another_version_of_the_protocol_ends_the_agent() {
    let stage = Stage::new();
    stage.coordinator.state().other_version = true;
    let agent = stage.start(GOOD).await;
    let error = agent.await.expect("no panic").expect_err("must end");
    let message = error.to_string();
    assert!(message.contains("version 2"), "{message}");
    assert!(message.contains("this worker, which speaks version 1"), "{message}");
}
