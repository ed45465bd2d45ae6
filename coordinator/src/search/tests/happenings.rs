//! What a search promises whatever happens.

use super::*;

/// One thing that can happen to a search from outside.
#[derive(Clone, Debug)]
pub(super) enum Happening {
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

pub(super) fn happenings() -> impl Strategy<Value = Vec<Happening>> {
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
    pub(super) fn happen(&mut self, happening: Happening, holds: &mut BTreeMap<u128, (Attempt, bool)>) {
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
pub(super) fn check_log(events: &[Event]) {
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
