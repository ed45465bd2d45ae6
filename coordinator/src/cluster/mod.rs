//! All searches and workers of one coordinator: what the services call.

mod checkpoint;
mod collect;
mod error;
mod open;
mod tally;
mod unheard;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use fittingroom_common::event::{Created, Event, Fact};
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{Attempt, Name, SearchId, SlotNumber, WorkerId};
use fittingroom_common::operator::Launch;
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::Report;
use fittingroom_common::view::Progress;
use fittingroom_common::work::{Assignment, Directive, Held, Holder, Outcome};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, warn};

pub use error::ClusterError;
pub use tally::Tally;

use crate::artifacts::ArtifactStore;
use crate::checkpoints::Checkpoints;
use crate::clock::Clock;
use crate::datasets::Datasets;
use crate::log::{EventLog, LogError};
use crate::runner::{self, Refusal, SearchHandle, Surroundings};
use crate::search::{Command, Search};
use crate::workers::{WorkerError, Workers};

/// How long a slot waits for one search's answer before it asks the next.
const SEARCH_PATIENCE: Duration = Duration::from_secs(2);

/// How a coordinator keeps its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    /// How long a lease lasts without a heartbeat.
    pub length: Duration,
    /// The time between two heartbeats.
    pub heartbeat: Duration,
}

impl Leases {
    /// Leases of this length, with at least five heartbeats in each and one every two seconds.
    pub fn lasting(length: Duration) -> Self {
        let heartbeat = (length / 5).clamp(Duration::from_millis(50), Duration::from_secs(2));
        Self { length, heartbeat }
    }
}

#[derive(Default)]
struct Searches {
    by_id: BTreeMap<SearchId, SearchHandle>,
    by_name: BTreeMap<Name, SearchId>,
}

impl Searches {
    fn insert(&mut self, handle: SearchHandle) {
        self.by_name.insert(handle.name().clone(), handle.id());
        self.by_id.insert(handle.id(), handle);
    }
}

/// All searches and workers of one coordinator.
pub struct Cluster {
    surroundings: Surroundings,
    leases: Leases,
    searches: RwLock<Searches>,
    workers: Workers,
    artifacts: ArtifactStore,
    datasets: Datasets,
    /// Shared by those who are about to name a model, held alone by whoever removes some.
    naming: tokio::sync::RwLock<()>,
    /// The searches whose models will be looked through.
    due_for_collection: Mutex<BTreeSet<SearchId>>,
}

impl Cluster {
    /// Loads every search of the log that goes on, and starts the runners of all.
    pub async fn open(
        log: Arc<dyn EventLog>,
        artifacts: ArtifactStore,
        clock: Arc<dyn Clock>,
        leases: Leases,
        dataset_folders: Vec<PathBuf>,
        shutdown: CancellationToken,
    ) -> Result<Self, ClusterError> {
        let (work, _) = watch::channel(0);
        let datasets = Datasets::new(Arc::clone(&log), artifacts.clone(), dataset_folders);
        let checkpoints = Arc::new(Checkpoints::new(artifacts.clone()));
        let surroundings = Surroundings { log, clock, checkpoints, lease: leases.length, work, shutdown };
        let (mut stored, mut kept) = (Vec::new(), Vec::new());
        for listed in surroundings.log.searches().await? {
            let span = crate::chronicle::span(&listed.name);
            let opened = open::search(listed, &surroundings).instrument(span).await?;
            kept.extend(opened.checkpoints());
            stored.push(opened);
        }
        let checkpoints = &surroundings.checkpoints;
        if let Err(error) = checkpoints.sweep(kept).await {
            warn!(%error, "checkpoints that are of no more use are left until the next start");
        }
        tokio::spawn(Arc::clone(checkpoints).delete_useless(surroundings.shutdown.clone()));
        let mut searches = Searches::default();
        for opened in stored {
            searches.insert(opened.start(surroundings.clone()));
        }
        let workers = Workers::new(leases.length);
        Ok(Self {
            surroundings,
            leases,
            searches: RwLock::new(searches),
            workers,
            artifacts,
            datasets,
            naming: tokio::sync::RwLock::default(),
            due_for_collection: Mutex::default(),
        })
    }

    /// How leases are kept.
    pub const fn leases(&self) -> Leases {
        self.leases
    }

    /// The artifact store.
    pub const fn artifacts(&self) -> &ArtifactStore {
        &self.artifacts
    }

    /// The datasets.
    pub const fn datasets(&self) -> &Datasets {
        &self.datasets
    }

    /// The event log.
    pub fn log(&self) -> &dyn EventLog {
        self.surroundings.log.as_ref()
    }

    /// The connected workers.
    pub const fn workers(&self) -> &Workers {
        &self.workers
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.surroundings.clock.now()
    }

