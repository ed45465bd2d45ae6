//! What this machine has to train on, and how slots share it.

use std::fmt;
use std::num::NonZeroU32;
use std::process::Command;
use std::str::FromStr;

/// One device, as trainers are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, by its number in the order of their PCI bus ids.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// What a person asks for with `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// Every GPU that this program can use, or else the processor.
    Auto,
    /// This device.
    Only(Device),
}

/// Why a device cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The text names no device.
    #[error("{text:?} is not a device; it can be cpu, cuda:N (say cuda:0) or auto")]
    Unknown {
        /// The text as it came.
        text: String,
    },
    /// This program was built for processors only.
    #[error(
        "this program was built without CUDA, so it cannot use {text}; build it with --features cuda, or take cpu"
    )]
    WithoutCuda {
        /// The text as it came.
        text: String,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let number = |text: &str| text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Only(Device::Cpu)),
            _ => match number(text) {
                None => Err(DeviceError::Unknown {
                    text: text.chars().take(40).collect(),
                }),
                Some(_) if !cfg!(feature = "cuda") => Err(DeviceError::WithoutCuda {
                    text: text.to_owned(),
                }),
                Some(number) => Ok(Self::Only(Device::Cuda(number))),
            },
        }
    }
}

/// The devices of a worker's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The device of each slot; never empty.
    pub slots: Vec<Device>,
    /// All of them, for people: `cpu (2 cores, avx512f)`.
    pub description: String,
}

impl Devices {
    /// The devices for a choice, looked up on this machine; one slot per GPU, or per core where
    /// there is none, unless a number of slots is asked for.
    pub fn detect(choice: DeviceChoice, slots: Option<NonZeroU32>) -> Self {
        let gpus = match choice {
            DeviceChoice::Only(Device::Cpu) => Vec::new(),
            DeviceChoice::Auto if !cfg!(feature = "cuda") => Vec::new(),
            DeviceChoice::Auto | DeviceChoice::Only(Device::Cuda(_)) => gpu_names(),
        };
        Self::plan(choice, slots, &gpus, Processor::detect())
    }

    fn plan(choice: DeviceChoice, slots: Option<NonZeroU32>, gpus: &[String], processor: Processor) -> Self {
        let numbers: Vec<u32> = match choice {
            DeviceChoice::Only(Device::Cpu) => Vec::new(),
            DeviceChoice::Only(Device::Cuda(number)) => vec![number],
            DeviceChoice::Auto => (0..).take(gpus.len()).collect(),
        };
        if numbers.is_empty() {
            let slots = slots.map_or(processor.cores, |slots| slots.get() as usize);
            return Self {
                slots: vec![Device::Cpu; slots],
                description: processor.to_string(),
            };
        }
        let name = |&number: &u32| {
            let model = usize::try_from(number).ok().and_then(|n| gpus.get(n));
            format!("{} {}", Device::Cuda(number), model.map_or("", String::as_str))
                .trim_end()
                .to_owned()
        };
        let count = slots.map_or(numbers.len(), |slots| slots.get() as usize);
        Self {
            description: numbers.iter().map(name).collect::<Vec<_>>().join(", "),
            slots: numbers
                .iter()
                .map(|&number| Device::Cuda(number))
                .cycle()
                .take(count)
                .collect(),
        }
    }
}

/// What is told of the processor.
#[derive(Clone, Copy, Debug)]
struct Processor {
    cores: usize,
    widest_vectors: Option<&'static str>,
}

impl Processor {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let widest_vectors = if std::arch::is_x86_feature_detected!("avx512f") {
            Some("avx512f")
        } else if std::arch::is_x86_feature_detected!("avx2") {
            Some("avx2")
        } else {
            None
        };
        #[cfg(not(target_arch = "x86_64"))]
        let widest_vectors = None;
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            widest_vectors,
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.cores == 1 { "core" } else { "cores" };
        write!(f, "cpu ({} {unit}", self.cores)?;
        if let Some(vectors) = self.widest_vectors {
            write!(f, ", {vectors}")?;
        }
        f.write_str(")")
    }
}

/// The usable GPUs' names, in the order in which trainers number them. nvidia-smi is asked rather than
/// the driver, since opening a GPU here would take some of its memory away from the trainers.
fn gpu_names() -> Vec<String> {
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=name", "--format=csv,noheader"]);
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        command.args(["-i", &visible]);
    }
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_one_per_gpu_or_per_core_unless_a_number_is_asked_for() {
        let processor = Processor {
            cores: 4,
            widest_vectors: Some("avx2"),
        };
        let (cpu, gpu) = (Device::Cpu, Device::Cuda);
        let two = ["NVIDIA A", "NVIDIA B"].map(str::to_owned);
        let both = "cuda:0 NVIDIA A, cuda:1 NVIDIA B";
        let only = DeviceChoice::Only;
        for (case, choice, slots, gpus, expected, described) in [
            (
                "no gpu",
                DeviceChoice::Auto,
                None,
                &two[..0],
                vec![cpu; 4],
                "cpu (4 cores, avx2)",
            ),
            (
                "cpu asked for",
                only(cpu),
                None,
                &two,
                vec![cpu; 4],
                "cpu (4 cores, avx2)",
            ),
            (
                "slots on cpu",
                only(cpu),
                Some(1),
                &two,
                vec![cpu],
                "cpu (4 cores, avx2)",
            ),
            ("gpus", DeviceChoice::Auto, None, &two, vec![gpu(0), gpu(1)], both),
            (
                "shared gpus",
                DeviceChoice::Auto,
                Some(3),
                &two,
                vec![gpu(0), gpu(1), gpu(0)],
                both,
            ),
            (
                "one gpu",
                only(gpu(1)),
                None,
                &two,
                vec![gpu(1)],
                "cuda:1 NVIDIA B",
            ),
            (
                "unnamed gpu",
                only(gpu(5)),
                Some(2),
                &two,
                vec![gpu(5); 2],
                "cuda:5",
            ),
        ] {
            let devices = Devices::plan(choice, slots.and_then(NonZeroU32::new), gpus, processor);
            assert_eq!(devices.slots, expected, "{case}");
            assert_eq!(devices.description, described, "{case}");
        }
    }

    #[test]
    fn what_is_no_device_is_refused() {
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Only(Device::Cpu)));
        for text in ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let message = text.parse::<DeviceChoice>().expect_err(text).to_string();
            assert!(message.contains("cuda:N"), "{message}");
        }
        if !cfg!(feature = "cuda") {
            let message = "cuda:0".parse::<DeviceChoice>().expect_err("no cuda").to_string();
            assert!(message.contains("--features cuda"), "{message}");
        }
    }
}
