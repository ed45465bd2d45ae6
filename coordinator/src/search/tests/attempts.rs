//! What a search promises of attempts: who holds them, how long, and what they may say.

use super::*;

#[test]
fn a_search_trains_every_point_once_then_evaluates_the_best_and_is_complete() {
    let mut bench = Bench::new("");
    for accuracy in [0.7, 0.9, 0.8] {
        bench.train(1, accuracy);
    }
    assert_eq!(bench.search.state(), SearchState::Running, "the evaluation is left");
    bench.evaluate(2, 0.85);
    assert_eq!(bench.search.state(), SearchState::Complete);
    let order: Vec<u64> = bench.rows().iter().map(|row| row.trial.get()).collect();
    assert_eq!(order, [1, 2, 0]);
    let best = bench.search.best().expect("there is one");
    assert_eq!(best.row.test.map(|test| test.accuracy.get()), Some(0.85));
    assert_eq!(bench.rows()[1].test, None, "only the best is evaluated on the test set");
    assert_eq!(bench.lease(1), None);
}

#[test]
fn a_tracked_test_set_needs_no_evaluation() {
    let mut bench = Bench::new("track_test: true");
    for worker in 1..=3 {
        let attempt = bench.lease(worker).expect("work").id.attempt;
        for epoch in 1..=2 {
            let mut report = report(epoch, 0.5);
            report.test = Some(report.validation);
            bench.give(Command::Report { attempt, worker: WorkerId::new(worker), report }).expect("accepted");
        }
        let model = Some(ArtifactHash::of(b"model"));
        bench.complete(worker, attempt, Outcome::Trained { model }).expect("accepted");
    }
    assert_eq!(bench.search.state(), SearchState::Complete);
}

#[test]
fn a_slot_that_asks_twice_gets_the_same_attempt() {
    let mut bench = Bench::new("");
    let first = bench.lease(1);
    assert_eq!(bench.lease(1), first);
    assert_ne!(bench.lease(2), first);
}

#[test]
fn the_time_of_a_lease_runs_from_when_the_slot_heard_of_it() {
    for evaluates in [false, true] {
        let mut bench = Bench::new("");
        let trained_before: &[f64] = if evaluates { &[0.7, 0.9, 0.8] } else { &[] };
        for &accuracy in trained_before {
            bench.train(1, accuracy);
        }
        let given = bench.lease(2).expect("work");
        assert_eq!(matches!(given.work, Work::Evaluate { .. }), evaluates);
        bench.wait(LEASE - Duration::from_secs(1));
        assert_eq!(bench.lease(2), Some(given.clone()), "the answer was lost, and is given again");
        bench.wait(LEASE - Duration::from_secs(1));
        assert_eq!(bench.search.held_by(WorkerId::new(2)), [given.id.attempt], "evaluates: {evaluates}");
        bench.wait(Duration::from_secs(2));
        assert_eq!(bench.search.held_by(WorkerId::new(2)), [], "evaluates: {evaluates}");
    }
}

#[test]
fn a_silent_workers_trial_is_tried_again_and_the_silent_worker_is_fenced() {
    let mut bench = Bench::new("");
    let lost = bench.lease(1).expect("work").id.attempt;
    bench.report(1, lost, 1, 0.5).expect("accepted");
    bench.wait(LEASE + Duration::from_secs(1));
    assert_eq!(bench.state_of(0), TrialState::Waiting);

    let superseded = Err(Rejection::Superseded { attempt: lost });
    assert_eq!(bench.report(1, lost, 2, 0.5), superseded, "even while nobody else has it");
    let again = bench.lease(2).expect("work").id.attempt;
    assert_eq!(again, Attempt { trial: lost.trial, number: AttemptNumber::new(2) });
    assert_eq!(bench.report(1, lost, 2, 0.5), superseded);
    assert_eq!(bench.complete(1, lost, Outcome::Trained { model: None }), superseded);
    assert!(!bench.search.renew(lost, WorkerId::new(1), None, bench.now));
    bench.report(2, again, 1, 0.6).expect("without a checkpoint, epochs begin anew with the attempt");
}

#[test]
fn heartbeats_and_reports_renew_a_lease() {
    let mut bench = Bench::new("");
    let attempt = bench.lease(1).expect("work").id.attempt;
    for _ in 0..3 {
        bench.wait(LEASE - Duration::from_secs(1));
        assert!(bench.search.renew(attempt, WorkerId::new(1), None, bench.now));
    }
    bench.wait(LEASE - Duration::from_secs(1));
    bench.report(1, attempt, 1, 0.5).expect("accepted");
    bench.wait(LEASE - Duration::from_secs(1));
    assert_eq!(bench.state_of(0), TrialState::Running);
}

#[test]
fn a_restart_gives_every_lease_one_grace_period() {
    let mut bench = Bench::new("");
    bench.lease(1);
    let late = bench.now.after(LEASE * 10);
    let mut replayed = Search::replay(SearchId::new(1), bench.events, LEASE).expect("created");
    replayed.grant_grace(late);
    assert_eq!(replayed.handle(Command::Tick, late.after(LEASE / 2)), Ok(Vec::new()));
    assert!(!replayed.handle(Command::Tick, late.after(LEASE * 2)).expect("accepted").is_empty());
}

