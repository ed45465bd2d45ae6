//! What this machine has to train on, and how slots share it.

mod gpus;

use std::fmt;
use std::num::NonZeroU32;

use self::gpus::Gpus;
use crate::train::device::{DeviceChoice, UnusableDevice};

/// The device of one slot, as its trainer is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, by its number in the order of their PCI bus ids.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// This program was built without support for it.
    #[error(
        "this program was built without {feature}, so it cannot use {choice}: build it with --features {feature}, or take --device cpu"
    )]
    NotBuilt {
        /// The device.
        choice: DeviceChoice,
        /// The feature that it takes.
        feature: &'static str,
    },
    /// No trainer could open it.
    #[error(transparent)]
    Unusable(#[from] UnusableDevice),
}

/// What this program was built for.
#[derive(Clone, Copy, Debug)]
struct Built {
    cuda: bool,
    metal: bool,
}

/// The devices of a worker's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The device of each slot; never empty.
    pub slots: Vec<Device>,
    /// All of them, for people: `cpu (2 cores, avx512f)`.
    pub description: String,
    /// Why they are not all the GPUs that `auto` looked for, if this program can use any.
    pub notes: Vec<String>,
}

impl Devices {
    /// The devices for a choice, looked up on this machine; one slot per GPU, or per core where
    /// there is none, unless a number of slots is asked for.
    ///
    /// # Errors
    /// This program was not built for the device, or the GPU cannot be opened.
    pub async fn detect(choice: DeviceChoice, slots: Option<NonZeroU32>) -> Result<Self, DeviceError> {
        let built = Built { cuda: cfg!(feature = "cuda"), metal: cfg!(feature = "metal") };
        let gpus = match choice {
            DeviceChoice::Auto if built.cuda => Gpus::all().await,
            DeviceChoice::Cuda(number) if built.cuda => Gpus::one(number).await,
            DeviceChoice::Auto | DeviceChoice::Cuda(_) | DeviceChoice::Cpu | DeviceChoice::Metal => {
                Gpus::default()
            }
        };
        Self::plan(choice, slots, built, &gpus, Processor::detect())
    }

    fn plan(
        choice: DeviceChoice,
        slots: Option<NonZeroU32>,
        built: Built,
        Gpus { names, tried }: &Gpus,
        processor: Processor,
    ) -> Result<Self, DeviceError> {
        let missing = |feature| Err(DeviceError::NotBuilt { choice, feature });
        let problems = || tried.iter().filter_map(|(_, opened)| opened.as_ref().err());
        let usable = || tried.iter().filter(|(_, opened)| opened.is_ok()).map(|(number, _)| *number);
        let mut notes = Vec::new();
        let devices: Vec<Device> = match choice {
            DeviceChoice::Cuda(_) if !built.cuda => return missing("cuda"),
            DeviceChoice::Metal if !built.metal => return missing("metal"),
            DeviceChoice::Cuda(number) => match problems().next() {
                Some(problem) => return Err(UnusableDevice { problem: problem.clone() }.into()),
                None => vec![Device::Cuda(number)],
            },
            DeviceChoice::Metal => vec![Device::Metal],
            DeviceChoice::Auto if built.metal => vec![Device::Metal],
            DeviceChoice::Auto if usable().next().is_some() => {
                notes.extend(problems().map(|problem| format!("{problem}; going on without it")));
                usable().map(Device::Cuda).collect()
            }
            DeviceChoice::Auto | DeviceChoice::Cpu => {
                notes.extend(problems().take(1).map(|problem| format!("{problem}; going on with the CPU")));
                vec![Device::Cpu; processor.cores]
            }
        };
        let description = match devices.first() {
            None | Some(Device::Cpu) => processor.to_string(),
            Some(Device::Metal) => Device::Metal.to_string(),
            Some(Device::Cuda(_)) => describe(&devices, names),
        };
        let count = slots.map_or(devices.len(), |slots| slots.get() as usize);
        Ok(Self { slots: devices.into_iter().cycle().take(count).collect(), description, notes })
    }
}

