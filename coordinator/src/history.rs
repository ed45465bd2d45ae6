//! PURE: what happened to one trial, folded from its events.

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{Attempt, AttemptNumber};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::Failure;
use fittingroom_common::view::AttemptHistory;

/// The training attempts of a trial, from the trial's events.
pub fn attempts(events: &[Event]) -> Vec<AttemptHistory> {
    let mut attempts: Vec<AttemptHistory> = Vec::new();
    for event in events {
        match &event.fact {
            Fact::AttemptStarted { attempt, holder } => attempts.push(AttemptHistory {
                number: attempt.number,
                place: (holder.name.clone(), holder.slot),
                started: event.at,
                ended: None,
                epochs: Vec::new(),
                failure: None,
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

fn find(attempts: &mut [AttemptHistory], number: AttemptNumber) -> Option<&mut AttemptHistory> {
    attempts.iter_mut().find(|attempt| attempt.number == number)
}

fn end(attempts: &mut [AttemptHistory], attempt: Attempt, at: Timestamp, failure: Option<Failure>) {
    if let Some(it) = find(attempts, attempt.number) {
        it.ended = Some(at);
        it.failure = failure;
    }
}
