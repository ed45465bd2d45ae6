//! One slot: takes work while the agent wants any, runs it, tells its outcome.

use std::sync::Arc;

use fittingroom_common::id::SlotNumber;
use fittingroom_common::trial::{Failure, FailureReason};
use fittingroom_common::work::Outcome;
use tracing::{Instrument, error, error_span, info, warn};

use super::attempt::{End, Run};
use super::connection::Leased;
use super::held::Hold;
use super::provision::wait_for_room;
use super::seat::Seat;
use super::session::CallError;
use super::{AgentError, Shared};

/// Runs a slot until the agent ends.
pub(crate) async fn run(shared: Arc<Shared>, slot: SlotNumber, mut seat: Seat) -> Result<(), AgentError> {
    let result = work(&shared, slot, &mut seat).instrument(error_span!("slot", slot = slot.get())).await;
    seat.close().await;
    result
}

async fn work(shared: &Shared, slot: SlotNumber, seat: &mut Seat) -> Result<(), AgentError> {
    let drain = &shared.ending.drain;
    // A worker that cannot train must not fail one trial after another.
    let mut setback = shared.timing.backoff();
    loop {
        let leased = tokio::select! {
            biased;
            () = drain.cancelled() => return Ok(()),
            leased = async {
                seat.prepare().await;
                shared.session.lease(slot).await
            } => leased,
        };
        match leased {
            Ok(Leased::Nothing) => {}
            Ok(Leased::Work(assignment)) => {
                let hold = shared.table.hold(slot, assignment.id);
                let attempt = assignment.id.attempt;
                let span = error_span!(
                    "attempt",
                    search = %assignment.search_name,
                    trial = attempt.trial.get(),
                    attempt = attempt.number.get()
                );
                let run = Run { shared, seat, hold: &hold };
                let pause = async {
                    info!("attempt taken");
                    match run.run(&assignment).await? {
                        End::Complete(outcome) => {
                            complete(shared, &hold, &outcome).await?;
                            Ok(if is_setback(&outcome) { Pause::ForAWhile } else { Pause::None })
                        }
                        End::Drop => {
                            info!("attempt dropped");
                            Ok::<_, AgentError>(Pause::None)
                        }
                        End::NoRoom { problem, bytes } => {
                            error!(
                                problem,
                                "this machine's disk is in the way, so the attempt is given back"
                            );
                            complete(shared, &hold, &Outcome::Released).await?;
                            Ok(Pause::UntilThereIsRoom(bytes))
                        }
                    }
                }
                .instrument(span)
                .await?;
                drop(hold);
                let paused = async {
                    match pause {
                        Pause::None => setback.reset(),
                        Pause::ForAWhile => tokio::time::sleep(setback.next()).await,
                        Pause::UntilThereIsRoom(bytes) => {
                            wait_for_room(shared, assignment.dataset.files, bytes).await;
                        }
                    }
                };
                tokio::select! {
                    biased;
                    () = paused => {}
                    () = drain.cancelled() => {}
                }
            }
            Ok(Leased::Unreadable { id, error }) => {
                error!(%error, "the coordinator's assignment cannot be read");
                let detail = format!("the worker cannot read the assignment: {error}");
                let failure = Failure::new(FailureReason::BadData, detail);
                complete(shared, &shared.table.hold(slot, id), &Outcome::Failed(failure)).await?;
            }
            Err(CallError::Fatal(error)) => return Err(error),
            Err(CallError::GaveUp) => return Ok(()),
            Err(error @ (CallError::Superseded | CallError::Refused(_))) => {
                error!(%error, "the coordinator gives no work; trying again");
                tokio::select! {
                    () = drain.cancelled() => {}
                    () = tokio::time::sleep(shared.timing.retry_last) => {}
                }
            }
        }
    }
}

/// What a slot waits for before it takes work again.
enum Pause {
    None,
    ForAWhile,
    /// So many bytes of it.
    UntilThereIsRoom(u64),
}

/// Whether an outcome may be this worker's fault.
fn is_setback(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(failure) if failure.reason != FailureReason::Diverged)
}

/// Tells an outcome; the attempt is held until that is done.
async fn complete(shared: &Shared, hold: &Hold, outcome: &Outcome) -> Result<(), AgentError> {
    match shared.session.complete(hold.id, outcome).await {
        Ok(()) => {
            match outcome {
                Outcome::Failed(failure) => warn!(reason = %failure.reason, "attempt failed"),
                Outcome::Trained { .. } | Outcome::Evaluated(_) => info!("attempt completed"),
                Outcome::Released => info!("attempt given back"),
            }
            Ok(())
        }
        Err(CallError::Superseded) => {
            info!("attempt superseded before its outcome was told");
            Ok(())
        }
        Err(CallError::GaveUp) => {
            warn!("ending before the coordinator took the outcome; it will hand the attempt out again");
            Ok(())
        }
        Err(CallError::Fatal(error)) => Err(error),
        Err(error @ CallError::Refused(_)) => {
            error!(%error, "outcome refused");
            tokio::time::sleep(shared.timing.retry_last).await;
            Ok(())
        }
    }
}
