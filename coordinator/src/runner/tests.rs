//! A runner with a log that fails and a clock that jumps.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::event::{Created, Fact};
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{ArtifactHash, AttemptNumber, SlotNumber, TrialId};
use fittingroom_common::proto as pb;
use fittingroom_common::space::SearchSpec;
use fittingroom_common::work::Holder;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::artifacts::ArtifactStore;
use crate::log::Listed;

const LEASE: Duration = Duration::from_secs(30);
const WORKER: WorkerId = WorkerId::new(1);
const FIRST: Attempt = Attempt { trial: TrialId::new(0), number: AttemptNumber::FIRST };

/// A log in memory, whose disk can be full.
#[derive(Default)]
struct FragileLog {
    events: Mutex<Vec<Event>>,
    is_full: AtomicBool,
    /// How often it was read from the beginning.
    loads: AtomicUsize,
}

impl EventLog for FragileLog {
    fn create(&self, _: Name, _: Event) -> BoxFuture<'_, Result<SearchId, LogError>> {
        async { Err(LogError::Closed) }.boxed()
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let mut events = self.events.lock().expect("not poisoned");
            if self.is_full.load(Ordering::Relaxed) {
                return Err(LogError::DiskFull);
            }
            assert_eq!(append.expected_version, events.len() as u64, "the runner knows its version");
            events.extend(append.events);
            Ok(())
        }
        .boxed()
    }

    fn searches(&self) -> BoxFuture<'_, Result<Vec<Listed>, LogError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn events(&self, _: SearchId) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        async { Ok(self.events.lock().expect("not poisoned").clone()) }.boxed()
    }

    fn events_after(
        &self,
        _: SearchId,
        version: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.loads.fetch_add(usize::from(version == 0), Ordering::Relaxed);
        let events = self.events.lock().expect("not poisoned");
        let after = events.iter().skip(version as usize).take(most).cloned().collect();
        async { Ok(after) }.boxed()
    }

    fn snapshot(&self, _: SearchId) -> BoxFuture<'_, Result<Option<pb::SearchSnapshot>, LogError>> {
        async { Ok(None) }.boxed()
    }

    fn snapshot_trials(
        &self,
        _: SearchId,
        _: TrialId,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<pb::TrialSnapshot>, LogError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn events_of_trial(&self, search: SearchId, _: TrialId) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        self.events(search)
    }

    fn put_dataset(&self, _: Manifest) -> BoxFuture<'_, Result<(), LogError>> {
        async { Ok(()) }.boxed()
    }

    fn datasets(&self) -> BoxFuture<'_, Result<Vec<Manifest>, LogError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), LogError>> {
        async { Ok(()) }.boxed()
    }

    fn copy(&self, _: PathBuf, _: CancellationToken) -> BoxFuture<'_, Result<(), LogError>> {
        async { Err(LogError::Closed) }.boxed()
    }
}

/// A clock that stands still until it is told to jump.
#[derive(Default)]
struct HandClock(AtomicI64);

