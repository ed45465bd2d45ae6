//! What a search promises, as a specification.

mod checkpoints;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::id::{ArtifactHash, AttemptNumber};
use fittingroom_common::space::SearchSpec;
use fittingroom_common::trial::{Failure, FailureReason, Finite, Report};
use fittingroom_common::view::{TrialRow, TrialState};
use fittingroom_common::work::{Assignment, Holder, Outcome, Work};
use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(30);

fn created(extra: &str) -> Created {
    let file = format!(
        "method: grid\nepochs: 2\n{extra}\nparameters:\n  learning_rate: {{values: [0.1, 0.01, 0.001]}}\n"
    );
    let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
    let name = |text: &str| text.parse().expect("usable");
    Created {
        name: name("search"),
        spec: SearchSpec::parse("search.yaml", &file).expect("parses").spec,
        dataset: Manifest { name: name("data"), shape, files: [ArtifactHash::of(b""); 4] },
        defaults: Hyperparameters::defaults(),
    }
}

/// A search with a clock and the events so far, driven as workers would.
struct Bench {
    search: Search,
    events: Vec<Event>,
    now: Timestamp,
    /// What the search gave up, as it did.
    discards: Vec<Discard>,
    /// The checkpoints that a store would have.
    stored: BTreeSet<(TrialId, ArtifactHash)>,
}

impl Bench {
    fn new(extra: &str) -> Self {
        Self::of(created(extra))
    }

    fn of(created: Created) -> Self {
        let now = Timestamp::from_millis(1_000);
        let events = vec![Event { at: now, fact: Fact::SearchCreated(Box::new(created.clone())) }];
        let search = Search::new(SearchId::new(1), created, now, LEASE);
        Self { search, events, now, discards: Vec::new(), stored: BTreeSet::new() }
    }

    fn give(&mut self, command: Command) -> Result<usize, Rejection> {
        let new = self.search.handle(command, self.now)?;
        let count = new.len();
        self.stored.extend(new.iter().filter_map(|event| match &event.fact {
            Fact::CheckpointKept { attempt, checkpoint } => Some((attempt.trial, checkpoint.hash)),
            _ => None,
        }));
        self.events.extend(new);
        let discards = self.search.take_discards();
        for discard in &discards {
            match discard {
                Discard::One { trial, hash } => drop(self.stored.remove(&(*trial, *hash))),
                Discard::All { trial } => self.stored.retain(|(of, _)| of != trial),
            }
        }
        self.discards.extend(discards);
        Ok(count)
    }

    fn wait(&mut self, wait: Duration) {
        self.now = self.now.after(wait);
        self.give(Command::Tick).expect("a tick is never refused");
    }

    fn lease(&mut self, worker: u128) -> Option<Assignment> {
        self.give(Command::Lease { holder: holder(worker) }).expect("a lease is never refused");
        self.search.assignment(WorkerId::new(worker), SlotNumber::new(0))
    }

    fn report(
        &mut self,
        worker: u128,
        attempt: Attempt,
        epoch: u32,
        accuracy: f64,
    ) -> Result<usize, Rejection> {
        self.give(Command::Report { attempt, worker: WorkerId::new(worker), report: report(epoch, accuracy) })
    }

    fn complete(&mut self, worker: u128, attempt: Attempt, outcome: Outcome) -> Result<usize, Rejection> {
        self.give(Command::Complete { attempt, worker: WorkerId::new(worker), outcome })
    }

    /// Leases a trial and trains it to its end.
    fn train(&mut self, worker: u128, accuracy: f64) -> Attempt {
        let attempt = self.lease(worker).expect("work").id.attempt;
        self.report(worker, attempt, 1, accuracy / 2.0).expect("accepted");
        self.report(worker, attempt, 2, accuracy).expect("accepted");
        let model =
            self.search.wants_model(attempt).then(|| ArtifactHash::of(&attempt.trial.get().to_le_bytes()));
        self.complete(worker, attempt, Outcome::Trained { model }).expect("accepted");
        attempt
    }

    fn fail(&mut self, worker: u128, reason: FailureReason) -> Attempt {
        let attempt = self.lease(worker).expect("work").id.attempt;
        self.complete(worker, attempt, Outcome::Failed(Failure::new(reason, ""))).expect("accepted");
        attempt
    }

    fn evaluate(&mut self, worker: u128, accuracy: f64) {
        let assignment = self.lease(worker).expect("the evaluation is left");
        assert!(matches!(assignment.work, Work::Evaluate { .. }), "{assignment:?}");
        let outcome = Outcome::Evaluated(report(1, accuracy).validation);
        self.complete(worker, assignment.id.attempt, outcome).expect("accepted");
    }

    fn rows(&self) -> Vec<TrialRow> {
        self.search.ranked().chain(self.search.unranked()).collect()
    }

    fn state_of(&self, trial: u64) -> TrialState {
        self.search.row(TrialId::new(trial)).expect("drawn").state
    }
}

fn holder(worker: u128) -> Holder {
    let name = format!("worker-{worker}").parse().expect("usable");
    Holder { worker: WorkerId::new(worker), name, slot: SlotNumber::new(0) }
}

