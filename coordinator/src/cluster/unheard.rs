//! Work that nobody does: of slots that have not heard what they were given, since the answers to their leases
//! were lost, and of workers that are not let in any more.

use std::sync::Arc;

use fittingroom_common::id::{SlotNumber, WorkerId};
use fittingroom_common::work::{Assignment, Held, Outcome, SearchAttempt};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Cluster, ClusterError};
use crate::runner::{Refusal, SearchHandle};
use crate::search::Command;

/// What a search has given to a slot that asks for work, and so holds none. The lease begins anew: the
/// slot hears of it only now.
pub(super) async fn given_to(
    search: &SearchHandle,
    worker: WorkerId,
    slot: SlotNumber,
) -> Result<Option<Assignment>, Refusal> {
    let given = search.query(move |search| search.assignment(worker, slot)).await?;
    if let Some(assignment) = &given {
        search.renew(worker, vec![(assignment.id.attempt, None)]).await?;
    }
    Ok(given)
}

impl Cluster {
    /// Takes back what a draining worker was given and does not hold: the answer to its lease was lost.
    pub(super) async fn release_lost(&self, worker: WorkerId, held: &[Held]) -> Result<(), ClusterError> {
        for search in self.open_searches() {
            if search.pulse_now().leases == 0 {
                continue;
            }
            for attempt in search.query(move |search| search.held_by(worker)).await? {
                let id = SearchAttempt { search: search.id(), attempt };
                if held.iter().any(|it| it.id == id) {
                    continue;
                }
                let command = Command::Complete { attempt, worker, outcome: Outcome::Released };
                match search.command(command, |_| ()).await {
                    // It may have ended in between.
                    Ok(()) | Err(Refusal::Rejected(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Once calls need a token, takes back what workers hold that joined without one: they cannot give it back
    /// themselves, and that they are lost is no fault of their trials.
    pub async fn dismiss_strangers(self: Arc<Self>, closed: CancellationToken) {
        tokio::select! {
            () = closed.cancelled() => {}
            () = self.shutdown().cancelled() => return,
        }
        for worker in self.workers.forget_strangers() {
            if let Err(error) = self.release_lost(worker, &[]).await {
                warn!(%error, "what a worker holds that joined without a token waits for its lease to end");
            }
        }
    }
}
