//! Removes models that nobody will ask for again.
//!
//! Only the best trial's model is ever evaluated or exported, and the best never gets worse. So a model is
//! of no use once a better trial is complete, unless the same bytes are also another search's best or a
//! dataset's file. It goes some time later: whoever has just uploaded the same bytes may be about to name them.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use fittingroom_common::id::ArtifactHash;
use tracing::{info, warn};

use super::{Cluster, ClusterError};
use crate::artifacts::UPLOAD_GRACE;
use crate::runner::SearchHandle;

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
        let mut named: BTreeSet<ArtifactHash> = BTreeSet::new();
        for search in self.searches() {
            named.extend(search.best_model().await?);
        }
        named.extend(self.datasets.list().await?.into_iter().flat_map(|manifest| manifest.files));
        let mut removed = 0;
        for hash in superseded.into_iter().filter(|hash| !named.contains(hash)) {
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
        let first = launch(&cluster, "first").await;
        let [poor, best] = [store.put(b"poor".to_vec()).await, store.put(b"best".to_vec()).await];
        let (poor, best) = (poor.expect("stores"), best.expect("stores"));
        train(&cluster, 0.5, poor).await;
        assert_eq!(cluster.collect(&first).await.expect("collects"), 0, "it is the best");
        train(&cluster, 0.9, best).await;
        assert_eq!(cluster.collect(&first).await.expect("collects"), 1);
        assert_eq!(
            (store.contains(poor).await.ok(), store.contains(best).await.ok()),
            (Some(false), Some(true))
        );

        first.command(Command::Pause, |_| ()).await.expect("runs");
        let second = launch(&cluster, "second").await;
        store.put(b"poor".to_vec()).await.expect("stores");
        train(&cluster, 0.4, poor).await;
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
}