fn report(epoch: u32, accuracy: f64) -> Report {
    let score = Score {
        loss: Finite::new(1.0 - accuracy).expect("finite"),
        accuracy: Finite::new(accuracy).expect("finite"),
    };
    Report { epoch, train: score, validation: score, test: None, seconds: 1.0, images_per_second: 1.0 }
}

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

/// One thing that can happen to a search from outside.
#[derive(Clone, Debug)]
enum Happening {
    Lease(u128),
    Report(u128),
    Complete(u128),
    Fail(u128, FailureReason),
    Release(u128),
    Keep(u128, u32),
    Lose(u128),
    Wait(u64),
    Pause,
    Resume,
    Stop,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let worker = 1_u128..5;
    let one = prop_oneof![
        4 => worker.clone().prop_map(Happening::Lease),
        6 => worker.clone().prop_map(Happening::Report),
        3 => worker.clone().prop_map(Happening::Complete),
        1 => (worker.clone(), prop::sample::select(&FailureReason::ALL[..])).prop_map(|(w, r)| Happening::Fail(w, r)),
        1 => worker.clone().prop_map(Happening::Release),
        3 => (worker.clone(), 0_u32..3).prop_map(|(worker, step)| Happening::Keep(worker, step)),
        1 => worker.prop_map(Happening::Lose),
        1 => (1_u64..40).prop_map(Happening::Wait),
        1 => Just(Happening::Pause),
        2 => Just(Happening::Resume),
        1 => Just(Happening::Stop),
    ];
    prop::collection::vec(one, 0..120)
}

impl Bench {
    /// Lets something happen; a refusal is an answer like any other.
    fn happen(&mut self, happening: Happening, holds: &mut BTreeMap<u128, (Attempt, bool)>) {
        let accuracy = |attempt: Attempt| 0.1 + 0.07 * attempt.trial.get() as f64;
        match happening {
            Happening::Lease(worker) => {
                if let Some(it) = self.lease(worker) {
                    holds.insert(worker, (it.id.attempt, matches!(it.work, Work::Evaluate { .. })));
                }
            }
            Happening::Report(worker) => {
                if let Some((attempt, false)) = holds.get(&worker).copied() {
                    let next = self
                        .search
                        .row(attempt.trial)
                        .and_then(|row| row.report)
                        .map_or(1, |it| it.epoch + 1);
                    let _ = self.report(worker, attempt, next, accuracy(attempt));
                }
            }
            Happening::Complete(worker) => {
                if let Some((attempt, evaluates)) = holds.get(&worker).copied() {
                    let model = Some(ArtifactHash::of(b"model"));
                    let trained = Outcome::Trained { model };
                    let outcome = if evaluates {
                        Outcome::Evaluated(report(1, accuracy(attempt)).validation)
                    } else {
                        trained
                    };
                    let _ = self.complete(worker, attempt, outcome);
                }
            }
            Happening::Fail(worker, reason) => {
                if let Some((attempt, _)) = holds.get(&worker).copied() {
                    let _ = self.complete(worker, attempt, Outcome::Failed(Failure::new(reason, "")));
                }
            }
            Happening::Release(worker) => {
                if let Some((attempt, _)) = holds.get(&worker).copied() {
                    let _ = self.complete(worker, attempt, Outcome::Released);
                }
            }
            Happening::Keep(worker, step) => {
                if let Some((attempt, false)) = holds.get(&worker).copied() {
                    let report = self.search.row(attempt.trial).and_then(|row| row.report);
                    let epoch = report.map_or(0, |report| report.epoch);
                    let _ = self.keep(worker, attempt, checkpoints::checkpoint(attempt.trial, epoch, step));
                }
            }
            Happening::Lose(worker) => {
                if let Some((attempt, false)) = holds.get(&worker).copied()
                    && let Some(newest) = self.search.resume_from(attempt.trial).first()
                {
                    let _ = self.lose(worker, attempt, *newest);
                }
            }
            Happening::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Happening::Pause => drop(self.give(Command::Pause)),
            Happening::Resume => drop(self.give(Command::Resume)),
            Happening::Stop => drop(self.give(Command::Stop)),
        }
    }

    fn check(&self) {
        let rows = self.rows();
        let mut seen: Vec<u64> = rows.iter().map(|row| row.trial.get()).collect();
        seen.sort_unstable();
        assert_eq!(
            seen,
            (0..rows.len() as u64).collect::<Vec<_>>(),
            "every drawn trial stands in the leaderboard once"
        );
        let count = |state| rows.iter().filter(|row| row.state == state).count() as u64;
        let counts = self.search.summary().counts;
        assert_eq!(
            (counts.waiting, counts.running, counts.complete, counts.failed, counts.cancelled),
            (
                count(TrialState::Waiting),
                count(TrialState::Running),
                count(TrialState::Complete),
                count(TrialState::Failed),
                count(TrialState::Cancelled)
            )
        );
        assert!(
            rows.iter()
                .filter(|row| row.rank.is_some())
                .map(|row| row.rank)
                .eq((1..).map(Some).take(rows.iter().filter(|row| row.rank.is_some()).count()))
        );
        let kept: BTreeSet<_> = self.search.checkpoints().collect();
        assert_eq!(kept, self.stored, "what is kept is stored, and nothing else");
        if let Some(best) = self.rows().first().filter(|row| row.state == TrialState::Complete) {
            assert_eq!(self.search.best().map(|it| it.row.trial), Some(best.trial), "the best has its model");
        }
    }
}