    /// When to stop.
    pub const fn shutdown(&self) -> &CancellationToken {
        &self.surroundings.shutdown
    }

    /// Every search, in the order of launching.
    pub fn searches(&self) -> Vec<SearchHandle> {
        let searches = self.searches.read().unwrap_or_else(PoisonError::into_inner);
        searches.by_id.values().cloned().collect()
    }

    /// Every search that goes on, the one with the fewest attempts out on workers first.
    pub fn open_searches(&self) -> Vec<SearchHandle> {
        let mut open = Vec::new();
        for search in self.searches.read().unwrap_or_else(PoisonError::into_inner).by_id.values() {
            let pulse = search.pulse_now();
            if !pulse.state.has_ended() {
                open.push((pulse.leases, search.clone()));
            }
        }
        // Stable: of equals, the one launched first.
        open.sort_by_key(|(leases, _)| *leases);
        open.into_iter().map(|(_, search)| search).collect()
    }

    /// The search of this name.
    pub fn find(&self, name: &Name) -> Result<SearchHandle, ClusterError> {
        let searches = self.searches.read().unwrap_or_else(PoisonError::into_inner);
        let found = searches.by_name.get(name).and_then(|id| searches.by_id.get(id));
        found.cloned().ok_or_else(|| ClusterError::NoSuchSearch { name: name.clone() })
    }

    fn find_id(&self, id: SearchId) -> Result<SearchHandle, ClusterError> {
        let searches = self.searches.read().unwrap_or_else(PoisonError::into_inner);
        searches.by_id.get(&id).cloned().ok_or(ClusterError::NoSuchSearchId(id))
    }

    /// Creates a search and starts it, whether or not the caller stays to hear of it.
    pub async fn launch(self: &Arc<Self>, launch: Launch) -> Result<SearchHandle, ClusterError> {
        let cluster = Arc::clone(self);
        let launched = tokio::spawn(async move { cluster.create(launch).await });
        launched.await.unwrap_or(Err(ClusterError::Refused(Refusal::Stopping)))
    }

    async fn create(&self, launch: Launch) -> Result<SearchHandle, ClusterError> {
        let Launch { name: wished, spec, dataset } = launch;
        let Some(dataset) = self.datasets.find(&dataset).await? else {
            return Err(ClusterError::NoSuchDataset { name: dataset });
        };
        // Its name may be another's before the search names the files.
        dataset.files.into_iter().for_each(|hash| self.artifacts.note_upload(hash));
        loop {
            let name = wished.clone().unwrap_or_else(|| self.free_name(spec.method.name()));
            let created = Created {
                name: name.clone(),
                spec: spec.clone(),
                dataset: dataset.clone(),
                defaults: Hyperparameters::defaults(),
            };
            let event = Event { at: self.now(), fact: Fact::SearchCreated(Box::new(created.clone())) };
            let id = match self.surroundings.log.create(name.clone(), event.clone()).await {
                // Another launch took the name that was free a moment ago.
                Err(LogError::NameTaken { .. }) if wished.is_none() => {
                    tokio::task::yield_now().await;
                    continue;
                }
                created => created?,
            };
            crate::chronicle::span(&name).in_scope(|| crate::chronicle::tell(&event));
            let search = Search::new(id, created, event.at, self.leases.length);
            let handle = runner::start(search, self.surroundings.clone());
            self.searches.write().unwrap_or_else(PoisonError::into_inner).insert(handle.clone());
            return Ok(handle);
        }
    }

    fn free_name(&self, stem: &str) -> Name {
        let searches = self.searches.read().unwrap_or_else(PoisonError::into_inner);
        let mut number = searches.by_id.len() + 1;
        loop {
            let name = Name::sanitised(&format!("{stem}-{number}"));
            if !searches.by_name.contains_key(&name) {
                return name;
            }
            number += 1;
        }
    }

