//! Where training runs: the CPU, or a GPU that this binary was built for and this machine has.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU, one core of it.
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
    /// A GPU if there is one that can be used, else the CPU.
    Auto,
}

/// A device that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// Which it is; never `Auto`.
    pub choice: DeviceChoice,
    /// Why it is not the GPU that `auto` looked for, if this binary can use one.
    pub note: Option<String>,
}

/// Not a device's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no device {given:?}: it can be cpu, cuda:N (an NVIDIA GPU's number, from 0), metal or auto"
)]
pub struct UnknownDevice {
    /// The name as it came.
    pub given: String,
}

/// A device cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}. Take --device cpu, or auto")]
pub struct UnusableDevice {
    /// Which, and what is in the way.
    pub problem: String,
}

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "metal" => Ok(Self::Metal),
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| UnknownDevice { given: text.chars().take(80).collect() }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.pad("metal"),
            Self::Auto => f.pad("auto"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    pub fn open(self) -> Result<Opened, UnusableDevice> {
        let opened = |device: Result<Device, String>| match device {
            Ok(device) => Ok(Opened { device, choice: self, note: None }),
            Err(problem) => {
                Err(UnusableDevice { problem: format!("{self} cannot be used: {}", first_line(&problem)) })
            }
        };
        match self {
            Self::Cpu => opened(Ok(Device::Cpu)),
            Self::Cuda(number) => opened(new_cuda(number)),
            Self::Metal => opened(Device::new_metal(0).map_err(|error| error.to_string())),
            Self::Auto => {
                let gpu = if candle_core::utils::cuda_is_available() {
                    Self::Cuda(0)
                } else if candle_core::utils::metal_is_available() {
                    Self::Metal
                } else {
                    return Self::Cpu.open();
                };
                gpu.open().or_else(|UnusableDevice { problem }| {
                    let note = format!("{problem}; going on with the CPU");
                    Ok(Opened { note: Some(note), ..Self::Cpu.open()? })
                })
            }
        }
    }
}

/// A GPU as training wants it.
fn new_cuda(number: usize) -> Result<Device, String> {
    #[cfg(feature = "cuda")]
    super::cuda::load()?;
    let device = Device::new_cuda(number).map_err(|error| error.to_string())?;
    #[cfg(feature = "cuda")]
    super::cuda::prepare(&device).map_err(|error| error.to_string())?;
    Ok(device)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for choice in [DeviceChoice::Cpu, DeviceChoice::Cuda(3), DeviceChoice::Metal, DeviceChoice::Auto] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for text in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text:?}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_there_is_an_error_and_auto_goes_on_without() {
        let error = DeviceChoice::Cuda(0).open().expect_err("this build has no CUDA");
        assert!(error.to_string().starts_with("cuda:0 cannot be used"), "{error}");
        assert!(DeviceChoice::Auto.open().is_ok());
    }
}