/// What the log must hold, whatever happened: one outcome a trial, rising attempts, and epochs that
/// are contiguous from the checkpoint that the attempt went on from.
fn check_log(events: &[Event]) {
    let mut newest: BTreeMap<TrialId, (AttemptNumber, u32)> = BTreeMap::new();
    let mut ended: BTreeMap<TrialId, u32> = BTreeMap::new();
    let mut kept: BTreeMap<TrialId, Vec<(u32, ArtifactHash)>> = BTreeMap::new();
    let mut is_open = true;
    for event in events {
        if matches!(event.fact, Fact::TrialPlanned { .. } | Fact::AttemptStarted { .. }) {
            assert!(is_open, "no trial starts in a search that stops or pauses: {event:?}");
        }
        match &event.fact {
            Fact::AttemptStarted { attempt, .. } | Fact::EvaluationStarted { attempt, .. } => {
                let begins_after = kept.get(&attempt.trial).and_then(|it| it.last()).map_or(0, |it| it.0);
                let before = newest.insert(attempt.trial, (attempt.number, begins_after));
                assert!(before.is_none_or(|(number, _)| number < attempt.number), "attempts rise: {event:?}");
            }
            Fact::EpochReported { attempt, report } => {
                let (number, epoch) = newest[&attempt.trial];
                assert_eq!(
                    (number, epoch + 1),
                    (attempt.number, report.epoch),
                    "epochs are contiguous: {event:?}"
                );
                newest.insert(attempt.trial, (number, report.epoch));
            }
            Fact::CheckpointKept { attempt, checkpoint } => {
                let (number, epoch) = newest[&attempt.trial];
                assert!(number == attempt.number && checkpoint.place.epoch <= epoch, "{event:?}");
                let kept = kept.entry(attempt.trial).or_default();
                kept.push((checkpoint.place.epoch, checkpoint.hash));
                if kept.len() > KEPT_CHECKPOINTS {
                    kept.remove(0);
                }
            }
            Fact::CheckpointLost { attempt, hash, .. } => {
                let kept = kept.entry(attempt.trial).or_default();
                assert_eq!(kept.pop().map(|it| it.1), Some(*hash), "the newest is lost: {event:?}");
                newest.insert(attempt.trial, (attempt.number, kept.last().map_or(0, |it| it.0)));
            }
            Fact::TrialCompleted { attempt, .. } => *ended.entry(attempt.trial).or_default() += 1,
            Fact::TrialFailed { trial, .. } | Fact::TrialCancelled { trial } => {
                *ended.entry(*trial).or_default() += 1
            }
            Fact::SearchPaused | Fact::SearchStopping { .. } => is_open = false,
            Fact::SearchResumed => is_open = true,
            _ => {}
        }
    }
    assert!(ended.values().all(|count| *count == 1), "one outcome a trial: {ended:?}");
}

proptest! {
    #[test]
    fn whatever_happens_the_accounts_are_right_and_the_log_tells_the_same(story in happenings()) {
        let mut bench = Bench::new("max_attempts: 2\nreplicates: 2");
        let mut holds = BTreeMap::new();
        for happening in story {
            bench.happen(happening, &mut holds);
            bench.check();
        }
        check_log(&bench.events);
        let replayed = Search::replay(SearchId::new(1), bench.events.clone(), LEASE).expect("created");
        prop_assert_eq!(replayed.version(), bench.events.len() as u64);
        prop_assert_eq!(replayed.summary(), bench.search.summary());
        let replayed_rows: Vec<_> = replayed.ranked().chain(replayed.unranked()).collect();
        prop_assert_eq!(replayed_rows, bench.rows());

        // Left to willing workers, every search ends.
        let _ = bench.give(Command::Resume);
        bench.wait(LEASE + Duration::from_secs(1));
        for worker in 100..200 {
            match bench.lease(worker) {
                Some(it) if matches!(it.work, Work::Evaluate { .. }) => {
                    let outcome = Outcome::Evaluated(report(1, 0.5).validation);
                    bench.complete(worker, it.id.attempt, outcome).expect("accepted");
                }
                Some(it) => {
                    let newest = bench.search.resume_from(it.id.attempt.trial).first().copied();
                    for epoch in newest.map_or(0, |newest| newest.place.epoch) + 1..=2 {
                        bench.report(worker, it.id.attempt, epoch, 0.5).expect("accepted");
                    }
                    let model = Some(ArtifactHash::of(b"model"));
                    bench.complete(worker, it.id.attempt, Outcome::Trained { model }).expect("accepted");
                }
                None => break,
            }
        }
        prop_assert!(bench.search.state().has_ended(), "{:?}", bench.search.summary());
        check_log(&bench.events);
    }
}
