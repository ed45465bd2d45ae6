//! The document of `workers --json`.

use fittingroom_common::gpu::{GpuLoad, GpuMemory, Utilization};
use fittingroom_common::view::WorkerRow;
use serde::Serialize;

/// One worker, in `workers`.
#[derive(Debug, Serialize)]
pub(crate) struct Worker<'a> {
    worker: &'a str,
    id: String,
    device: &'a str,
    slots: u32,
    busy: u32,
    version: &'a str,
    silent_seconds: f64,
    draining: bool,
    gpus: Vec<Gpu<'a>>,
}

/// How busy a GPU of a worker is.
#[derive(Debug, Serialize)]
struct Gpu<'a> {
    number: u32,
    uuid: &'a str,
    name: &'a str,
    utilization: Option<f64>,
    memory_used_bytes: Option<u64>,
    memory_total_bytes: Option<u64>,
}

impl<'a> From<&'a GpuLoad> for Gpu<'a> {
    fn from(it: &'a GpuLoad) -> Self {
        Self {
            number: it.number,
            uuid: it.uuid.as_str(),
            name: it.name.as_str(),
            utilization: it.utilization.map(Utilization::get),
            memory_used_bytes: it.memory.map(GpuMemory::used),
            memory_total_bytes: it.memory.map(GpuMemory::total),
        }
    }
}

impl<'a> From<&'a WorkerRow> for Worker<'a> {
    fn from(it: &'a WorkerRow) -> Self {
        Self {
            worker: it.name.as_str(),
            id: it.id.to_string(),
            device: &it.device,
            slots: it.slots,
            busy: it.busy,
            version: &it.program_version,
            silent_seconds: it.silent.as_secs_f64(),
            draining: it.draining,
            gpus: it.gpus.iter().map(Gpu::from).collect(),
        }
    }
}

/// `workers --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Workers<'a> {
    /// Every connected worker.
    pub(crate) workers: Vec<Worker<'a>>,
}
