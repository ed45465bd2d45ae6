//! How busy the workers' GPUs are, from what workers say with their heartbeats to what Prometheus reads.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fittingroom_common::proto as pb;
use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::transport::Channel;

use crate::Coordinator;
use crate::operate::{WORKER, get, register, samples};

/// What is read of GPUs.
fn gpus(url: &str) -> BTreeMap<String, f64> {
    let scraped = samples(&get(url, "GET").1).into_iter();
    scraped.filter(|(series, _)| series.starts_with("fittingroom_gpu_")).collect()
}

fn gpu(number: u32, utilization: f64) -> pb::Gpu {
    pb::Gpu {
        number,
        uuid: format!("GPU-{number}"),
        name: "NVIDIA \"X\"".to_owned(),
        utilization: Some(utilization),
        memory: Some(pb::GpuMemory { used_bytes: 5, total_bytes: 80 << 30 }),
    }
}

async fn heartbeat(workers: &mut WorkerServiceClient<Channel>, gpus: Vec<pb::Gpu>) -> Result<(), Code> {
    let request = pb::HeartbeatRequest { worker_id: WORKER.to_vec(), gpus, ..Default::default() };
    workers.heartbeat(request).await.map(drop).map_err(|status| status.code())
}

#[test]
fn gpus_are_among_the_metrics_for_as_long_as_their_worker_tells_of_them() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let flags = ["--metrics-listen", "127.0.0.1:0", "--lease-seconds", "2"];
    let coordinator = Coordinator::start_with(&folder.path().join("data"), &flags, &[], Stdio::null());
    let url = coordinator.metrics.clone().expect("asked for");
    let runtime = Runtime::new().expect("a runtime");
    let mut workers = runtime.block_on(register(&coordinator.url, 2));
    let mut beat = |gpus| runtime.block_on(heartbeat(&mut workers, gpus));
    assert_eq!(gpus(&url), BTreeMap::new());

    assert_eq!(beat(vec![gpu(0, 0.25), gpu(1, 0.5)]), Ok(()));
    assert_eq!(gpus(&url).len(), 6);
    assert_eq!(beat(vec![gpu(1, 1.0)]), Ok(()));
    let labels = "{worker=\"slow\",gpu=\"1\",name=\"NVIDIA \\\"X\\\"\",uuid=\"GPU-1\"}";
    let newest = [
        ("utilization_ratio", 1.0),
        ("memory_used_bytes", 5.0),
        ("memory_total_bytes", f64::from(80_u32) * f64::from(1 << 30)),
    ]
    .map(|(name, value)| (format!("fittingroom_gpu_{name}{labels}"), value));
    assert_eq!(gpus(&url), BTreeMap::from(newest.clone()), "the newest alone");

    for (row, told) in [
        ("more than all", vec![gpu(0, 1.5)]),
        ("no number", vec![gpu(0, f64::NAN)]),
        ("a long name", vec![pb::Gpu { name: "x".repeat(1000), ..gpu(0, 0.5) }]),
        ("too many", vec![gpu(0, 0.5); 65]),
    ] {
        assert_eq!(beat(told), Err(Code::InvalidArgument), "{row}");
        assert_eq!(gpus(&url), BTreeMap::from(newest.clone()), "{row}: changes nothing");
    }
    assert_eq!(beat(vec![]), Ok(()));
    assert_eq!(gpus(&url), BTreeMap::new(), "it tells of none any more");

    assert_eq!(beat(vec![gpu(0, 0.5)]), Ok(()));
    let told = Instant::now();
    while !gpus(&url).is_empty() {
        assert!(told.elapsed() < Duration::from_secs(20), "shown long after its worker is gone");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(told.elapsed() >= Duration::from_secs(1), "gone before its worker: {:?}", told.elapsed());
}