#[test]
fn repeated_calls_change_nothing() {
    let mut bench = Bench::new("");
    let attempt = bench.lease(1).expect("work").id.attempt;
    assert_eq!(bench.report(1, attempt, 1, 0.5), Ok(1));
    assert_eq!(bench.report(1, attempt, 1, 0.5), Ok(0));
    assert_eq!(bench.report(1, attempt, 2, 0.5), Ok(1));
    let trained = Outcome::Trained { model: Some(ArtifactHash::of(b"model")) };
    assert_eq!(bench.complete(1, attempt, trained.clone()), Ok(1));
    assert_eq!(bench.complete(1, attempt, trained), Ok(0));
    let failed = bench.fail(1, FailureReason::TrainerCrashed);
    let again = Outcome::Failed(Failure::new(FailureReason::TrainerCrashed, ""));
    assert_eq!(bench.complete(1, failed, again), Ok(0));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut bench = Bench::new("");
    let attempt = bench.lease(1).expect("work").id.attempt;
    assert_eq!(
        bench.report(1, attempt, 2, 0.5),
        Err(Rejection::EpochGap { attempt, found: 2, expected: 1 }),
        "epochs are contiguous"
    );
    assert_eq!(
        bench.report(2, attempt, 1, 0.5),
        Err(Rejection::Superseded { attempt }),
        "another worker's attempt"
    );
    let early = bench.complete(1, attempt, Outcome::Trained { model: None });
    assert!(matches!(early, Err(Rejection::WrongOutcome { .. })), "epochs are left: {early:?}");
    let evaluated = bench.complete(1, attempt, Outcome::Evaluated(report(1, 0.5).validation));
    assert!(matches!(evaluated, Err(Rejection::WrongOutcome { .. })), "it trains: {evaluated:?}");
    bench.report(1, attempt, 1, 0.5).expect("accepted");
    bench.report(1, attempt, 2, 0.5).expect("accepted");
    let modelless = bench.complete(1, attempt, Outcome::Trained { model: None });
    assert!(
        matches!(modelless, Err(Rejection::WrongOutcome { .. })),
        "the best needs its model: {modelless:?}"
    );
    assert!(
        matches!(bench.report(1, attempt, 3, 0.5), Err(Rejection::EpochGap { .. })),
        "there are two epochs"
    );
    let never = Attempt { trial: TrialId::new(9), number: AttemptNumber::FIRST };
    assert_eq!(bench.report(1, never, 1, 0.5), Err(Rejection::UnknownTrial { trial: never.trial }));
}

#[test]
fn only_a_trial_that_may_be_the_best_keeps_its_model() {
    let mut bench = Bench::new("");
    bench.train(1, 0.8);
    let worse = bench.lease(1).expect("work").id.attempt;
    bench.report(1, worse, 1, 0.9).expect("accepted");
    assert!(!bench.search.wants_model(worse), "it has an epoch left");
    bench.report(1, worse, 2, 0.7).expect("accepted");
    assert!(!bench.search.wants_model(worse));
    bench.complete(1, worse, Outcome::Trained { model: None }).expect("accepted");
}

#[test]
fn a_trial_that_may_stop_early_is_complete_after_fewer_epochs_and_the_search_goes_on() {
    let file = "method: grid\nepochs: 5\nparameters:\n  learning_rate: {values: [0.1, 0.01]}\n  \
                early_stopping_patience: {value: 2}\n";
    let spec = SearchSpec::parse("search.yaml", file).expect("parses").spec;
    let mut bench = Bench::of(Created { spec, ..created("") });
    let trained = |model| Outcome::Trained { model };
    let model = ArtifactHash::of(b"model");

    let early = bench.lease(1).expect("work").id.attempt;
    for (epoch, wanted) in [(1, false), (2, false), (3, true)] {
        bench.report(1, early, epoch, 0.5).expect("accepted");
        assert_eq!(bench.search.wants_model(early), wanted, "epoch {epoch}: patience can be used up after 3");
        if epoch == 2 {
            let complete = bench.complete(1, early, trained(Some(model)));
            assert!(matches!(complete, Err(Rejection::WrongOutcome { .. })), "{complete:?}");
        }
    }
    bench.complete(1, early, trained(Some(model))).expect("accepted");
    assert_eq!(bench.state_of(0), TrialState::Complete);

    let whole = bench.lease(1).expect("work").id.attempt;
    for epoch in 1..=5 {
        bench.report(1, whole, epoch, 0.1 * f64::from(epoch + 1)).expect("accepted");
    }
    assert!(bench.search.wants_model(whole));
    bench.complete(1, whole, trained(Some(model))).expect("accepted");
    bench.evaluate(1, 0.6);
    let rows: Vec<_> =
        bench.rows().iter().map(|row| (row.trial.get(), row.report.map(|it| it.epoch))).collect();
    assert_eq!(rows, [(1, Some(5)), (0, Some(3))]);
    assert_eq!(bench.search.state(), SearchState::Complete);
}