    /// Work for a free slot, as soon as there is some, for at most `patience`. The search with the
    /// fewest attempts out on workers goes first, so that searches share the slots.
    pub async fn lease(
        &self,
        worker: WorkerId,
        slot: SlotNumber,
        patience: Duration,
    ) -> Result<Option<Assignment>, ClusterError> {
        let holder = self.workers.holder(worker, slot, self.now())?;
        let mut work = self.surroundings.work.subscribe();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            work.mark_unchanged();
            if !self.workers.knows(worker) {
                // It was forgotten while it waited.
                return Err(WorkerError::Unknown.into());
            }
            if let Some(assignment) = self.offer(&self.open_searches(), &holder).await? {
                return Ok(Some(assignment));
            }
            tokio::select! {
                changed = work.changed() => if changed.is_err() { return Ok(None) },
                () = tokio::time::sleep_until(deadline) => return Ok(None),
                () = self.shutdown().cancelled() => return Ok(None),
            }
        }
    }

    /// What the first of these searches that has work gives to a slot. A search that does not answer
    /// in time is passed over, so that it holds up no other; what it gave is given again when the slot asks again.
    async fn offer(
        &self,
        open: &[SearchHandle],
        holder: &Holder,
    ) -> Result<Option<Assignment>, ClusterError> {
        let (worker, slot) = (holder.worker, holder.slot);
        let has_work = |search: &&SearchHandle| search.pulse_now().has_work;
        let asked_first = open.iter().find(has_work).map(SearchHandle::id);
        // A slot that asks for work holds none, whatever a search may think: the answer was lost. The
        // search that is asked for work first says so by itself, and is spared the question.
        let others = open.iter().filter(|search| Some(search.id()) != asked_first);
        for search in others.filter(|search| search.pulse_now().leases > 0) {
            let held = unheard::given_to(search, worker, slot);
            if let Ok(Ok(Some(assignment))) = tokio::time::timeout(SEARCH_PATIENCE, held).await {
                return Ok(Some(assignment));
            }
        }
        let mut refusal = None;
        for search in open.iter().filter(|search| Some(search.id()) == asked_first || has_work(search)) {
            let command = Command::Lease { holder: holder.clone() };
            let leased = search.command(command, move |it| it.assignment(worker, slot));
            match tokio::time::timeout(SEARCH_PATIENCE, leased).await {
                Ok(Ok(Some(assignment))) => return Ok(Some(assignment)),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => refusal = Some(error),
                Err(_) => warn!(search = %search.name(), "a search does not answer"),
            }
        }
        refusal.map_or(Ok(None), |refusal| Err(refusal.into()))
    }

    /// Renews what a worker says it holds, and says what to do with each.
    pub async fn heartbeat(
        &self,
        worker: WorkerId,
        held: Vec<Held>,
        draining: bool,
    ) -> Result<Vec<Directive>, ClusterError> {
        let busy = u32::try_from(held.len()).unwrap_or(u32::MAX);
        self.workers.heard(worker, busy, draining, self.now())?;
        let mut by_search: BTreeMap<SearchId, Vec<(usize, Attempt, Option<Progress>)>> = BTreeMap::new();
        for (index, it) in held.iter().enumerate() {
            by_search.entry(it.id.search).or_default().push((index, it.id.attempt, it.progress));
        }
        let mut directives = vec![Directive::Drop; held.len()];
        let renewed = by_search.into_iter().map(async |(search, attempts)| {
            let Ok(handle) = self.find_id(search) else { return (attempts, None) };
            let renewals = attempts.iter().map(|(_, attempt, progress)| (*attempt, *progress)).collect();
            let renewed = tokio::time::timeout(self.leases.heartbeat, handle.renew(worker, renewals)).await;
            // A search that does not answer now is no reason to drop its work.
            let holds = renewed.ok().and_then(Result::ok).unwrap_or_else(|| vec![true; attempts.len()]);
            (attempts, Some(holds))
        });
        for (attempts, holds) in futures_util::future::join_all(renewed).await {
            for ((index, ..), holds) in attempts.into_iter().zip(holds.into_iter().flatten()) {
                if holds {
                    directives[index] = Directive::Continue;
                }
            }
        }
        if draining {
            self.release_lost(worker, &held).await?;
        }
        Ok(directives)
    }

    /// Takes the report of an epoch; answers whether the trial's model is to be kept.
    pub async fn report(
        &self,
        search: SearchId,
        attempt: Attempt,
        worker: WorkerId,
        report: Report,
    ) -> Result<bool, ClusterError> {
        let command = Command::Report { attempt, worker, report };
        Ok(self.find_id(search)?.command(command, move |search| search.wants_model(attempt)).await?)
    }

    /// Ends an attempt. A model must have been uploaded before.
    pub async fn complete(
        self: &Arc<Self>,
        search: SearchId,
        attempt: Attempt,
        worker: WorkerId,
        outcome: Outcome,
    ) -> Result<(), ClusterError> {
        let search = self.find_id(search)?;
        let Outcome::Trained { model: Some(hash) } = outcome else {
            return Ok(search.command(Command::Complete { attempt, worker, outcome }, |_| ()).await?);
        };
        let naming = self.naming.read().await;
        self.artifacts.note_upload(hash);
        if !self.artifacts.contains(hash).await? {
            return Err(ClusterError::NoSuchModel { hash });
        }
        search.command(Command::Complete { attempt, worker, outcome }, |_| ()).await?;
        drop(naming);
        self.collect_later(search);
        Ok(())
    }
}
