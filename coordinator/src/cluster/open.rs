//! Starts what the log holds.

use tracing::info;

use super::ClusterError;
use crate::log::Listed;
use crate::runner::restore::{self, Loaded};
use crate::runner::{self, SearchHandle, Surroundings};

/// Starts the runner of a stored search. One that has ended rests until somebody asks for it, if its snapshot says enough.
pub(super) async fn search(
    listed: Listed,
    surroundings: &Surroundings,
) -> Result<SearchHandle, ClusterError> {
    let Listed { id, name } = listed;
    let log = surroundings.log.as_ref();
    if let Some(glance) = restore::glance(log, id).await {
        info!(search = %name, state = %glance.summary.state, "search rests");
        return Ok(runner::start_resting(id, glance, surroundings.clone()));
    }
    let loaded = restore::load(log, id, surroundings.lease).await?;
    let Loaded { mut search, snapshot } = loaded.ok_or(ClusterError::Damaged { name: name.clone() })?;
    search.grant_grace(surroundings.clock.now());
    info!(search = %name, state = %search.state(), events = search.version(), snapshot, "search loaded");
    Ok(runner::start(search, surroundings.clone()))
}
