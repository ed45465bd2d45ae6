//! What a search promises of checkpoints.

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};

use super::happenings::check_log;
use super::*;

pub(super) fn checkpoint(trial: TrialId, epoch: u32, step: u32) -> Checkpoint {
    let hash = ArtifactHash::of(format!("{trial} {epoch} {step}").as_bytes());
    Checkpoint { place: CheckpointPlace { epoch, step }, hash }
}

impl Bench {
    pub(super) fn keep(
        &mut self,
        worker: u128,
        attempt: Attempt,
        it: Checkpoint,
    ) -> Result<usize, Rejection> {
        self.give(Command::KeepCheckpoint { attempt, worker: WorkerId::new(worker), checkpoint: it })
    }

    pub(super) fn lose(
        &mut self,
        worker: u128,
        attempt: Attempt,
        it: Checkpoint,
    ) -> Result<usize, Rejection> {
        let (hash, problem) = (it.hash, "damaged".to_owned());
        self.give(Command::LoseCheckpoint { attempt, worker: WorkerId::new(worker), hash, problem })
    }

    /// Leases trial 0 of five epochs, and has it report so many.
    fn begun(epochs: u32) -> (Self, Attempt) {
        let mut bench = Self::of(five_epochs(""));
        let attempt = bench.lease(1).expect("work").id.attempt;
        for epoch in 1..=epochs {
            bench.report(1, attempt, epoch, 0.1 * f64::from(epoch)).expect("accepted");
        }
        (bench, attempt)
    }

    /// Loses worker 1, and gives its trial to another.
    fn again(&mut self, worker: u128) -> (Attempt, Vec<Checkpoint>) {
        self.wait(LEASE + Duration::from_secs(1));
        let assignment = self.lease(worker).expect("work");
        let attempt = assignment.id.attempt;
        let Work::Train { resume_from, .. } = assignment.work else { panic!("it trains") };
        assert_eq!(attempt.trial, TrialId::new(0));
        (attempt, resume_from)
    }

    fn epoch_of(&self, trial: u64) -> Option<u32> {
        self.search.row(TrialId::new(trial)).expect("drawn").report.map(|report| report.epoch)
    }
}

fn five_epochs(extra: &str) -> Created {
    let file =
        format!("method: grid\nepochs: 5\n{extra}\nparameters: {{learning_rate: {{values: [0.1]}}}}\n");
    Created { spec: SearchSpec::parse("search.yaml", &file).expect("parses").spec, ..created("") }
}

fn kept(bench: &Bench) -> Vec<ArtifactHash> {
    bench.search.checkpoints().map(|(_, hash)| hash).collect()
}

#[test]
fn the_next_attempt_goes_on_from_the_newest_checkpoint_and_reports_the_epochs_after_it() {
    // Named when more epochs are reported already, in the middle of an epoch, or before the first is done.
    for (name, reported, place, begins_after) in [
        ("at once", 3, (3, 0), Some(3)),
        ("late", 4, (2, 0), Some(2)),
        ("within an epoch", 3, (3, 7), Some(3)),
        ("within the first epoch", 0, (0, 9), None),
    ] {
        let (mut bench, first) = Bench::begun(reported);
        let newest = checkpoint(first.trial, place.0, place.1);
        assert_eq!(bench.keep(1, first, newest), Ok(1), "{name}");
        let (second, resume_from) = bench.again(2);
        assert_eq!(resume_from, [newest], "{name}");
        assert_eq!(bench.epoch_of(0), begins_after, "{name}: the leaderboard shows where it begins");
        let next = place.0 + 1;
        let gap = Err(Rejection::EpochGap { attempt: second, found: next + 1, expected: next });
        assert_eq!(bench.report(2, second, next + 1, 0.5), gap, "{name}");
        for epoch in next..=5 {
            assert_eq!(bench.report(2, second, epoch, 0.5), Ok(1), "{name}");
        }
        let model = Some(ArtifactHash::of(b"model"));
        bench.complete(2, second, Outcome::Trained { model }).expect("accepted");
        check_log(&bench.events);
        let attempts = crate::history::attempts(&bench.events);
        assert_eq!(attempts[1].resumed_from, Some(newest), "{name}");
        let epochs = crate::history::epochs(attempts).into_iter();
        let counted: Vec<_> = epochs.map(|(number, report)| (number.get(), report.epoch)).collect();
        let expected: Vec<_> = (1..=5).map(|epoch| (if epoch < next { 1 } else { 2 }, epoch)).collect();
        assert_eq!(counted, expected, "{name}: each epoch once");
    }
}

