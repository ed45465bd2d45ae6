//! What the agent tells of its GPUs, by a driver that the test plays.

use std::sync::mpsc::{Receiver, channel};

use fittingroom_common::gpu::{GpuLoad, GpuMemory, GpuWords, Utilization};
use fittingroom_common::proto as pb;
use fittingroom_worker::agent::{GpuSource, GpuWatch};

use super::*;

/// Answers with what it is given, and otherwise not at all.
struct Driver(Receiver<GpuLoad>);

impl GpuSource for Driver {
    fn sample(&mut self) -> Vec<GpuLoad> {
        self.0.recv().into_iter().collect()
    }
}

fn gpu(utilization: f64) -> GpuLoad {
    GpuLoad {
        number: 1,
        uuid: GpuWords::sanitised("GPU-1"),
        name: GpuWords::sanitised("NVIDIA X"),
        utilization: Utilization::new(utilization),
        memory: GpuMemory::new(3, 4),
    }
}

#[tokio::test]
async fn heartbeats_tell_how_busy_gpus_are_and_wait_for_no_driver() {
    let (answer, answers) = channel();
    let mut stage = Stage::new().with_trials(1);
    stage.gpus = Some(GpuWatch::start(move || Some(Driver(answers))));
    let agent = stage.start(GOOD).await;
    // Nothing is told before the driver answers, and heartbeats go on.
    stage.coordinator.wait("heartbeats", |state| (state.heartbeats.len() > 3).then_some(())).await;
    assert!(stage.coordinator.state().heartbeats.iter().all(|beat| beat.gpus.is_empty()));
    for utilization in [0.25, 0.5] {
        let load = gpu(utilization);
        answer.send(load.clone()).expect("the driver is asked");
        let told = |beat: &pb::HeartbeatRequest| beat.gpus == [pb::Gpu::from(&load)];
        stage.coordinator.wait("it", |state| state.heartbeats.iter().any(told).then_some(())).await;
    }
    // It answers no more, and nobody waits for it: not the trial, and not the agent's end.
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
    let last = stage.coordinator.state().heartbeats.last().cloned().expect("heartbeats");
    assert!(last.gpus.is_empty(), "a worker that ends has none: {last:?}");
    drop(answer);
}
