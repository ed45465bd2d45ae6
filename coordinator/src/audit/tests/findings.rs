//! Logs that break a rule.

use super::*;

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
