//! Keeps the leases of what this worker holds. It waits for nothing but its own calls, so that no
//! transfer and no slow answer elsewhere can cost a lease.

use std::time::Duration;

use super::{AgentError, Shared};

/// What a heartbeat may take at least, however short the interval.
const LEAST_DEADLINE: Duration = Duration::from_secs(1);
/// For how many heartbeats, and how long at least, what GPUs were like is told. It comes from a heartbeat
/// before, and a driver may be slow.
const GPUS_ARE_TOLD_FOR: (u32, Duration) = (3, Duration::from_secs(5));

/// Sends heartbeats for ever, and has dropped what their answers say is to be dropped.
pub(crate) async fn run(shared: &Shared) -> Result<(), AgentError> {
    let (session, table, drain) = (&shared.session, &shared.table, &shared.ending.drain);
    loop {
        // Often enough for whoever waits for this worker's signs of life, too.
        let interval = session.heartbeat_interval().await.min(shared.service_manager.interval());
        let draining = drain.is_cancelled();
        let held = table.snapshot();
        let (beats, least) = GPUS_ARE_TOLD_FOR;
        let gpus = shared.gpus.as_ref().map(|gpus| gpus.newest((interval * beats).max(least)));
        let gpus = gpus.unwrap_or_default();
        let answer = session.heartbeat(&held, &gpus, draining, interval.max(LEAST_DEADLINE)).await?;
        if let Some(directives) = answer {
            table.obey(&held, &directives);
        }
        shared.rounds.made();
        if draining {
            tokio::time::sleep(interval).await;
        } else {
            // A drain is told at once, so that the coordinator counts on this worker no more.
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = drain.cancelled() => {}
            }
        }
    }
}
