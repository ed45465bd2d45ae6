//! What this machine computes with: the same kind gives the same bits.

use candle_core::{Device, DeviceLocation};
use fittingroom_common::record::Machine;

/// The kind of machine that a device is.
pub fn machine(device: &Device) -> Machine {
    match device.location() {
        DeviceLocation::Cpu => Machine { device: "cpu".into(), model: processor(), features: features() },
        DeviceLocation::Cuda { gpu_id } => {
            Machine { device: "cuda".into(), model: nvidia_gpu(gpu_id), features: Vec::new() }
        }
        DeviceLocation::Metal { .. } => {
            Machine { device: "metal".into(), model: processor(), features: Vec::new() }
        }
    }
}

/// The processor's model as Linux tells it, or else its architecture.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| value(&text, "model name"));
    told.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The instruction sets by which the engine and its matrix products choose their loops.
fn features() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512vl", std::arch::is_x86_feature_detected!("avx512vl")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512dq", std::arch::is_x86_feature_detected!("avx512dq")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

/// The GPU's model as NVIDIA's driver tells it: it lists GPUs by their PCI bus ids, the order in
/// which trainers number them.
fn nvidia_gpu(number: usize) -> String {
    let mut told = Vec::new();
    for entry in std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten() {
        told.push(entry.path().join("information"));
    }
    told.sort();
    let told = told.get(number).and_then(|path| std::fs::read_to_string(path).ok());
    told.and_then(|text| value(&text, "Model")).unwrap_or_else(|| "unknown".to_owned())
}

/// The value of the first line `key : value`.
fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_their_keys() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9R14: test\nmodel name\t: other\n";
        assert_eq!(value(text, "model name").as_deref(), Some("AMD EPYC 9R14: test"));
        assert_eq!(value(text, "flags"), None);
    }

    #[test]
    fn this_machine_is_of_a_kind() {
        let here = machine(&Device::Cpu);
        assert_eq!((here.device.as_str(), here.model.is_empty()), ("cpu", false));
        assert_eq!(here, machine(&Device::Cpu));
    }
}
