//! How busy the GPUs of the connected workers are, as each worker told with its last heartbeat.

use std::sync::atomic::AtomicU64;

use fittingroom_common::gpu::{GpuLoad, Utilization};
use fittingroom_common::id::Name;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::PREFIX;

/// Whose GPU it is, which, and of what kind. Names of workers need not differ, identities of GPUs do.
type Labels = [(&'static str, String); 4];

fn labels(worker: &Name, gpu: &GpuLoad) -> Labels {
    [
        ("worker", worker.to_string()),
        ("gpu", gpu.number.to_string()),
        ("name", gpu.name.to_string()),
        ("uuid", gpu.uuid.to_string()),
    ]
}

/// A gauge for each GPU of which that much is known.
pub(super) fn looked_up(gpus: &[(Name, GpuLoad)]) -> Registry {
    let utilization = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    let (used, total) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
    for (worker, gpu) in gpus {
        let labels = labels(worker, gpu);
        if let Some(share) = gpu.utilization.map(Utilization::get) {
            utilization.get_or_create(&labels).set(share);
        }
        if let Some(memory) = gpu.memory {
            used.get_or_create(&labels).set(memory.used().cast_signed());
            total.get_or_create(&labels).set(memory.total().cast_signed());
        }
    }
    let mut it = Registry::with_prefix(PREFIX);
    it.register(
        "gpu_utilization_ratio",
        "The share of the time in which a worker's GPU computed anything, from 0 to 1",
        utilization,
    );
    it.register_with_unit("gpu_memory_used", "Memory of a worker's GPU that is in use", Unit::Bytes, used);
    it.register_with_unit("gpu_memory_total", "Memory that a worker's GPU has", Unit::Bytes, total);
    it
}

#[cfg(test)]
mod tests {
    use fittingroom_common::gpu::{GpuMemory, GpuWords};
    use prometheus_client::encoding::text::encode_registry;

    use super::*;

    #[test]
    fn each_gpu_has_the_gauges_that_its_driver_tells_and_strange_names_stay_within_their_quotes() {
        let gpu = |number, name: &str, utilization, memory| {
            let gpu = GpuLoad {
                number,
                uuid: GpuWords::sanitised(&format!("GPU-{number}")),
                name: GpuWords::sanitised(name),
                utilization: Utilization::new(utilization),
                memory,
            };
            (Name::sanitised("node-1"), gpu)
        };
        let gpus = [
            gpu(0, "NVIDIA H100", 0.25, GpuMemory::new(1 << 30, 80 << 30)),
            gpu(1, "a\"} 1\\", 1.0, None),
            gpu(2, "split", f64::NAN, GpuMemory::new(0, 1)),
        ];
        let mut text = String::new();
        encode_registry(&mut text, &looked_up(&gpus)).expect("writes");
        let samples = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
        let expected = [
            "fittingroom_gpu_utilization_ratio{worker=\"node-1\",gpu=\"0\",name=\"NVIDIA H100\",uuid=\"GPU-0\"} 0.25",
            "fittingroom_gpu_memory_used_bytes{worker=\"node-1\",gpu=\"0\",name=\"NVIDIA H100\",uuid=\"GPU-0\"} 1073741824",
            "fittingroom_gpu_memory_total_bytes{worker=\"node-1\",gpu=\"0\",name=\"NVIDIA H100\",uuid=\"GPU-0\"} 85899345920",
            "fittingroom_gpu_utilization_ratio{worker=\"node-1\",gpu=\"1\",name=\"a\\\"} 1\\\\\",uuid=\"GPU-1\"} 1.0",
            "fittingroom_gpu_memory_used_bytes{worker=\"node-1\",gpu=\"2\",name=\"split\",uuid=\"GPU-2\"} 0",
            "fittingroom_gpu_memory_total_bytes{worker=\"node-1\",gpu=\"2\",name=\"split\",uuid=\"GPU-2\"} 1",
        ];
        for line in expected {
            assert!(samples.contains(&line), "no {line} in\n{text}");
        }
        assert_eq!(samples.len(), expected.len(), "{text}");
    }
}