#[test]
fn a_released_attempt_repeats_nothing() {
    let (mut bench, first) = Bench::begun(2);
    bench.keep(1, first, checkpoint(first.trial, 2, 3)).expect("accepted");
    bench.complete(1, first, Outcome::Released).expect("accepted");
    let second = bench.lease(2).expect("work").id.attempt;
    assert_eq!(bench.report(2, second, 3, 0.5), Ok(1));
}

#[test]
fn a_checkpoint_is_taken_from_the_attempt_that_counts_alone_and_once() {
    let (mut bench, first) = Bench::begun(2);
    let of = |epoch, step| checkpoint(first.trial, epoch, step);
    let ahead = Rejection::CheckpointAhead { attempt: first, epoch: 3, reported: 2 };
    let superseded = Rejection::Superseded { attempt: first };
    for (name, worker, it, answer) in [
        ("epochs that are not reported", 1, of(3, 0), Err(ahead)),
        ("another worker's", 2, of(2, 0), Err(superseded.clone())),
        ("the first", 1, of(1, 0), Ok(1)),
        ("a repeated call", 1, of(1, 0), Ok(0)),
        ("the second", 1, of(2, 4), Ok(1)),
        ("an older one, late", 1, of(2, 1), Ok(0)),
        ("the bits of another", 1, Checkpoint { hash: of(2, 4).hash, ..of(2, 5) }, Ok(0)),
        ("the third", 1, of(2, 5), Ok(1)),
    ] {
        assert_eq!(bench.keep(worker, first, it), answer, "{name}");
    }
    assert_eq!(kept(&bench), [of(2, 4).hash, of(2, 5).hash]);
    bench.wait(LEASE + Duration::from_secs(1));
    assert_eq!(bench.keep(1, first, of(2, 6)), Err(superseded.clone()), "nobody has it");
    let (second, _) = bench.again(2);
    assert_eq!(bench.keep(1, first, of(2, 6)), Err(superseded.clone()), "another has it");
    assert_eq!(bench.lose(1, first, of(2, 5)), Err(superseded));
    assert!(bench.search.is_held(second, WorkerId::new(2)));
    assert!(
        !bench.search.is_held(second, WorkerId::new(1)) && !bench.search.is_held(first, WorkerId::new(1))
    );
}

#[test]
fn a_checkpoint_that_is_lost_gives_way_to_the_one_before_and_that_to_the_beginning() {
    let (mut bench, first) = Bench::begun(4);
    let [older, newer] = [checkpoint(first.trial, 2, 0), checkpoint(first.trial, 4, 1)];
    bench.keep(1, first, checkpoint(first.trial, 1, 0)).expect("accepted");
    bench.keep(1, first, older).expect("accepted");
    bench.keep(1, first, newer).expect("accepted");
    let (second, resume_from) = bench.again(2);
    assert_eq!(resume_from, [newer, older], "the newest first");
    assert_eq!(bench.lose(2, second, older), Ok(0), "not the newest");
    assert_eq!(bench.lose(2, second, newer), Ok(1));
    assert_eq!(bench.lose(2, second, newer), Ok(0), "a repeated call");
    assert_eq!(bench.epoch_of(0), Some(2));
    assert_eq!(bench.report(2, second, 3, 0.5), Ok(1));
    let begun = bench.lose(2, second, older);
    assert!(matches!(begun, Err(Rejection::WrongOutcome { .. })), "it has gone on from it: {begun:?}");

    bench.wait(LEASE + Duration::from_secs(1));
    let (third, resume_from) = bench.again(3);
    assert_eq!(resume_from, [older]);
    assert_eq!(bench.lose(3, third, older), Ok(1));
    assert_eq!(bench.epoch_of(0), None);
    assert_eq!(bench.report(3, third, 1, 0.5), Ok(1), "from the beginning");
    check_log(&bench.events);
    let attempts = crate::history::attempts(&bench.events);
    let begun: Vec<_> = attempts.iter().map(|attempt| attempt.resumed_from).collect();
    assert_eq!(begun, [None, Some(older), None]);
    assert_eq!(crate::history::epochs(attempts).len(), 1);
}