/// GPUs by number and name: `cuda:0 NVIDIA H100`, or `cuda:0 to cuda:7 NVIDIA H100` where all are alike.
fn describe(devices: &[Device], gpus: &[String]) -> String {
    let name = |device: &Device| match device {
        Device::Cuda(number) => gpus.get(*number).map_or("", String::as_str),
        Device::Cpu | Device::Metal => "",
    };
    let follows =
        |pair: &[Device]| matches!(pair, [Device::Cuda(one), Device::Cuda(next)] if one + 1 == *next);
    let alike = devices.windows(2).all(|pair| follows(pair) && name(&pair[0]) == name(&pair[1]));
    let told = match devices {
        [first, .., last] if alike => format!("{first} to {last} {}", name(first)),
        _ => {
            let each = devices.iter().map(|device| format!("{device} {}", name(device)));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    told.trim_end().to_owned()
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
        Self { cores: std::thread::available_parallelism().map_or(1, usize::from), widest_vectors }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSOR: Processor = Processor { cores: 4, widest_vectors: Some("avx2") };

    /// GPUs of these names that can be opened, and others that cannot.
    fn gpus(names: &[&str], tried: &[Result<usize, usize>]) -> Gpus {
        let tried = tried.iter().map(|gpu| match gpu {
            Ok(number) => (*number, Ok(())),
            Err(number) => (*number, Err(format!("cuda:{number} cannot be used: broken"))),
        });
        Gpus { names: names.iter().map(|name| (*name).to_owned()).collect(), tried: tried.collect() }
    }

    #[test]
    fn slots_are_one_per_gpu_or_per_core_unless_a_number_is_asked_for() {
        use DeviceChoice::{Auto, Cpu, Cuda};
        let built = Built { cuda: true, metal: false };
        let (cpu, gpu) = (Device::Cpu, Device::Cuda);
        let (two, three) = (["NVIDIA A", "NVIDIA B"], ["NVIDIA A"; 3]);
        let both = "cuda:0 NVIDIA A, cuda:1 NVIDIA B";
        let (all, first, all_three) = ([Ok(0), Ok(1)], [Ok(0)], [Ok(0), Ok(1), Ok(2)]);
        let processor = "cpu (4 cores, avx2)";
        for (case, choice, slots, gpus, expected, described) in [
            ("a gpu without a name", Auto, None, gpus(&[], &first), vec![gpu(0)], "cuda:0"),
            ("cpu asked for", Cpu, None, gpus(&[], &[]), vec![cpu; 4], processor),
            ("fewer slots", Cpu, Some(1), gpus(&[], &[]), vec![cpu], processor),
            ("more slots", Cpu, Some(5), gpus(&[], &[]), vec![cpu; 5], processor),
            ("gpus", Auto, None, gpus(&two, &all), vec![gpu(0), gpu(1)], both),
            ("shared gpus", Auto, Some(3), gpus(&two, &all), vec![gpu(0), gpu(1), gpu(0)], both),
            (
                "gpus of a kind",
                Auto,
                None,
                gpus(&three, &all_three),
                vec![gpu(0), gpu(1), gpu(2)],
                "cuda:0 to cuda:2 NVIDIA A",
            ),
            ("one gpu", Cuda(1), None, gpus(&two, &[Ok(1)]), vec![gpu(1)], "cuda:1 NVIDIA B"),
            ("unnamed gpu", Cuda(5), Some(2), gpus(&two, &[Ok(5)]), vec![gpu(5); 2], "cuda:5"),
        ] {
            let slots = slots.and_then(NonZeroU32::new);
            let devices = Devices::plan(choice, slots, built, &gpus, PROCESSOR).expect(case);
            assert_eq!(devices.slots, expected, "{case}");
            assert_eq!(devices.description, described, "{case}");
            assert!(devices.notes.is_empty(), "{case}: {:?}", devices.notes);
        }
    }

    #[test]
    fn a_gpu_that_no_trainer_can_open_is_an_error_and_auto_goes_on_without() {
        let built = Built { cuda: true, metal: false };
        let plan = |choice, gpus| Devices::plan(choice, None, built, &gpus, PROCESSOR);
        let error = plan(DeviceChoice::Cuda(0), gpus(&["NVIDIA A"], &[Err(0)])).expect_err("it is broken");
        assert_eq!(error.to_string(), "cuda:0 cannot be used: broken. Take --device cpu, or auto");
        for (case, gpus) in [
            ("no driver", gpus(&[], &[Err(0)])),
            ("one", gpus(&["NVIDIA A"], &[Err(0)])),
            ("two", gpus(&["NVIDIA A"; 2], &[Err(0), Err(1)])),
        ] {
            let devices = plan(DeviceChoice::Auto, gpus).expect("there is the CPU");
            assert_eq!(devices.slots, [Device::Cpu; 4], "{case}");
            assert_eq!(devices.notes, ["cuda:0 cannot be used: broken; going on with the CPU"], "{case}");
        }
    }

    #[test]
    fn broken_gpus_do_not_keep_the_others_from_work() {
        let built = Built { cuda: true, metal: false };
        let gpus = gpus(&["NVIDIA A"; 4], &[Err(0), Ok(1), Err(2), Ok(3)]);
        let devices = Devices::plan(DeviceChoice::Auto, None, built, &gpus, PROCESSOR).expect("two work");
        assert_eq!(devices.slots, [Device::Cuda(1), Device::Cuda(3)]);
        assert_eq!(devices.description, "cuda:1 NVIDIA A, cuda:3 NVIDIA A");
        let note = |number| format!("cuda:{number} cannot be used: broken; going on without it");
        assert_eq!(devices.notes, [note(0), note(2)]);
    }

    #[test]
    fn what_the_program_was_not_built_for_is_refused() {
        let built = Built { cuda: false, metal: false };
        for (choice, said) in
            [(DeviceChoice::Cuda(0), "--features cuda"), (DeviceChoice::Metal, "--features metal")]
        {
            let error = Devices::plan(choice, None, built, &gpus(&[], &[]), PROCESSOR).expect_err(said);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
