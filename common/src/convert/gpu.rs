//! Conversions of what workers say of their GPUs.

use super::DecodeError;
use crate::gpu::{GpuLoad, GpuMemory, GpuWords, Utilization};
use crate::proto as pb;

/// The most GPUs of one worker.
pub const MAX_GPUS: usize = 64;

impl From<&GpuLoad> for pb::Gpu {
    fn from(it: &GpuLoad) -> Self {
        Self {
            number: it.number,
            uuid: it.uuid.to_string(),
            name: it.name.to_string(),
            utilization: it.utilization.map(Utilization::get),
            memory: it.memory.map(|it| pb::GpuMemory { used_bytes: it.used(), total_bytes: it.total() }),
        }
    }
}

fn words(field: &'static str, text: &str) -> Result<GpuWords, DecodeError> {
    GpuWords::new(text).ok_or_else(|| DecodeError::Outside {
        field,
        value: format!("these {} bytes", text.len()),
        allowed: "at most 96 bytes without control characters",
    })
}

impl TryFrom<pb::Gpu> for GpuLoad {
    type Error = DecodeError;

    fn try_from(it: pb::Gpu) -> Result<Self, DecodeError> {
        let utilization = |share| {
            Utilization::new(share).ok_or_else(|| DecodeError::Outside {
                field: "gpus.utilization",
                value: share.to_string(),
                allowed: "0 to 1",
            })
        };
        let memory = |it: pb::GpuMemory| {
            GpuMemory::new(it.used_bytes, it.total_bytes).ok_or_else(|| DecodeError::Outside {
                field: "gpus.memory",
                value: format!("{} of {} bytes", it.used_bytes, it.total_bytes),
                allowed: "no more bytes than there are, and 2^50 at most",
            })
        };
        Ok(Self {
            number: it.number,
            uuid: words("gpus.uuid", &it.uuid)?,
            name: words("gpus.name", &it.name)?,
            utilization: it.utilization.map(utilization).transpose()?,
            memory: it.memory.map(memory).transpose()?,
        })
    }
}

impl GpuLoad {
    /// All GPUs of a worker.
    pub fn all_from_wire(gpus: Vec<pb::Gpu>) -> Result<Vec<Self>, DecodeError> {
        if gpus.len() > MAX_GPUS {
            return Err(DecodeError::TooMany { field: "gpus", found: gpus.len(), most: MAX_GPUS });
        }
        gpus.into_iter().map(Self::try_from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> GpuLoad {
        GpuLoad {
            number: 3,
            uuid: GpuWords::sanitised("GPU-815"),
            name: GpuWords::sanitised("NVIDIA H100"),
            utilization: Utilization::new(0.37),
            memory: GpuMemory::new(5, 80 << 30),
        }
    }

    #[test]
    fn what_is_sent_is_what_arrives() {
        for sent in [load(), GpuLoad { utilization: None, memory: None, ..load() }] {
            assert_eq!(GpuLoad::try_from(pb::Gpu::from(&sent)), Ok(sent));
        }
        let most = vec![pb::Gpu::from(&load()); MAX_GPUS];
        assert_eq!(GpuLoad::all_from_wire(most).map(|gpus| gpus.len()), Ok(MAX_GPUS));
    }

    #[test]
    fn an_unusable_gpu_is_refused_with_the_field_named() {
        let changed = |change: fn(&mut pb::Gpu)| {
            let mut wire = pb::Gpu::from(&load());
            change(&mut wire);
            GpuLoad::try_from(wire).expect_err("must be refused").to_string()
        };
        let too_many = GpuLoad::all_from_wire(vec![pb::Gpu::default(); MAX_GPUS + 1]).expect_err("too many");
        for (message, said) in [
            (changed(|it| it.utilization = Some(f64::NAN)), "gpus.utilization cannot be NaN"),
            (changed(|it| it.utilization = Some(1.5)), "gpus.utilization cannot be 1.5"),
            (changed(|it| it.utilization = Some(f64::NEG_INFINITY)), "gpus.utilization cannot be -inf"),
            (changed(|it| it.memory.as_mut().expect("set").total_bytes = 4), "gpus.memory cannot be 5 of 4"),
            (changed(|it| it.memory.as_mut().expect("set").total_bytes = u64::MAX), "gpus.memory cannot be"),
            (changed(|it| it.name = "x".repeat(97)), "gpus.name cannot be these 97 bytes"),
            (changed(|it| it.uuid = "a\nb".to_owned()), "gpus.uuid cannot be these 3 bytes"),
            (too_many.to_string(), "gpus has 65 entries; at most 64"),
        ] {
            assert!(message.contains(said), "{message:?} does not say {said:?}");
        }
    }
}
