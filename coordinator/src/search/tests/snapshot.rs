//! A search restored from a snapshot is the search that its events make.

use fittingroom_common::proto as pb;
use prost::Message;

use super::happenings::happenings;
use super::*;

/// What a log keeps of snapshots: bytes, put over those kept before.
#[derive(Default)]
struct Kept {
    head: Option<Vec<u8>>,
    trials: BTreeMap<TrialId, Vec<u8>>,
}

impl Kept {
    fn keep(&mut self, snapshot: Snapshot) {
        self.head = snapshot.head.map(|head| head.encode_to_vec());
        self.trials.extend(snapshot.trials.into_iter().map(|(id, trial)| (id, trial.encode_to_vec())));
    }

    /// The search as it was at the last whole snapshot.
    fn restored(&self) -> Option<Result<Search, DamagedSnapshot>> {
        let head = pb::SearchSnapshot::decode(&**self.head.as_ref()?).expect("decodes");
        Some(self.restored_with(head))
    }

    fn restored_with(&self, head: pb::SearchSnapshot) -> Result<Search, DamagedSnapshot> {
        let blank = Search::new(SearchId::new(1), created(EXTRA), Timestamp::from_millis(1_000), LEASE);
        let mut restoration = Restoration::begin(blank, head)?;
        for trial in self.trials.values() {
            restoration.push(pb::TrialSnapshot::decode(&**trial).expect("decodes"))?;
        }
        restoration.finish()
    }
}

const EXTRA: &str = "max_attempts: 2\nreplicates: 2";

/// Everything that a search is. What is in memory only is made equal first.
fn all_of(mut search: Search, now: Timestamp) -> String {
    search.grant_grace(now);
    search.take_discards();
    search.take_snapshot(usize::MAX);
    // A search that was restored knows the workers of its trials' last attempts alone.
    search.worker_names.clear();
    format!("{search:#?}")
}

proptest! {
    #[test]
    fn a_restored_search_is_the_replayed_one(
        story in happenings(),
        cancelled in prop::bool::weighted(0.2),
        every in 1_usize..20,
        most in 1_usize..6,
    ) {
        let mut bench = Bench::new(EXTRA);
        let (mut kept, mut holds) = (Kept::default(), BTreeMap::new());
        let last = story.len();
        for (number, happening) in story.into_iter().enumerate() {
            bench.happen(happening, &mut holds);
            if cancelled && number == last / 2 {
                let _ = bench.give(Command::Cancel);
            }
            if number % every == 0 {
                kept.keep(bench.search.take_snapshot(most));
            }
        }
        let Some(restored) = kept.restored() else { return Ok(()) };
        let mut restored = restored.expect("is whole");
        let version = usize::try_from(restored.version()).expect("fits");
        bench.events[version..].iter().for_each(|event| restored.apply(event));
        let replayed = Search::replay(SearchId::new(1), bench.events, LEASE).expect("created");
        prop_assert_eq!(all_of(restored, bench.now), all_of(replayed, bench.now));
    }
}

#[test]
fn a_snapshot_of_another_form_or_with_trials_missing_is_refused() {
    let mut bench = Bench::new(EXTRA);
    bench.train(1, 0.5);
    bench.lease(1);
    let mut kept = Kept::default();
    let snapshot = bench.search.take_snapshot(usize::MAX);
    let head = snapshot.head.clone().expect("whole");
    kept.keep(snapshot);
    assert!(kept.restored_with(head.clone()).is_ok());
    let form = head.form + 1;
    let foreign = kept.restored_with(pb::SearchSnapshot { form, ..head.clone() });
    assert!(matches!(foreign, Err(DamagedSnapshot::Form { found }) if found == form), "{foreign:?}");
    kept.trials.pop_last();
    let short = kept.restored_with(head);
    assert!(matches!(short, Err(DamagedSnapshot::Trials { found: 1, expected: 2 })), "{short:?}");
}

#[test]
fn a_snapshot_holds_what_has_changed_since_the_last_and_no_more() {
    let mut bench = Bench::new(EXTRA);
    bench.train(1, 0.5);
    bench.train(1, 0.6);
    assert_eq!(bench.search.take_snapshot(usize::MAX).trials.len(), 2);
    assert_eq!(bench.search.events_since_snapshot(), 0);
    bench.train(1, 0.7);
    let later = bench.search.take_snapshot(usize::MAX);
    assert_eq!(later.trials.iter().map(|(id, _)| id.get()).collect::<Vec<_>>(), [2]);
    bench.train(1, 0.8);
    bench.train(1, 0.9);
    assert!(bench.search.take_snapshot(1).head.is_none(), "a trial is left");
    assert!(bench.search.take_snapshot(1).head.is_some());
}

#[test]
fn a_listing_is_the_leaderboard_whatever_its_pages() {
    let mut bench = Bench::new(EXTRA);
    bench.train(1, 0.5);
    bench.fail(1, FailureReason::Diverged);
    bench.train(1, 0.7);
    for _ in 0..2 {
        bench.fail(1, FailureReason::TrainerCrashed);
    }
    bench.lease(1);
    bench.fail(2, FailureReason::TrainerCrashed);
    let rows = bench.rows();
    assert_eq!(rows.len(), 6);
    for (top, page) in [(0, 2), (1, 2), (3, 2), (6, 1), (usize::MAX, 4), (usize::MAX, 100)] {
        let Listing { first, rest, .. } = bench.search.listing(top, page);
        let rest = rest.into_iter().filter_map(|listed| match listed {
            Listed::Row(row) => Some(*row),
            Listed::Later(later) => bench.search.listed_row(later),
        });
        let listed: Vec<TrialRow> = first.into_iter().chain(rest).collect();
        assert_eq!(listed, rows.iter().take(top).cloned().collect::<Vec<_>>(), "top {top}, pages of {page}");
    }
}
