//! How busy a worker's GPUs are.

use std::fmt;

/// How busy one GPU is, at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuLoad {
    /// Its number on its worker, as in `--device cuda:N`.
    pub number: u32,
    /// What it is known by wherever it is: `GPU-…`, as `nvidia-smi -L` tells it.
    pub uuid: GpuWords,
    /// Its kind: `NVIDIA H100 80GB HBM3`.
    pub name: GpuWords,
    /// How much it computes; `None` where the driver does not tell.
    pub utilization: Option<Utilization>,
    /// Its memory; `None` where the driver does not tell.
    pub memory: Option<GpuMemory>,
}

/// The share of the time in which a GPU computed anything, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Utilization(f64);

impl Utilization {
    /// The share, if it is one.
    pub fn new(share: f64) -> Option<Self> {
        // Adding zero turns -0.0 into 0.0 and nothing else into anything else.
        (0.0..=1.0).contains(&share).then_some(Self(share + 0.0))
    }

    /// The share.
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// A GPU's memory, of all programs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    used: u64,
    total: u64,
}

impl GpuMemory {
    /// The most that any GPU is believed to have, in bytes.
    pub const MOST: u64 = 1 << 50;

    /// So many bytes of so many, unless they are more than there are, or than any GPU has.
    pub const fn new(used: u64, total: u64) -> Option<Self> {
        if used <= total && total <= Self::MOST { Some(Self { used, total }) } else { None }
    }

    /// Bytes in use.
    pub const fn used(self) -> u64 {
        self.used
    }

    /// Bytes that it has.
    pub const fn total(self) -> u64 {
        self.total
    }
}

/// What a driver calls a GPU: a short text without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuWords(Box<str>);

impl GpuWords {
    /// The longest, in bytes, as it is to NVIDIA's driver.
    pub const MAX_LENGTH: usize = 96;

    /// The text, if it is short enough and has no control characters.
    pub fn new(text: &str) -> Option<Self> {
        (*Self::sanitised(text).0 == *text).then(|| Self(text.into()))
    }

    /// A text made usable: control characters are left out, and what is too long is cut.
    pub fn sanitised(text: &str) -> Self {
        let mut words = String::new();
        for c in text.chars().filter(|c| !c.is_control()) {
            if words.len() + c.len_utf8() > Self::MAX_LENGTH {
                break;
            }
            words.push(c);
        }
        Self(words.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GpuWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_bytes_are_within_their_bounds() {
        for (share, expected) in [(0.0, true), (1.0, true), (-0.001, false), (1.001, false)] {
            assert_eq!(Utilization::new(share).is_some(), expected, "{share}");
        }
        for share in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Utilization::new(share), None, "{share}");
        }
        assert!(Utilization::new(-0.0).is_some_and(|it| it.get().is_sign_positive()));
        assert!(GpuMemory::new(0, 0).is_some() && GpuMemory::new(GpuMemory::MOST, GpuMemory::MOST).is_some());
        for (used, total) in [(2, 1), (0, GpuMemory::MOST + 1), (u64::MAX, u64::MAX)] {
            assert_eq!(GpuMemory::new(used, total), None, "{used} of {total}");
        }
    }

    #[test]
    fn words_are_short_and_on_one_line() {
        let long = "é".repeat(60);
        for (text, made) in [
            ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
            ("", ""),
            ("a\n\u{1b}[31mb", "a[31mb"),
            (&long, &long[..96]),
        ] {
            assert_eq!(GpuWords::sanitised(text).as_str(), made);
            assert_eq!(GpuWords::new(text).is_some(), text == made, "{text:?}");
        }
    }
}
