//! What people ask of the coordinator.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::dataset::Manifest;
use crate::id::{ArtifactHash, Name};
use crate::space::SearchSpec;

/// A search to create and start.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What to call it; `None` lets the coordinator pick.
    pub name: Option<Name>,
    /// What it searches.
    pub spec: SearchSpec,
    /// A dataset that the coordinator holds.
    pub dataset: Name,
}

/// A change of a search's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start no new trials until it is resumed.
    Pause,
    /// Start new trials again.
    Resume,
    /// Start no new trials any more, and let running ones finish.
    Stop,
    /// End now, and drop what runs.
    Cancel,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Pause, Self::Resume, Self::Stop, Self::Cancel];

    /// The word for it on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Cancel => "cancel",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Four uploaded files that are to be a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddDataset {
    /// What search files are to call it.
    pub name: Name,
    /// The unpacked files' hashes, in the order of [`FileRole::ALL`](crate::dataset::FileRole::ALL).
    pub files: [ArtifactHash; 4],
}

/// What the coordinator says while it obtains a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchStep {
    /// What is being done, for people.
    Progress(String),
    /// The dataset is there.
    Done(Manifest),
}

/// What a backup holds beside the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifacts {
    /// Every model, dataset and checkpoint that is needed to go on.
    Included,
    /// Nothing: they are kept elsewhere.
    LeftOut,
}

/// What the coordinator sends of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupPart {
    /// First of all, how many bytes it has.
    Total(u64),
    /// The next bytes.
    Bytes(Bytes),
}