#[test]
fn what_is_of_no_more_use_is_discarded() {
    let (mut bench, first) = Bench::begun(4);
    let of = |epoch| checkpoint(first.trial, epoch, 0);
    for (epoch, useless) in [(1, None), (2, None), (3, Some(1)), (4, Some(2))] {
        bench.keep(1, first, of(epoch)).expect("accepted");
        let expected = useless.map(|epoch| Discard::One { trial: first.trial, hash: of(epoch).hash });
        assert_eq!(std::mem::take(&mut bench.discards), expected.into_iter().collect::<Vec<_>>());
    }
    let (second, _) = bench.again(2);
    bench.lose(2, second, of(4)).expect("accepted");
    assert_eq!(bench.discards, [Discard::One { trial: first.trial, hash: of(4).hash }]);
    let replayed = Search::replay(SearchId::new(1), bench.events.clone(), LEASE).expect("created");
    assert!(replayed.discards.is_empty(), "what was of no more use before a restart is swept, not replayed");
    assert!(replayed.checkpoints().eq(bench.search.checkpoints()));
}

#[test]
fn a_trial_that_is_over_has_no_checkpoints() {
    type End = fn(&mut Bench, Attempt);
    let ends: [(&str, End); 5] = [
        ("complete", |bench, attempt| {
            bench.report(1, attempt, 5, 0.5).expect("accepted");
            let model = Some(ArtifactHash::of(b"model"));
            bench.complete(1, attempt, Outcome::Trained { model }).expect("accepted");
        }),
        ("diverged", |bench, attempt| {
            let failure = Failure::new(FailureReason::Diverged, "");
            bench.complete(1, attempt, Outcome::Failed(failure)).expect("accepted");
        }),
        ("cancelled", |bench, _| assert!(bench.give(Command::Cancel).is_ok())),
        ("stopped while it waits", |bench, attempt| {
            bench.complete(1, attempt, Outcome::Released).expect("accepted");
            bench.give(Command::Stop).expect("accepted");
        }),
        ("failed with the search", |bench, attempt| {
            for worker in [1, 2, 3] {
                let failure = Failure::new(FailureReason::BadData, "");
                let attempt = bench.lease(worker).map_or(attempt, |it| it.id.attempt);
                bench.complete(worker, attempt, Outcome::Failed(failure)).expect("accepted");
            }
        }),
    ];
    for (name, end) in ends {
        let mut bench = Bench::of(five_epochs("max_failed_trials: 0"));
        let attempt = bench.lease(1).expect("work").id.attempt;
        for epoch in 1..=4 {
            bench.report(1, attempt, epoch, 0.5).expect("accepted");
        }
        bench.keep(1, attempt, checkpoint(attempt.trial, 4, 0)).expect("accepted");
        end(&mut bench, attempt);
        assert_eq!(kept(&bench), [], "{name}");
        assert_eq!(bench.discards.last(), Some(&Discard::All { trial: attempt.trial }), "{name}");
    }
}

#[test]
fn a_search_without_checkpoints_keeps_none() {
    let mut bench = Bench::of(five_epochs("checkpoint: never"));
    let attempt = bench.lease(1).expect("work").id.attempt;
    bench.report(1, attempt, 1, 0.5).expect("accepted");
    assert_eq!(bench.keep(1, attempt, checkpoint(attempt.trial, 1, 0)), Ok(0));
    let (again, resume_from) = bench.again(2);
    assert_eq!(resume_from, []);
    assert_eq!(bench.report(2, again, 1, 0.5), Ok(1));
}
