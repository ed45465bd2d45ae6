//! Removes models that nobody will ask for again.
//!
//! Only the best trial's model is ever evaluated or exported, and the best never gets worse. So a model is
//! of no use once a better trial is complete, unless the same bytes are also another search's best or a
//! dataset's file. It goes some time later: whoever has just uploaded the same bytes may be about to name them.
//!
//! What was uploaded and never named, models and checkpoints of workers that were lost in between, goes too.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fittingroom_common::event::Fact;
use fittingroom_common::id::ArtifactHash;
use tracing::{info, warn};

use super::{Cluster, ClusterError};
use crate::artifacts::UPLOAD_GRACE;
use crate::runner::SearchHandle;
use crate::search::Discard;

/// How long what was uploaded, or found at the start, may stay without a name: long enough for the other
/// files of a large dataset to follow, and for a coordinator whose disk is full.
const NAMING_GRACE: Duration = Duration::from_secs(3600);
/// How often uploads are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Cluster {
    /// Removes the models that a search needs no more, after a while. A search that is due already is not made due twice.
    pub(super) fn collect_later(self: &Arc<Self>, search: SearchHandle) {
        let mut due = self.due_for_collection.lock().unwrap_or_else(PoisonError::into_inner);
        if !due.insert(search.id()) {
            return;
        }
        drop(due);
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = cluster.shutdown().cancelled() => return,
                () = tokio::time::sleep(UPLOAD_GRACE) => {}
            }
            cluster.due_for_collection.lock().unwrap_or_else(PoisonError::into_inner).remove(&search.id());
            match cluster.collect(&search).await {
                Ok(0) => {}
                Ok(removed) => {
                    info!(search = %search.name(), removed, "models of trials that are not the best removed")
                }
                // The next model that is superseded brings it up again.
                Err(error) => warn!(search = %search.name(), %error, "models could not be removed"),
            }
        });
    }

    /// Removes the models that a search needs no more; answers how many.
    async fn collect(&self, search: &SearchHandle) -> Result<usize, ClusterError> {
        let superseded = search.query(|search| search.superseded_models()).await?;
        if superseded.is_empty() {
            return Ok(0);
        }
        // First of the two: a backup takes its time, and naming must not wait for it.
        let _no_backup = self.artifacts.deletion().await;
        // Until this is done, nobody makes a model theirs.
        let _nobody_names = self.naming.write().await;
        self.remove_unnamed(superseded).await
    }

    /// Removes what was uploaded and never named, some time later, until the shutdown.
    pub async fn collect_unnamed(self: Arc<Self>) {
        if let Err(error) = self.artifacts.note_all().await {
            warn!(%error, "models that earlier runs left stay until the next start");
        }
        loop {
            tokio::select! {
                () = self.shutdown().cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match self.collect_uploads_of(NAMING_GRACE).await {
                Ok(0) => {}
                Ok(removed) => info!(removed, "uploads that nothing came to name removed"),
                Err(error) => warn!(%error, "uploads that nothing names could not be removed"),
            }
        }
    }

    /// Removes what was uploaded this long ago and is named by nothing; answers how many that are.
    async fn collect_uploads_of(&self, age: Duration) -> Result<usize, ClusterError> {
        let mut removed = 0;
        let _no_backup = self.artifacts.deletion().await;
        let uploads = self.artifacts.take_uploads_of(age);
        if !uploads.is_empty() {
            let _nobody_names = self.naming.write().await;
            let collected = self.remove_unnamed(uploads.clone()).await;
            if collected.is_err() {
                uploads.into_iter().for_each(|hash| self.artifacts.note_upload(hash));
            }
            removed += collected?;
        }
        for (id, mut checkpoints) in self.surroundings.checkpoints.stored_for(age) {
            let search = self.find_id(id)?;
            let unnamed = search.query(move |search| {
                checkpoints.retain(|(trial, hash)| !search.keeps_checkpoint(*trial, *hash));
                checkpoints
            });
            for (trial, hash) in unnamed.await? {
                self.surroundings.checkpoints.discard(id, Discard::One { trial, hash });
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes those of these artifacts that no search and no dataset needs; answers how many. Nobody may be
    /// naming any meanwhile.
    async fn remove_unnamed(&self, artifacts: Vec<ArtifactHash>) -> Result<usize, ClusterError> {
        let mut named: BTreeSet<ArtifactHash> = BTreeSet::new();
        for search in self.searches() {
            named.extend(search.best_model().await?);
            // Its dataset's name may be another's by now.
            let first = self.log().events_after(search.id(), 0, 1).await?.into_iter().next();
            if let Some(Fact::SearchCreated(created)) = first.map(|event| event.fact) {
                named.extend(created.dataset.files);
            }
        }
        named.extend(self.datasets.list().await?.into_iter().flat_map(|manifest| manifest.files));
        let mut removed = 0;
        for hash in artifacts.into_iter().filter(|hash| !named.contains(hash)) {
            removed += usize::from(self.artifacts.remove(hash).await?);
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use bytes::Bytes;
    use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
    use fittingroom_common::dataset::{Manifest, Shape};
    use fittingroom_common::id::{Name, SlotNumber, WorkerId};
    use fittingroom_common::operator::Launch;
    use fittingroom_common::space::SearchSpec;
    use fittingroom_common::trial::{Finite, Report, Score};
    use fittingroom_common::work::{Outcome, WorkerInfo};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::artifacts::ArtifactStore;
    use crate::clock::SystemClock;
    use crate::cluster::Leases;
    use crate::log::{EventLog, SqliteLog};
    use crate::search::Command;

    const WORKER: WorkerId = WorkerId::new(1);

    async fn cluster(folder: &Path) -> Arc<Cluster> {
        let log = SqliteLog::open(&folder.join("log.sqlite")).expect("opens");
        let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
        let files = [ArtifactHash::of(b"file"); 4];
        log.put_dataset(Manifest { name: Name::sanitised("data"), shape, files }).await.expect("keeps");
        let artifacts =
            ArtifactStore::in_folder(&folder.join("artifacts"), folder.join("incoming")).expect("opens");
        let leases = Leases::lasting(Duration::from_secs(30));
        let (log, clock) = (Arc::new(log), Arc::new(SystemClock::start()));
        let opened = Cluster::open(log, artifacts, clock, leases, Vec::new(), CancellationToken::new()).await;
        let cluster = Arc::new(opened.expect("opens"));
        let worker = WorkerInfo {
            id: WORKER,
            name: Name::sanitised("worker"),
            slots: 1,
            device: String::new(),
            program_version: String::new(),
        };
        cluster.workers().register(worker, None, cluster.now()).expect("registers");
        cluster
    }

    async fn launch(cluster: &Arc<Cluster>, name: &str) -> SearchHandle {
        let file = "method: grid\nepochs: 1\nparameters: {learning_rate: {values: [0.1, 0.01, 0.001]}}";
        let spec = SearchSpec::parse("search.yaml", file).expect("parses").spec;
        let launch = Launch { name: Some(Name::sanitised(name)), spec, dataset: Name::sanitised("data") };
        cluster.launch(launch).await.expect("launches")
    }

    /// Trains the next trial, and completes it with this model.
    async fn train(cluster: &Arc<Cluster>, accuracy: f64, model: ArtifactHash) {
        let leased = cluster.lease(WORKER, SlotNumber::new(0), Duration::ZERO).await.expect("answers");
        let id = leased.expect("work").id;
        let finite = |number| Finite::new(number).expect("finite");
        let score = Score { loss: finite(1.0), accuracy: finite(accuracy) };
        let report = Report {
            epoch: 1,
            train: score,
            validation: score,
            test: None,
            seconds: 1.0,
            images_per_second: 1.0,
        };
        cluster.report(id.search, id.attempt, WORKER, report).await.expect("accepted");
        let outcome = Outcome::Trained { model: Some(model) };
        cluster.complete(id.search, id.attempt, WORKER, outcome).await.expect("accepted");
    }

    #[tokio::test]
    async fn a_model_goes_once_nobody_needs_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cluster = cluster(folder.path()).await;
        let store = cluster.artifacts();
        let a_while_passes = || drop(store.take_uploads_of(Duration::ZERO));
        let first = launch(&cluster, "first").await;
        let [poor, best] = [store.put(b"poor".to_vec()).await, store.put(b"best".to_vec()).await];
        let (poor, best) = (poor.expect("stores"), best.expect("stores"));
        train(&cluster, 0.5, poor).await;
        a_while_passes();
        assert_eq!(cluster.collect(&first).await.expect("collects"), 0, "it is the best");
        train(&cluster, 0.9, best).await;
        a_while_passes();
        assert_eq!(cluster.collect(&first).await.expect("collects"), 1);
        assert_eq!(
            (store.contains(poor).await.ok(), store.contains(best).await.ok()),
            (Some(false), Some(true))
        );

        first.command(Command::Pause, |_| ()).await.expect("runs");
        let second = launch(&cluster, "second").await;
        store.put(b"poor".to_vec()).await.expect("stores");
        train(&cluster, 0.4, poor).await;
        a_while_passes();
        assert_eq!(cluster.collect(&first).await.expect("collects"), 0, "it is the best of another search");

        let chunk = futures_util::stream::iter([Ok::<_, String>(Bytes::from_static(b"poor"))]);
        store.put_stream(chunk).await.expect("is there already");
        train(&cluster, 0.9, best).await;
        assert_eq!(cluster.collect(&second).await.expect("collects"), 0, "somebody has just uploaded it");
    }

    #[tokio::test]
    async fn nothing_is_deleted_while_a_backup_holds_it_and_nothing_else_waits() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cluster = cluster(folder.path()).await;
        let store = cluster.artifacts();
        let search = launch(&cluster, "search").await;
        let models = [store.put(b"poor".to_vec()).await, store.put(b"better".to_vec()).await];
        let [poor, better] = models.map(|model| model.expect("stores"));
        train(&cluster, 0.5, poor).await;
        train(&cluster, 0.6, better).await;
        // As if it had been uploaded long ago.
        store.take_uploads_of(Duration::ZERO);

        let hold = store.hold().await;
        let collecting = tokio::spawn({
            let (cluster, search) = (Arc::clone(&cluster), search.clone());
            async move { cluster.collect(&search).await.expect("collects") }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let best = store.put(b"best".to_vec()).await.expect("stores");
        let trained = train(&cluster, 0.9, best);
        tokio::time::timeout(Duration::from_secs(5), trained).await.expect("models are named meanwhile");
        assert!(!collecting.is_finished());
        assert!(store.contains(poor).await.expect("asks"));
        drop(hold);
        collecting.await.expect("ends");
        assert!(!store.contains(poor).await.expect("asks"));
    }

    fn chunk(bytes: &'static str) -> impl futures_util::Stream<Item = Result<Bytes, String>> + Unpin {
        futures_util::stream::iter([Ok(Bytes::from_static(bytes.as_bytes()))])
    }

    async fn put(cluster: &Cluster, bytes: &str) -> ArtifactHash {
        cluster.artifacts().put(bytes.as_bytes().to_vec()).await.expect("stores")
    }

    #[tokio::test]
    async fn what_was_uploaded_and_never_named_goes_after_a_while_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cluster = cluster(folder.path()).await;
        launch(&cluster, "search").await;
        let [file, best, orphan] =
            [put(&cluster, "file").await, put(&cluster, "best").await, put(&cluster, "orphan").await];
        train(&cluster, 0.9, best).await;
        // The dataset has another file by now, but the search goes on with the one that it began with.
        let mut manifest = cluster.datasets().list().await.expect("lists").remove(0);
        manifest.files = [put(&cluster, "newer").await; 4];
        cluster.log().put_dataset(manifest.clone()).await.expect("keeps");

        assert_eq!(cluster.collect_uploads_of(Duration::from_secs(60)).await.expect("collects"), 0);
        assert_eq!(cluster.collect_uploads_of(Duration::ZERO).await.expect("collects"), 1);
        for (row, hash, stays) in [
            ("a dataset's file", manifest.files[0], true),
            ("a search's file", file, true),
            ("the best model", best, true),
            ("what nothing names", orphan, false),
        ] {
            assert_eq!(cluster.artifacts().contains(hash).await.ok(), Some(stays), "{row}");
        }

        // What an earlier run left is looked at from the start on.
        put(&cluster, "orphan").await;
        assert_eq!(cluster.artifacts().take_uploads_of(Duration::ZERO), [orphan]);
        assert_eq!(cluster.collect_uploads_of(Duration::ZERO).await.expect("collects"), 0);
        cluster.artifacts().note_all().await.expect("lists");
        assert_eq!(cluster.collect_uploads_of(Duration::ZERO).await.expect("collects"), 1);
        assert_eq!(cluster.artifacts().contains(orphan).await.ok(), Some(false));
        assert_eq!(cluster.artifacts().contains(best).await.ok(), Some(true));
    }

    #[tokio::test]
    async fn a_checkpoint_that_was_never_named_goes_while_its_trial_runs() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cluster = cluster(folder.path()).await;
        launch(&cluster, "search").await;
        let leased = cluster.lease(WORKER, SlotNumber::new(0), Duration::ZERO).await.expect("answers");
        let id = leased.expect("work").id;
        let named = cluster.upload_checkpoint(id, WORKER, chunk("named")).await.expect("stores");
        let place = CheckpointPlace { epoch: 0, step: 7 };
        let checkpoint = Checkpoint { place, hash: named };
        cluster.keep_checkpoint(id, WORKER, checkpoint).await.expect("accepted");
        let unnamed = cluster.upload_checkpoint(id, WORKER, chunk("unnamed")).await.expect("stores");

        assert_eq!(cluster.collect_uploads_of(Duration::from_secs(60)).await.expect("collects"), 0);
        assert_eq!(cluster.collect_uploads_of(Duration::ZERO).await.expect("collects"), 1);
        let is_there = async |hash| {
            let checkpoints = &cluster.surroundings.checkpoints;
            checkpoints.get_stream(id.search, id.attempt.trial, hash).await.is_ok()
        };
        let deleted = async {
            while is_there(unnamed).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), deleted).await.is_ok(), "it stays");
        assert!(is_there(named).await);
    }
}
