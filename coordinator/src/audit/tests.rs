//! A good log, and each way in which it can be broken.

use std::time::Duration;

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::event::Fact;
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{ArtifactHash, Name, SearchId};
use fittingroom_common::space::SearchSpec;
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason, Finite, Score, Seeds};
use fittingroom_common::work::Holder;

use super::*;
use crate::search::Search;

const GRID: &str = "
method: grid
seed: 3
epochs: 2
max_attempts: 2
parameters:
  learning_rate: {values: [0.1, 0.01, 0.001]}
";

fn created() -> Created {
    let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
    Created {
        name: Name::sanitised("search"),
        spec: SearchSpec::parse("search.yaml", GRID).expect("parses").spec,
        dataset: Manifest { name: Name::sanitised("data"), shape, files: [ArtifactHash::of(b""); 4] },
        defaults: Hyperparameters::defaults(),
    }
}

fn planned(trial: u64) -> Fact {
    let (created, trial) = (created(), TrialId::new(trial));
    let hyperparameters = Plan::new(&created.spec).hyperparameters(trial).expect("the grid has it");
    let seeds = Seeds::derive(created.spec.seed, 0, trial);
    Fact::TrialPlanned { trial, replicate: 0, hyperparameters, seeds }
}

fn attempt(trial: u64, number: u32) -> Attempt {
    Attempt { trial: TrialId::new(trial), number: AttemptNumber::new(number) }
}

fn holder(worker: u128) -> Holder {
    Holder {
        worker: WorkerId::new(worker),
        name: Name::sanitised(&format!("worker-{worker}")),
        slot: SlotNumber::new(0),
    }
}

fn started(trial: u64, number: u32, worker: u128) -> Fact {
    Fact::AttemptStarted { attempt: attempt(trial, number), holder: holder(worker) }
}

fn score(accuracy: f64) -> Score {
    let finite = |number| Finite::new(number).expect("finite");
    Score { loss: finite(1.0 - accuracy), accuracy: finite(accuracy) }
}

fn reported(trial: u64, number: u32, epoch: u32, accuracy: f64) -> Fact {
    let score = score(accuracy);
    let report =
        Report { epoch, train: score, validation: score, test: None, seconds: 1.0, images_per_second: 1.0 };
    Fact::EpochReported { attempt: attempt(trial, number), report }
}

fn completed(trial: u64, number: u32, model: Option<&[u8]>) -> Fact {
    Fact::TrialCompleted { attempt: attempt(trial, number), model: model.map(ArtifactHash::of) }
}

fn failed(trial: u64, number: u32, reason: FailureReason) -> Fact {
    Fact::AttemptFailed { attempt: attempt(trial, number), failure: Failure::new(reason, "") }
}

fn given_up(trial: u64) -> Fact {
    let failure = Failure::new(FailureReason::Diverged, "");
    Fact::TrialFailed { trial: TrialId::new(trial), failure }
}

fn cancelled(trial: u64) -> Fact {
    Fact::TrialCancelled { trial: TrialId::new(trial) }
}

fn kept(trial: u64, number: u32, epoch: u32) -> Fact {
    let place = CheckpointPlace { epoch, step: 0 };
    let checkpoint = Checkpoint { place, hash: ArtifactHash::of(b"checkpoint") };
    Fact::CheckpointKept { attempt: attempt(trial, number), checkpoint }
}

fn lost(trial: u64, number: u32, content: &[u8]) -> Fact {
    let hash = ArtifactHash::of(content);
    Fact::CheckpointLost { attempt: attempt(trial, number), hash, problem: String::new() }
}

fn evaluation(trial: u64, number: u32) -> Fact {
    Fact::EvaluationStarted { attempt: attempt(trial, number), holder: holder(1) }
}

fn evaluated(trial: u64) -> Fact {
    Fact::BestEvaluated { trial: TrialId::new(trial), test: score(0.5) }
}

fn stopping() -> Fact {
    Fact::SearchStopping { reason: String::new() }
}

