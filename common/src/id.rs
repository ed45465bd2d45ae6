//! Identifiers, one type each, so that a trial's number can never be passed for a worker's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a number that is known to be this kind of identifier.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The bare number, for the wire, the log and arithmetic.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// One launched search, numbered by the coordinator in the order of launching, from 1.
    SearchId(u64)
}
number_id! {
    /// One trial of a search, numbered from 0 in the order in which the method draws them.
    TrialId(u64)
}
number_id! {
    /// One try at running a trial, numbered from 1. It is the fencing token: whatever names an
    /// older number is refused.
    AttemptNumber(u32)
}
number_id! {
    /// One place to train on a worker, numbered from 0.
    SlotNumber(u32)
}

impl AttemptNumber {
    /// The first try at a trial.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One try at one trial: what a lease, a report and a completion are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The trial that is tried.
    pub trial: TrialId,
    /// Which try it is.
    pub number: AttemptNumber,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.trial, self.number)
    }
}

/// What made a name or an identifier unacceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name has a character, a length or a start that names may not have.
    #[error(
        "{name:?} is not a usable name: use 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', beginning with a letter or digit"
    )]
    Name {
        /// The name as it came.
        name: String,
    },
    /// A text is not the 64 hexadecimal digits of a BLAKE3 hash.
    #[error("{text:?} is not an artifact hash: 64 hexadecimal digits are needed")]
    Hash {
        /// The text as it came.
        text: String,
    },
    /// A text is not the 32 hexadecimal digits of a worker's identity.
    #[error("{text:?} is not a worker id: 32 hexadecimal digits are needed")]
    Worker {
        /// The text as it came.
        text: String,
    },
}

/// A name that people type: of a search, a dataset or a worker. It is safe as a file name. Copies
/// share the text, since a search of a million trials names its few workers in each of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LENGTH: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name made from any text: unusable characters become `-`, what is too long is cut, and
    /// nothing at all becomes `unnamed`.
    pub fn sanitised(text: &str) -> Self {
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name: String = text
            .chars()
            .map(|c| if usable(c) { c } else { '-' })
            .skip_while(|c| !c.is_ascii_alphanumeric())
            .take(Self::MAX_LENGTH)
            .collect();
        if name.is_empty() { Self("unnamed".into()) } else { Self(name.into()) }
    }
}

impl FromStr for Name {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let named = Self::sanitised(text);
        if &*named.0 == text {
            Ok(named)
        } else {
            Err(IdError::Name { name: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One run of a worker's agent: 128 random bits that the agent draws when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(u128);

impl WorkerId {
    /// Wraps the bits that an agent drew.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits that the agent drew.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for WorkerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Worker { text: text.chars().take(80).collect() };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| wrong())
    }
}

/// The BLAKE3 hash that names an artifact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactHash([u8; 32]);

impl ArtifactHash {
    /// Wraps the 32 bytes of a hash.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ArtifactHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for ArtifactHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactHash({self})")
    }
}

impl FromStr for ArtifactHash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| IdError::Hash { text: text.chars().take(80).collect() })
    }
}

impl Serialize for ArtifactHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ArtifactHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        for good in ["a", "first-try", "2026.11_b"] {
            assert_eq!(good.parse::<Name>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", "../a", "a/b", "a b", "-a", "é", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Name::sanitised("../my file").as_str(), "my-file");
    }

    #[test]
    fn hashes_and_worker_ids_read_back_what_they_print() {
        let hash = ArtifactHash::of(b"abc");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("abc".parse::<ArtifactHash>().is_err());
        let worker = WorkerId::new(0x1234);
        assert_eq!(worker.to_string().parse(), Ok(worker));
        assert!("+1234567890123456789012345678901".parse::<WorkerId>().is_err());
    }
}
