//! Reads what the log holds, and starts it.

use fittingroom_common::id::{ArtifactHash, SearchId, TrialId};
use tracing::info;

use super::ClusterError;
use crate::log::Listed;
use crate::runner::restore::{self, Loaded};
use crate::runner::{self, SearchHandle, Surroundings};
use crate::search::{Glance, Search};

/// A stored search, before its runner is started.
pub(super) enum Opened {
    /// It has ended, and its snapshot says enough until somebody asks for more.
    Resting {
        id: SearchId,
        glance: Box<Glance>,
    },
    Loaded(Box<Search>),
}

/// Reads a stored search. To be called in its span.
pub(super) async fn search(listed: Listed, surroundings: &Surroundings) -> Result<Opened, ClusterError> {
    let Listed { id, name } = listed;
    let log = surroundings.log.as_ref();
    if let Some(glance) = restore::glance(log, id).await {
        info!(state = %glance.summary.state, "search rests");
        return Ok(Opened::Resting { id, glance: Box::new(glance) });
    }
    let loaded = restore::load(log, id, surroundings.lease).await?;
    let Loaded { mut search, snapshot } = loaded.ok_or(ClusterError::Damaged { name: name.clone() })?;
    search.grant_grace(surroundings.clock.now());
    info!(state = %search.state(), events = search.version(), snapshot, "search loaded");
    Ok(Opened::Loaded(Box::new(search)))
}

impl Opened {
    /// Every checkpoint that it keeps. One that has ended keeps none.
    pub(super) fn checkpoints(&self) -> Vec<(SearchId, TrialId, ArtifactHash)> {
        match self {
            Self::Resting { .. } => Vec::new(),
            Self::Loaded(search) => {
                search.checkpoints().map(|(trial, hash)| (search.id(), trial, hash)).collect()
            }
        }
    }

    pub(super) fn start(self, surroundings: Surroundings) -> SearchHandle {
        match self {
            Self::Resting { id, glance } => runner::start_resting(id, *glance, surroundings),
            Self::Loaded(search) => runner::start(*search, surroundings),
        }
    }
}
