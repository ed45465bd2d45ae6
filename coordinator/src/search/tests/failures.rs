//! What a search promises when trials and their evaluation fail.

use super::*;

#[test]
fn failures_are_tried_again_up_to_the_limit_but_diverging_is_a_result() {
    let mut bench = Bench::new("max_attempts: 2");
    bench.fail(1, FailureReason::TrainerCrashed);
    assert_eq!(bench.state_of(0), TrialState::Waiting);
    bench.fail(1, FailureReason::TrainerCrashed);
    assert_eq!(bench.state_of(0), TrialState::Failed);
    bench.fail(1, FailureReason::Diverged);
    assert_eq!(bench.state_of(1), TrialState::Failed);
    bench.train(1, 0.1);
    bench.evaluate(1, 0.1);
    let ranks: Vec<_> = bench.rows().iter().map(|row| (row.trial.get(), row.rank)).collect();
    assert_eq!(ranks, [(2, Some(1)), (1, Some(2)), (0, None)]);
    assert_eq!(bench.rows()[1].attempts, 1);
    assert_eq!(bench.search.state(), SearchState::Complete);
}

#[test]
fn too_many_failed_trials_fail_the_search() {
    let mut bench = Bench::new("max_attempts: 1\nmax_failed_trials: 1");
    bench.fail(1, FailureReason::Diverged);
    bench.fail(1, FailureReason::BadData);
    assert_eq!(bench.search.state(), SearchState::Running, "diverging does not count");
    let mut other = Bench::new("max_attempts: 1\nmax_failed_trials: 0");
    other.lease(1);
    other.fail(2, FailureReason::BadData);
    assert_eq!(other.search.state(), SearchState::Failed);
    assert_eq!(other.state_of(0), TrialState::Cancelled, "what ran is cancelled");
    assert!(other.search.summary().reason.contains("max_failed_trials"), "{:?}", other.search.summary());
}

#[test]
fn a_released_attempt_is_no_failure() {
    let mut bench = Bench::new("max_attempts: 1");
    let attempt = bench.lease(1).expect("work").id.attempt;
    bench.complete(1, attempt, Outcome::Released).expect("accepted");
    let again = bench.lease(2).expect("work").id.attempt;
    assert_eq!(again, Attempt { trial: attempt.trial, number: attempt.number.next() });
}

#[test]
fn the_evaluation_is_leased_fenced_and_tried_again_like_a_trial() {
    let mut bench = Bench::new("");
    for _ in 0..3 {
        bench.train(1, 0.5);
    }
    let lost = bench.lease(1).expect("the evaluation").id.attempt;
    assert_eq!(bench.lease(2), None, "one evaluates");
    bench.wait(LEASE + Duration::from_secs(1));
    let score = report(1, 0.5).validation;
    let again = bench.lease(2).expect("the evaluation").id.attempt;
    assert_ne!(lost, again);
    assert!(bench.complete(1, lost, Outcome::Evaluated(score)).is_err());
    bench.complete(2, again, Outcome::Released).expect("accepted");
    bench.evaluate(3, 0.4);
    assert_eq!(bench.search.state(), SearchState::Complete);
    assert_eq!(bench.rows()[0].attempts, 1, "an evaluation is no try at training");
}

#[test]
fn a_search_whose_evaluation_keeps_failing_ends_without_it() {
    let mut bench = Bench::new("");
    for _ in 0..3 {
        bench.train(1, 0.5);
    }
    for _ in 0..EVALUATION_ATTEMPTS {
        assert_eq!(bench.search.state(), SearchState::Running);
        bench.fail(1, FailureReason::TrainerCrashed);
    }
    assert_eq!(bench.search.state(), SearchState::Complete);
    assert_eq!(bench.rows()[0].test, None);
}
