//! PURE: what happened to one trial, folded from its events.

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{Attempt, AttemptNumber};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, Report};
use fittingroom_common::view::AttemptHistory;

use crate::search::KEPT_CHECKPOINTS;

/// The training attempts of a trial, from the trial's events.
pub fn attempts(events: &[Event]) -> Vec<AttemptHistory> {
    let mut attempts: Vec<AttemptHistory> = Vec::new();
    // Those that are kept, the newest last.
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    for event in events {
        match &event.fact {
            Fact::AttemptStarted { attempt, holder } => attempts.push(AttemptHistory {
                number: attempt.number,
                place: (holder.name.clone(), holder.slot),
                started: event.at,
                ended: None,
                epochs: Vec::new(),
                failure: None,
                resumed_from: checkpoints.last().copied(),
            }),
            Fact::EpochReported { attempt, report } => {
                if let Some(it) = find(&mut attempts, attempt.number) {
                    it.epochs.push(*report);
                }
            }
            Fact::TrialCompleted { attempt, .. } | Fact::AttemptReleased { attempt } => {
                end(&mut attempts, *attempt, event.at, None);
            }
            Fact::AttemptFailed { attempt, failure } => {
                end(&mut attempts, *attempt, event.at, Some(failure.clone()));
            }
            Fact::CheckpointKept { checkpoint, .. } => {
                checkpoints.push(*checkpoint);
                if checkpoints.len() > KEPT_CHECKPOINTS {
                    checkpoints.remove(0);
                }
            }
            Fact::CheckpointLost { attempt, hash, .. } => {
                checkpoints.retain(|checkpoint| checkpoint.hash != *hash);
                if let Some(it) = find(&mut attempts, attempt.number) {
                    it.resumed_from = checkpoints.last().copied();
                }
            }
            Fact::SearchCreated(_)
            | Fact::TrialPlanned { .. }
            | Fact::TrialFailed { .. }
            | Fact::TrialCancelled { .. }
            | Fact::EvaluationStarted { .. }
            | Fact::EvaluationFailed { .. }
            | Fact::BestEvaluated { .. }
            | Fact::SearchPaused
            | Fact::SearchResumed
            | Fact::SearchStopping { .. }
            | Fact::SearchCancelled
            | Fact::SearchCompleted
            | Fact::SearchFailed { .. } => {}
        }
    }
    attempts
}

/// The epochs that count for a trial, each once, with the attempt that trained it: those of its
/// newest attempt, and those before the checkpoint that it went on from.
pub fn epochs(attempts: Vec<AttemptHistory>) -> Vec<(AttemptNumber, Report)> {
    let mut counted: Vec<(AttemptNumber, Report)> = Vec::new();
    for attempt in attempts {
        let begun_after = attempt.resumed_from.map_or(0, |checkpoint| checkpoint.place.epoch);
        counted.retain(|(_, report)| report.epoch <= begun_after);
        counted.extend(attempt.epochs.into_iter().map(|report| (attempt.number, report)));
    }
    counted
}

fn find(attempts: &mut [AttemptHistory], number: AttemptNumber) -> Option<&mut AttemptHistory> {
    attempts.iter_mut().find(|attempt| attempt.number == number)
}

fn end(attempts: &mut [AttemptHistory], attempt: Attempt, at: Timestamp, failure: Option<Failure>) {
    if let Some(it) = find(attempts, attempt.number) {
        it.ended = Some(at);
        it.failure = failure;
    }
}
