//! What the bearer of a token may do.

use std::fmt;
use std::str::FromStr;

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Operator,
    /// What a worker needs: taking trials, reporting them, moving datasets and models.
    Worker,
    /// Looking at searches, trials and workers, and getting models.
    Viewer,
}

/// A word is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no role; it is operator, worker or viewer")]
pub struct RoleError {
    /// The word.
    word: String,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Worker, Self::Viewer];

    /// The role's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Worker => "worker",
            Self::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let wrong = || RoleError { word: text.chars().take(80).collect() };
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(wrong)
    }
}
