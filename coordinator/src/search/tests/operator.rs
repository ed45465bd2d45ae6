//! What a search promises its operator.

use super::*;

#[test]
fn pausing_holds_new_trials_and_lets_running_ones_go_on() {
    let mut bench = Bench::new("");
    let attempt = bench.lease(1).expect("work").id.attempt;
    bench.give(Command::Pause).expect("accepted");
    assert_eq!(bench.lease(2), None);
    bench.report(1, attempt, 1, 0.5).expect("accepted");
    bench.give(Command::Resume).expect("accepted");
    assert!(bench.lease(2).is_some());
}

#[test]
fn a_search_whose_last_trials_end_while_it_is_paused_ends_too() {
    let mut bench = Bench::new("");
    bench.train(1, 0.5);
    bench.train(1, 0.6);
    let last = bench.lease(1).expect("work").id.attempt;
    bench.give(Command::Pause).expect("accepted");
    bench.report(1, last, 1, 0.1).expect("accepted");
    bench.report(1, last, 2, 0.1).expect("accepted");
    bench.complete(1, last, Outcome::Trained { model: None }).expect("accepted");
    bench.evaluate(1, 0.6);
    assert_eq!(bench.search.state(), SearchState::Complete);
}

#[test]
fn stopping_lets_running_trials_finish_and_cancelling_does_not() {
    let mut stopped = Bench::new("");
    let crashed = stopped.lease(1).expect("work").id.attempt;
    let running = stopped.lease(2).expect("work").id.attempt;
    stopped.give(Command::Stop).expect("accepted");
    assert_eq!(stopped.search.state(), SearchState::Stopping);
    let failed = Outcome::Failed(Failure::new(FailureReason::TrainerCrashed, ""));
    stopped.complete(1, crashed, failed).expect("accepted");
    assert_eq!(stopped.state_of(0), TrialState::Cancelled, "nothing is tried again");
    stopped.report(2, running, 1, 0.5).expect("accepted");
    stopped.report(2, running, 2, 0.5).expect("accepted");
    let model = Some(ArtifactHash::of(b"model"));
    stopped.complete(2, running, Outcome::Trained { model }).expect("accepted");
    stopped.evaluate(1, 0.5);
    assert_eq!(stopped.search.state(), SearchState::Complete);
    assert_eq!(stopped.rows().len(), 2, "the third trial was never drawn");

    let mut cancelled = Bench::new("");
    let running = cancelled.lease(1).expect("work").id.attempt;
    cancelled.give(Command::Cancel).expect("accepted");
    assert_eq!(cancelled.search.state(), SearchState::Cancelled);
    assert_eq!(cancelled.report(1, running, 1, 0.5), Err(Rejection::Superseded { attempt: running }));
    assert!(matches!(cancelled.give(Command::Resume), Err(Rejection::WrongState { .. })));
}

#[test]
fn a_budget_of_time_stops_the_search() {
    let mut bench = Bench::new("budget: 60s");
    bench.lease(1);
    bench.wait(Duration::from_secs(59));
    assert_eq!(bench.search.state(), SearchState::Running);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.search.state(), SearchState::Complete);
    assert!(bench.search.summary().reason.contains("budget"));
}

#[test]
fn replicates_share_the_order_of_their_data_but_not_their_weights() {
    let mut bench = Bench::new("replicates: 2");
    let seeds: Vec<_> = (1..=4)
        .map(|worker| match bench.lease(worker).expect("work").work {
            Work::Train { seeds, .. } => seeds,
            Work::Evaluate { .. } => panic!("nothing is trained yet"),
        })
        .collect();
    assert!(seeds.iter().all(|it| it.split == seeds[0].split), "the split is the search's");
    assert_eq!(seeds[0].order, seeds[2].order, "the order is the replicate's");
    assert_ne!(seeds[0].order, seeds[1].order);
    assert_ne!(seeds[0].trial, seeds[2].trial, "the weights are the trial's");
}