impl HandClock {
    fn jump(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as i64, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

struct Bench {
    log: Arc<FragileLog>,
    clock: Arc<HandClock>,
    surroundings: Surroundings,
    search: SearchHandle,
}

fn bench() -> Bench {
    let file = "method: grid\nparameters: {optimizer: {values: [sgd, adam]}}";
    let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
    let created = Created {
        name: Name::sanitised("search"),
        spec: SearchSpec::parse("search.yaml", file).expect("parses").spec,
        dataset: Manifest { name: Name::sanitised("data"), shape, files: [ArtifactHash::of(b""); 4] },
        defaults: Hyperparameters::defaults(),
    };
    let (log, clock) = (Arc::new(FragileLog::default()), Arc::new(HandClock::default()));
    let first = Event { at: clock.now(), fact: Fact::SearchCreated(Box::new(created.clone())) };
    log.events.lock().expect("not poisoned").push(first);
    let folder = tempfile::tempdir().expect("temporary folder");
    let artifacts = ArtifactStore::in_folder(folder.path(), folder.path().join("incoming")).expect("opens");
    let surroundings = Surroundings {
        log: log.clone(),
        clock: clock.clone(),
        checkpoints: Arc::new(Checkpoints::new(artifacts)),
        lease: LEASE,
        work: watch::channel(0).0,
        shutdown: CancellationToken::new(),
    };
    let search = Search::new(SearchId::new(1), created, clock.now(), LEASE);
    Bench { log, clock, search: start(search, surroundings.clone()), surroundings }
}

impl Bench {
    async fn lease(&self) -> Result<Option<Attempt>, Refusal> {
        let slot = SlotNumber::new(0);
        let holder = Holder { worker: WORKER, name: Name::sanitised("worker"), slot };
        let look = move |search: &Search| search.assignment(WORKER, slot).map(|it| it.id.attempt);
        self.search.command(Command::Lease { holder }, look).await
    }

    async fn tick(&self) {
        self.search.command(Command::Tick, |_| ()).await.expect("a tick is never refused");
    }

    async fn running(&self) -> u64 {
        self.search.query(|search| search.summary().counts.running).await.expect("answers")
    }
}

#[tokio::test]
async fn what_cannot_be_made_durable_has_not_happened() {
    let bench = bench();
    bench.log.is_full.store(true, Ordering::Relaxed);
    let refused = bench.lease().await;
    assert!(
        matches!(&refused, Err(Refusal::NotDurable(error)) if matches!(**error, LogError::DiskFull)),
        "{refused:?}"
    );
    assert_eq!(bench.running().await, 0);
    assert_eq!(bench.search.renew(WORKER, vec![(FIRST, None)]).await.expect("answers"), [false]);

    bench.log.is_full.store(false, Ordering::Relaxed);
    assert_eq!(bench.lease().await.expect("durable"), Some(FIRST), "the trial was not used up");
    assert_eq!(bench.log.events.lock().expect("not poisoned").len(), 3);
}

#[tokio::test]
async fn a_cancellation_that_is_not_durable_drops_nobodys_work() {
    let bench = bench();
    bench.lease().await.expect("durable");
    bench.log.is_full.store(true, Ordering::Relaxed);
    let (cancelled, renewed) = tokio::join!(
        bench.search.command(Command::Cancel, |_| ()),
        bench.search.renew(WORKER, vec![(FIRST, None)])
    );
    assert!(matches!(cancelled, Err(Refusal::NotDurable(_))), "{cancelled:?}");
    assert_eq!(renewed.expect("answers"), [true]);
}

#[tokio::test]
async fn a_coordinator_that_was_stopped_itself_blames_no_worker() {
    let bench = bench();
    bench.lease().await.expect("durable");
    bench.clock.jump(LEASE * 100);
    bench.tick().await;
    assert_eq!(bench.running().await, 1, "the heartbeats of that time are still to be read");
    for _ in 0..3 {
        bench.clock.jump(LEASE / 2);
        bench.tick().await;
    }
    assert_eq!(bench.running().await, 0, "but a worker that stays silent is lost");
}

#[tokio::test]
async fn a_search_that_has_ended_rests_until_it_is_asked_for() {
    let bench = bench();
    bench.search.command(Command::Cancel, |_| ()).await.expect("durable");
    let summary = bench.search.summary().await.expect("answers");
    let loads = || bench.log.loads.load(Ordering::Relaxed);

    let (id, name, pulse) = (SearchId::new(1), summary.name.clone(), bench.search.pulse_now());
    let mind = Mind::Resting(Box::new(Glance { summary: summary.clone(), best_model: None }));
    let resting = spawn(id, name, pulse, mind, bench.surroundings.clone(), Duration::from_millis(50));
    assert_eq!(resting.summary().await.expect("answers"), summary);
    assert_eq!(
        (loads(), resting.pulse_now().state),
        (0, SearchState::Cancelled),
        "nothing was read for that"
    );
    for times in 1..=2 {
        assert_eq!(resting.query(Search::state).await.expect("answers"), SearchState::Cancelled);
        assert_eq!(resting.query(Search::version).await.expect("answers"), 2);
        assert_eq!(loads(), times, "loaded when asked, and once for both");
        // Two ticks and more: one takes the snapshot, then the search may rest.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}
