//! What this machine has to train on, and how slots share it.

use std::fmt;
use std::num::NonZeroU32;
use std::process::{Command, Stdio};

use crate::train::device::DeviceChoice;

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
    /// No trainer could use it.
    #[error("{0}")]
    Unusable(String),
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
    /// Why it is not the GPU that `auto` looked for, if this program can use one.
    pub note: Option<String>,
}

/// The NVIDIA GPUs of this machine.
#[derive(Debug)]
struct Gpus {
    /// As far as they are known.
    names: Vec<String>,
    /// Why a trainer cannot open the one that is asked for, or the first where none can be opened.
    problem: Option<String>,
}

impl Devices {
    /// The devices for a choice, looked up on this machine; one slot per GPU, or per core where
    /// there is none, unless a number of slots is asked for.
    pub fn detect(choice: DeviceChoice, slots: Option<NonZeroU32>) -> Result<Self, DeviceError> {
        let built = Built { cuda: cfg!(feature = "cuda"), metal: cfg!(feature = "metal") };
        let gpus = match choice {
            DeviceChoice::Auto if built.cuda => {
                let names = gpu_names();
                let problem = problem_of(0..names.len().max(1), opened);
                Gpus { names, problem }
            }
            DeviceChoice::Cuda(number) if built.cuda => {
                Gpus { names: gpu_names(), problem: problem_of(number..=number, opened) }
            }
            DeviceChoice::Auto | DeviceChoice::Cuda(_) | DeviceChoice::Cpu | DeviceChoice::Metal => {
                Gpus { names: Vec::new(), problem: None }
            }
        };
        Self::plan(choice, slots, built, &gpus, Processor::detect())
    }

    fn plan(
        choice: DeviceChoice,
        slots: Option<NonZeroU32>,
        built: Built,
        Gpus { names, problem }: &Gpus,
        processor: Processor,
    ) -> Result<Self, DeviceError> {
        let missing = |feature| Err(DeviceError::NotBuilt { choice, feature });
        let mut note = None;
        let devices: Vec<Device> = match choice {
            DeviceChoice::Cuda(_) if !built.cuda => return missing("cuda"),
            DeviceChoice::Metal if !built.metal => return missing("metal"),
            DeviceChoice::Cuda(number) => match problem {
                Some(problem) => return Err(DeviceError::Unusable(problem.clone())),
                None => vec![Device::Cuda(number)],
            },
            DeviceChoice::Metal => vec![Device::Metal],
            DeviceChoice::Auto if built.metal => vec![Device::Metal],
            DeviceChoice::Auto if built.cuda && problem.is_none() => {
                (0..names.len().max(1)).map(Device::Cuda).collect()
            }
            DeviceChoice::Auto | DeviceChoice::Cpu => {
                note = problem.as_ref().map(|problem| format!("{problem}; going on with the CPU"));
                vec![Device::Cpu; processor.cores]
            }
        };
        let description = match devices.first() {
            None | Some(Device::Cpu) => processor.to_string(),
            Some(Device::Metal) => Device::Metal.to_string(),
            Some(Device::Cuda(_)) => describe(&devices, names),
        };
        let count = slots.map_or(devices.len(), |slots| slots.get() as usize);
        Ok(Self { slots: devices.into_iter().cycle().take(count).collect(), description, note })
    }
}