/// Three trials: one is complete and the best, one is complete at its second attempt, one diverges.
fn good() -> Vec<Fact> {
    vec![
        Fact::SearchCreated(Box::new(created())),
        planned(0),
        started(0, 1, 1),
        planned(1),
        started(1, 1, 2),
        // The sixth event.
        reported(1, 1, 1, 0.2),
        failed(1, 1, FailureReason::TrainerCrashed),
        started(1, 2, 2),
        reported(0, 1, 1, 0.4),
        // The tenth.
        reported(0, 1, 2, 0.5),
        completed(0, 1, Some(b"model")),
        reported(1, 2, 1, 0.3),
        reported(1, 2, 2, 0.4),
        completed(1, 2, None),
        // The fifteenth.
        planned(2),
        started(2, 1, 1),
        failed(2, 1, FailureReason::Diverged),
        given_up(2),
        evaluation(0, 2),
        // The twentieth.
        evaluated(0),
        Fact::SearchCompleted,
    ]
}

fn audit(facts: &[Fact]) -> Audit {
    let at = Timestamp::from_millis(0);
    let events: Vec<Event> = facts.iter().map(|fact| Event { at, fact: fact.clone() }).collect();
    Audit::of(&events)
}

/// The names of what is found.
fn names(audit: &Audit) -> Vec<String> {
    let name = |finding: &Finding| {
        let shown = format!("{:?}", finding.violation);
        shown.split([' ', '{']).next().expect("the variant's name").to_owned()
    };
    audit.findings().iter().map(name).collect()
}

#[test]
fn a_good_log_has_no_findings_and_is_counted() {
    let audit = audit(&good());
    assert_eq!(audit.findings(), []);
    assert_eq!(audit.tally(), Tally { events: 21, attempts: 4, epochs: 5, repeated_epochs: 1 });
    assert_eq!(audit.state(), Some(SearchState::Complete));
    assert_eq!(audit.counts(), TrialCounts { complete: 2, failed: 1, ..TrialCounts::default() });
    assert_eq!((audit.best(), audit.leases()), (Some(TrialId::new(0)), 0));
}

#[test]
fn the_audit_and_the_state_machine_tell_the_same_of_a_good_log() {
    let at = Timestamp::from_millis(0);
    let events = good().into_iter().map(|fact| Event { at, fact });
    for length in 1..=good().len() {
        let lease = Duration::from_secs(30);
        let search = Search::replay(SearchId::new(1), events.clone().take(length), lease).expect("created");
        let audit = audit(&good()[..length]);
        assert_eq!(audit.findings(), [], "the first {length}");
        assert_eq!(audit.counts(), search.summary().counts, "the first {length}");
        assert_eq!(audit.leases(), search.leases(), "the first {length}");
        assert_eq!(audit.best(), search.best().map(|best| best.row.trial), "the first {length}");
    }
}

#[test]
fn a_stopped_a_paused_and_a_cancelled_search_are_good_too() {
    let start = &good()[..5];
    let stopped = [stopping(), failed(0, 1, FailureReason::TrainerCrashed), cancelled(0)];
    let rest = [failed(1, 1, FailureReason::Diverged), given_up(1), Fact::SearchCompleted];
    let paused = [Fact::SearchPaused, reported(0, 1, 1, 0.1), Fact::SearchResumed, planned(2)];
    let released = [Fact::AttemptReleased { attempt: attempt(0, 1) }, started(0, 2, 3)];
    for (name, rest) in [
        ("stopped", [&stopped[..], &rest].concat()),
        ("paused", paused.to_vec()),
        ("cancelled", vec![Fact::SearchCancelled]),
        ("released", released.to_vec()),
    ] {
        assert_eq!(audit(&[start, &rest].concat()).findings(), [], "{name}");
    }
}

#[test]
fn an_attempt_goes_on_after_the_newest_checkpoint_that_is_not_lost() {
    let mut goes_on = good();
    goes_on.insert(6, kept(1, 1, 1));
    let mut falls_back = goes_on.clone();
    falls_back.insert(9, lost(1, 2, b"checkpoint"));
    assert_eq!(audit(&falls_back).findings(), []);
    assert_eq!(audit(&falls_back).tally().repeated_epochs, 1);
    goes_on.retain(|fact| *fact != reported(1, 2, 1, 0.3));
    assert_eq!(audit(&goes_on).findings(), []);
    assert_eq!(audit(&goes_on).tally().repeated_epochs, 0);
}

