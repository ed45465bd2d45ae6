//! NVIDIA's management library (NVML), which comes with their driver and answers nvidia-smi too. It is
//! looked for when this program runs. It opens no GPU as CUDA does, which would take some of its memory.

use std::collections::BTreeSet;

use fittingroom_common::gpu::{GpuLoad, GpuMemory, GpuWords, Utilization};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use tracing::debug;

use super::GpuSource;

/// A GPU that is asked after.
#[derive(Debug)]
struct Gpu {
    /// Its number to CUDA, and so to the trainers.
    number: u32,
    /// What NVML knows it by.
    uuid: String,
    name: GpuWords,
}

/// The library, and the GPUs that it is asked after.
pub(super) struct Nvidia {
    nvml: Nvml,
    gpus: Vec<Gpu>,
}

impl Nvidia {
    /// Looks for the GPUs that have these numbers to CUDA; `None` without a driver.
    pub(super) fn open(numbers: &BTreeSet<u32>) -> Option<Self> {
        let opened = Nvml::init().and_then(|nvml| {
            let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
            let uuids = numbered(&uuids(&nvml)?, visible.as_deref());
            let wanted = (0..).zip(uuids).filter(|(number, _)| numbers.contains(number));
            let gpus = wanted
                .map(|(number, uuid)| {
                    let name =
                        nvml.device_by_uuid(uuid.as_str()).and_then(|it| it.name()).unwrap_or_default();
                    Gpu { number, uuid, name: GpuWords::sanitised(&name) }
                })
                .collect();
            Ok(Self { nvml, gpus })
        });
        opened.inspect_err(|error| debug!(%error, "nobody tells how busy GPUs are")).ok()
    }

    fn ask(&self, gpu: &Gpu) -> Result<GpuLoad, NvmlError> {
        let device = self.nvml.device_by_uuid(gpu.uuid.as_str())?;
        // Of a part of a GPU (MIG) the memory is told, and how busy it is is not.
        let (utilization, memory) = match (device.utilization_rates(), device.memory_info()) {
            (Err(error), Err(_)) => return Err(error),
            (utilization, memory) => (utilization.ok(), memory.ok()),
        };
        Ok(GpuLoad {
            number: gpu.number,
            uuid: GpuWords::sanitised(&gpu.uuid),
            name: gpu.name.clone(),
            utilization: utilization.and_then(|it| Utilization::new(f64::from(it.gpu) / 100.0)),
            memory: memory.and_then(|it| GpuMemory::new(it.used, it.total)),
        })
    }
}

impl GpuSource for Nvidia {
    fn sample(&mut self) -> Vec<GpuLoad> {
        let ask = |gpu| {
            let load = self.ask(gpu);
            load.inspect_err(|error| debug!(%error, gpu = gpu.number, "a GPU does not answer")).ok()
        };
        self.gpus.iter().filter_map(ask).collect()
    }
}

/// What all GPUs are known by, in the order of their PCI bus ids, in which NVML has them. One that does
/// not answer keeps its place.
fn uuids(nvml: &Nvml) -> Result<Vec<String>, NvmlError> {
    let uuid = |index| nvml.device_by_index(index).and_then(|device| device.uuid()).unwrap_or_default();
    Ok((0..nvml.device_count()?).map(uuid).collect())
}

/// The GPUs in the order in which trainers number them: that of PCI bus ids, which trainers are told to
/// keep to, or that of `CUDA_VISIBLE_DEVICES`. That names them by their numbers, by what they are known
/// by or the beginning of it, or a part of one as `MIG-…`; from the first that there is not, it counts no more.
fn numbered(uuids: &[String], visible: Option<&str>) -> Vec<String> {
    let Some(visible) = visible else { return uuids.to_vec() };
    let named = |name: &str| {
        if name.starts_with("MIG-") {
            return Some(name.to_owned());
        }
        let found = match name.parse::<usize>() {
            Ok(number) => uuids.get(number),
            Err(_) => uuids.iter().find(|uuid| name.starts_with("GPU-") && uuid.starts_with(name)),
        };
        found.cloned()
    };
    visible.split(',').map_while(|name| named(name.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_numbered_as_cuda_numbers_them() {
        let uuids = ["GPU-a1", "GPU-b2", "GPU-c3"].map(str::to_owned);
        for (visible, expected) in [
            (None, &["GPU-a1", "GPU-b2", "GPU-c3"][..]),
            (Some(""), &[]),
            (Some("2, 0"), &["GPU-c3", "GPU-a1"]),
            (Some("GPU-b2,GPU-a"), &["GPU-b2", "GPU-a1"]),
            (Some("1,7,0"), &["GPU-b2"]),
            (Some("-1"), &[]),
            (Some("NoDevFiles"), &[]),
            (Some("MIG-d4,1"), &["MIG-d4", "GPU-b2"]),
        ] {
            assert_eq!(numbered(&uuids, visible), expected, "{visible:?}");
        }
    }

    /// On a machine with a driver, what it says is believable; elsewhere there is nobody to ask.
    #[test]
    fn the_driver_tells_of_the_first_gpu_if_there_is_one() {
        let Some(mut nvidia) = Nvidia::open(&BTreeSet::from([0])) else { return };
        for load in nvidia.sample() {
            assert_eq!(load.number, 0);
            assert!(!load.name.as_str().is_empty() && load.uuid.as_str().contains('-'), "{load:?}");
            assert!(load.memory.is_none_or(|memory| memory.total() > 1 << 28), "{load:?}");
        }
    }
}
