//! Whether a model fits into memory: asked before its weights are drawn, since Linux promises
//! memory that it does not have and ends the process that uses it. Weights for a GPU are drawn there too,
//! one tensor after another.

use std::fs;

use candle_core::Device;

use super::{ModelError, Outline};

/// Refuses a model if the parameters of all lanes and their gradients, which are the least that
/// training takes, are more than the memory that is free where it trains.
pub(super) fn check(outline: &Outline, lanes: usize, device: &Device) -> Result<(), ModelError> {
    let free = match device {
        Device::Cpu => available(),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Some(crate::train::cuda::free_memory(device)?),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => None,
        Device::Metal(_) => None,
    };
    fits(outline.parameters, lanes, free)
}

fn fits(parameters: usize, lanes: usize, available: Option<u64>) -> Result<(), ModelError> {
    let bytes = [parameters as u64, lanes as u64, 2, size_of::<f32>() as u64];
    let needed = bytes.into_iter().fold(1, u64::saturating_mul);
    match available {
        Some(available) if needed > available => {
            Err(ModelError::TooLarge { parameters, needed_mib: needed >> 20, available_mib: available >> 20 })
        }
        Some(_) | None => Ok(()),
    }
}

/// Bytes that Linux can still give to this process; `None` on other systems.
fn available() -> Option<u64> {
    let machine = from_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    // The limit of a container; elsewhere there is no such file, or it says "max".
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container: Option<u64> = container.and_then(|limit| limit.trim().parse().ok());
    Some(container.map_or(machine, |container| container.min(machine)))
}

fn from_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_gradients_of_all_lanes_are_held_against_the_memory() {
        for (name, parameters, lanes, available, error) in [
            ("just enough", 1 << 20, 2, Some(16 << 20), None),
            (
                "a lane too many",
                1 << 20,
                3,
                Some(16 << 20),
                Some(
                    "the model's 1048576 parameters and their gradients take 24 MiB, but 16 MiB of memory are free",
                ),
            ),
            ("nobody knows", usize::MAX, 9, None, None),
        ] {
            let given = fits(parameters, lanes, available).err().map(|error| error.to_string());
            assert_eq!(given.as_deref(), error, "{name}");
        }
        assert!(fits(usize::MAX, 9, Some(u64::MAX - 1)).is_err(), "it overflowed");
    }

    #[test]
    fn linuxs_answer_is_understood() {
        let text = "MemTotal:       24615028 kB\nMemFree:        18044268 kB\nMemAvailable:   22404560 kB\n";
        assert_eq!(from_meminfo(text), Some(22_404_560 * 1024));
        assert_eq!(from_meminfo("MemTotal: 1 kB"), None);
        #[cfg(target_os = "linux")]
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