/// GPUs by number and name: `cuda:0 NVIDIA H100`, or `cuda:0 to cuda:7 NVIDIA H100` where all are alike.
fn describe(devices: &[Device], gpus: &[String]) -> String {
    let name = |device: &Device| match device {
        Device::Cuda(number) => gpus.get(*number).map_or("", String::as_str),
        Device::Cpu | Device::Metal => "",
    };
    let alike = devices.windows(2).all(|pair| name(&pair[0]) == name(&pair[1]));
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

/// What is wrong with the first of these GPUs, unless one of them can be opened: a GPU that is broken must not
/// keep the others from work.
fn problem_of(
    numbers: impl IntoIterator<Item = usize>,
    open: impl Fn(Device) -> Result<(), String>,
) -> Option<String> {
    let mut first = None;
    for number in numbers {
        match open(Device::Cuda(number)) {
            Ok(()) => return None,
            Err(problem) => first = first.or(Some(problem)),
        }
    }
    first
}

/// Whether a trainer can open the device: one is started, and has nothing to do.
fn opened(device: Device) -> Result<(), String> {
    let trainer = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.args(["trainer", "--device", &device.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()
    });
    match trainer {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().rfind(|line| !line.trim().is_empty());
            let line = line.map(|line| line.strip_prefix("error: ").unwrap_or(line).to_owned());
            Err(line.unwrap_or_else(|| {
                format!("{device} cannot be used: a trainer ended with {}", output.status)
            }))
        }
        Err(error) => Err(format!("{device} cannot be used: no trainer can be started: {error}")),
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

    const PROCESSOR: Processor = Processor { cores: 4, widest_vectors: Some("avx2") };

    #[test]
    fn slots_are_one_per_gpu_or_per_core_unless_a_number_is_asked_for() {
        use DeviceChoice::{Auto, Cpu, Cuda};
        let built = Built { cuda: true, metal: false };
        let (cpu, gpu) = (Device::Cpu, Device::Cuda);
        let two = ["NVIDIA A", "NVIDIA B"].map(str::to_owned);
        let three = ["NVIDIA A"; 3].map(str::to_owned);
        let both = "cuda:0 NVIDIA A, cuda:1 NVIDIA B";
        let processor = "cpu (4 cores, avx2)";
        for (case, choice, slots, gpus, expected, described) in [
            ("a gpu without a name", Auto, None, &two[..0], vec![gpu(0)], "cuda:0"),
            ("cpu asked for", Cpu, None, &two, vec![cpu; 4], processor),
            ("fewer slots", Cpu, Some(1), &two, vec![cpu], processor),
            ("more slots", Cpu, Some(5), &two, vec![cpu; 5], processor),
            ("gpus", Auto, None, &two, vec![gpu(0), gpu(1)], both),
            ("shared gpus", Auto, Some(3), &two, vec![gpu(0), gpu(1), gpu(0)], both),
            ("gpus of a kind", Auto, None, &three, vec![gpu(0), gpu(1), gpu(2)], "cuda:0 to cuda:2 NVIDIA A"),
            ("one gpu", Cuda(1), None, &two, vec![gpu(1)], "cuda:1 NVIDIA B"),
            ("unnamed gpu", Cuda(5), Some(2), &two, vec![gpu(5); 2], "cuda:5"),
        ] {
            let slots = slots.and_then(NonZeroU32::new);
            let gpus = Gpus { names: gpus.to_vec(), problem: None };
            let devices = Devices::plan(choice, slots, built, &gpus, PROCESSOR).expect(case);
            assert_eq!(devices.slots, expected, "{case}");
            assert_eq!(devices.description, described, "{case}");
            assert_eq!(devices.note, None, "{case}");
        }
    }

    #[test]
    fn a_gpu_that_no_trainer_can_open_is_an_error_and_auto_goes_on_without() {
        let built = Built { cuda: true, metal: false };
        for names in [vec![], vec!["NVIDIA A".to_owned()]] {
            let gpus = Gpus { names, problem: Some("cuda:0 cannot be used: broken".to_owned()) };
            let plan = |choice| Devices::plan(choice, None, built, &gpus, PROCESSOR);
            let error = plan(DeviceChoice::Cuda(0)).expect_err("it cannot be used");
            assert_eq!(error.to_string(), "cuda:0 cannot be used: broken");
            let devices = plan(DeviceChoice::Auto).expect("there is the CPU");
            assert_eq!(devices.slots, [Device::Cpu; 4]);
            let note = "cuda:0 cannot be used: broken; going on with the CPU";
            assert_eq!(devices.note.as_deref(), Some(note));
        }
    }

    #[test]
    fn one_broken_gpu_does_not_keep_the_others_from_work() {
        let open = |working: &'static [Device]| {
            move |device| if working.contains(&device) { Ok(()) } else { Err(format!("{device} is broken")) }
        };
        assert_eq!(problem_of(0..3, open(&[Device::Cuda(0)])), None);
        assert_eq!(problem_of(0..3, open(&[Device::Cuda(2)])), None);
        assert_eq!(problem_of(0..3, open(&[])).as_deref(), Some("cuda:0 is broken"));
        assert_eq!(problem_of(1..=1, open(&[Device::Cuda(0)])).as_deref(), Some("cuda:1 is broken"));
    }

    #[test]
    fn what_the_program_was_not_built_for_is_refused() {
        let built = Built { cuda: false, metal: false };
        for (choice, said) in
            [(DeviceChoice::Cuda(0), "--features cuda"), (DeviceChoice::Metal, "--features metal")]
        {
            let gpus = Gpus { names: Vec::new(), problem: None };
            let error = Devices::plan(choice, None, built, &gpus, PROCESSOR).expect_err(said);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