#[test]
fn everything_that_can_be_wrong_is_found_and_named() {
    type Break = fn(&mut Vec<Fact>);
    let rows: &[(&str, Break, &[&str])] = &[
        ("no creation", |log| drop(log.remove(0)), &["NotCreated"]),
        ("created twice", |log| log.insert(5, log[0].clone()), &["CreatedTwice"]),
        ("something after the end", |log| log.push(Fact::SearchPaused), &["AfterTheEnd"]),
        ("resumed while running", |log| log.insert(5, Fact::SearchResumed), &["WrongTransition"]),
        ("a report of an unknown trial", |log| log.insert(5, reported(9, 1, 1, 0.1)), &["UnknownTrial"]),
        ("an attempt at an unknown trial", |log| log.insert(5, started(9, 1, 9)), &["UnknownTrial"]),
        ("a point twice", |log| log.insert(5, planned(1)), &["DrawnOutOfOrder"]),
        (
            "a point left out",
            |log| {
                log[3] = planned(2);
                log.truncate(4);
            },
            &["DrawnOutOfOrder"],
        ),
        (
            "another trial's point",
            |log| match (&planned(1), &mut log[14]) {
                (
                    Fact::TrialPlanned { hyperparameters: other, .. },
                    Fact::TrialPlanned { hyperparameters, .. },
                ) => *hyperparameters = other.clone(),
                _ => unreachable!(),
            },
            &["NotWhatTheMethodGives"],
        ),
        (
            "another seed",
            |log| match &mut log[14] {
                Fact::TrialPlanned { seeds, .. } => seeds.order += 1,
                _ => unreachable!(),
            },
            &["NotWhatTheMethodGives"],
        ),
        (
            "another replicate",
            |log| match &mut log[14] {
                Fact::TrialPlanned { replicate, .. } => *replicate = 1,
                _ => unreachable!(),
            },
            &["NotWhatTheMethodGives"],
        ),
        (
            "work while it is paused",
            |log| log.insert(14, Fact::SearchPaused),
            &["StartedWhileClosed", "StartedWhileClosed"],
        ),
        (
            "an attempt's number left out",
            |log| {
                log[15] = started(2, 2, 1);
                log.truncate(16);
            },
            &["AttemptNumber"],
        ),
        (
            "an attempt's number twice",
            |log| {
                log[7] = started(1, 1, 2);
                log.truncate(8);
            },
            &["AttemptNumber"],
        ),
        (
            "two attempts at once",
            |log| {
                log[6] = started(1, 2, 3);
                log.remove(7);
            },
            &["StillRunning"],
        ),
        ("a slot that has work already", |log| log[4] = started(1, 1, 1), &["SlotTaken"]),
        (
            "a try too many",
            |log| {
                log.splice(7..7, [started(1, 2, 2), failed(1, 2, FailureReason::Timeout), started(1, 3, 2)]);
                log.truncate(10);
            },
            &["TriedTooOften"],
        ),
        ("a late report", |log| log.insert(8, reported(1, 1, 2, 0.2)), &["Superseded"]),
        ("a late completion", |log| log.insert(8, completed(1, 1, Some(b"model"))), &["Superseded"]),
        ("a report between two attempts", |log| log.insert(7, reported(1, 1, 2, 0.2)), &["NotRunning"]),
        ("a report after the end", |log| log.insert(11, reported(0, 1, 3, 0.5)), &["NotRunning"]),
        ("an epoch left out", |log| drop(log.remove(8)), &["EpochGap"]),
        ("an epoch twice", |log| log.insert(9, log[8].clone()), &["EpochGap"]),
        (
            "an epoch too many",
            |log| log.insert(10, reported(0, 1, 3, 0.5)),
            &["BeyondLastEpoch", "EndedEarly"],
        ),
        (
            "a checkpoint of an epoch that was not reported",
            |log| {
                log.insert(5, kept(1, 1, 1));
                log.truncate(6);
            },
            &["CheckpointAhead"],
        ),
        (
            "a checkpoint twice",
            |log| {
                log.splice(6..6, [kept(1, 1, 1), kept(1, 1, 1)]);
                log.truncate(8);
            },
            &["CheckpointOutOfOrder"],
        ),
        ("an epoch again that is in the checkpoint", |log| log.insert(6, kept(1, 1, 1)), &["EpochGap"]),
        ("a late checkpoint", |log| log.insert(8, kept(1, 1, 1)), &["Superseded"]),
        ("a checkpoint lost that there was not", |log| log.insert(6, lost(1, 1, b"x")), &["LostNotBegunAt"]),
        (
            "a checkpoint lost after the attempt went on",
            |log| {
                log.splice(6..6, [kept(1, 1, 1), reported(1, 1, 2, 0.3), lost(1, 1, b"checkpoint")]);
                log.truncate(9);
            },
            &["LostNotBegunAt"],
        ),
        ("epochs left", |log| drop(log.remove(9)), &["EndedEarly"]),
        ("a best one without its model", |log| log[10] = completed(0, 1, None), &["BestWithoutModel"]),
        ("a trial that is complete twice", |log| log.insert(11, log[10].clone()), &["OutcomeTwice"]),
        ("a complete trial that fails", |log| log.insert(11, given_up(0)), &["OutcomeTwice"]),
        ("a complete trial that is cancelled", |log| log.insert(11, cancelled(0)), &["OutcomeTwice"]),
        ("a complete trial that is tried again", |log| log.insert(11, started(0, 2, 3)), &["OutcomeTwice"]),
        (
            "given up with tries left",
            |log| {
                log.insert(7, given_up(1));
                log.truncate(8);
            },
            &["GivenUpEarly"],
        ),
        (
            "given up while it runs",
            |log| {
                log.truncate(6);
                log.push(given_up(1));
            },
            &["GivenUpEarly"],
        ),
        (
            "cancelled while it runs",
            |log| {
                log.truncate(5);
                log.extend([stopping(), cancelled(0)]);
            },
            &["CancelledWithoutCause"],
        ),
        (
            "cancelled in a search that goes on",
            |log| {
                log.truncate(7);
                log.push(cancelled(1));
            },
            &["CancelledWithoutCause"],
        ),
        ("no outcome", |log| drop(log.remove(17)), &["EvaluatedEarly", "NoOutcome"]),
        ("trials that were never drawn", |log| drop(log.drain(14..18)), &["EvaluatedEarly", "MissingTrials"]),
        ("no evaluation", |log| drop(log.drain(18..20)), &["NotEvaluated"]),
        (
            "another trial is evaluated",
            |log| {
                log[18] = evaluation(1, 3);
                log[19] = evaluated(1);
            },
            &["EvaluatedNotBest", "EvaluatedNotBest"],
        ),
        (
            "evaluated before the last trial has ended",
            |log| log.swap(17, 18),
            &["EvaluatedEarly", "GivenUpEarly"],
        ),
        ("evaluated twice", |log| log.insert(20, evaluated(0)), &["EvaluatedTwice", "NotRunning"]),
        (
            "two evaluations at once",
            |log| {
                log.insert(19, Fact::EvaluationStarted { attempt: attempt(0, 3), holder: holder(2) });
            },
            &["StillRunning"],
        ),
    ];
    let found = rows.iter().map(|(name, breaks, _)| {
        let mut log = good();
        breaks(&mut log);
        (*name, names(&audit(&log)))
    });
    let expected = rows
        .iter()
        .map(|(name, _, expected)| (*name, expected.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()));
    let wrong: Vec<_> = found.zip(expected).filter(|(found, expected)| found != expected).collect();
    assert!(wrong.is_empty(), "found, expected: {wrong:#?}");
}

#[test]
fn an_event_that_is_missing_or_comes_twice_is_found_by_its_number() {
    let versions = |versions: &[u64]| {
        let mut audit = Audit::default();
        for (fact, version) in good().into_iter().zip(versions) {
            audit.take(*version, &Event { at: Timestamp::from_millis(0), fact });
        }
        audit.findings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(versions(&[1, 2, 3]), [""; 0]);
    assert_eq!(versions(&[1, 3, 4]), ["event 3: event 2 comes next"]);
    assert_eq!(versions(&[1, 1, 2]), ["event 1: event 2 comes next"]);
}

#[test]
fn a_log_that_is_wrong_all_over_fills_no_memory() {
    let mut log = good();
    log.truncate(1);
    log.extend(std::iter::repeat_n(reported(7, 1, 1, 0.1), 3 * MOST_FINDINGS));
    assert_eq!(audit(&log).findings().len(), MOST_FINDINGS);
}
