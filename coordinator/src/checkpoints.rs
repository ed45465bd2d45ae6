//! The checkpoints of trials that run, stored beside the artifacts but not among them: each belongs
//! to its trial, so that deleting it can take nothing from anybody else, whatever its bits are.
//!
//! A checkpoint is durable before an event names it. What the events have made useless is deleted
//! in the background; what an upload left that no event came to name goes some time later, with its
//! trial, or at the next start.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fittingroom_common::id::{ArtifactHash, SearchId, TrialId};
use futures_util::stream::BoxStream;
use futures_util::{Stream, TryStreamExt};
use object_store::path::Path as ObjectPath;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::artifacts::{ArtifactError, ArtifactStore};
use crate::search::Discard;

/// Where checkpoints lie. No artifact does: their folders have names of two letters.
pub(crate) const FOLDER: &str = "checkpoints";
/// How long to wait before something that could not be deleted is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// One trial of one search.
pub(crate) type TrialKey = (SearchId, TrialId);

/// The stored checkpoints.
#[derive(Debug)]
pub struct Checkpoints {
    artifacts: ArtifactStore,
    index: Mutex<Index>,
    /// Told when there is something to delete.
    deletable: Notify,
}

/// What is stored: no more than the store has, so that it needs no bound of its own.
#[derive(Debug, Default)]
struct Index {
    /// With when they were stored, or found.
    stored: HashMap<TrialKey, BTreeMap<ArtifactHash, Instant>>,
    useless: BTreeSet<(TrialKey, ArtifactHash)>,
}

impl Checkpoints {
    /// The checkpoints in a store. [`sweep`](Self::sweep) looks at what is there already.
    pub fn new(artifacts: ArtifactStore) -> Self {
        Self { artifacts, index: Mutex::default(), deletable: Notify::new() }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // A panic while the lock was held leaves sets that are still whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for what an earlier run of the coordinator left, and gives up all of it that is not
    /// `kept`. To be called before anything is uploaded.
    pub async fn sweep(
        &self,
        kept: impl IntoIterator<Item = (SearchId, TrialId, ArtifactHash)>,
    ) -> Result<(), ArtifactError> {
        let kept: BTreeSet<_> =
            kept.into_iter().map(|(search, trial, hash)| ((search, trial), hash)).collect();
        let there: Vec<_> = self.artifacts.list(&ObjectPath::from(FOLDER)).try_collect().await?;
        let there = there.iter().filter_map(key_of);
        let (stored, useless): (Vec<_>, Vec<_>) = there.partition(|key| kept.contains(key));
        if !useless.is_empty() {
            info!(count = useless.len(), "deleting checkpoints of trials that are over");
        }
        let mut index = self.index();
        for (trial, hash) in stored {
            index.stored.entry(trial).or_default().insert(hash, Instant::now());
        }
        index.useless.extend(useless);
        drop(index);
        self.deletable.notify_one();
        Ok(())
    }

    /// Stores what a stream brings as a checkpoint of a trial, and answers its hash when it is durable.
    pub async fn put_stream<E: std::fmt::Display>(
        &self,
        search: SearchId,
        trial: TrialId,
        chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<ArtifactHash, ArtifactError> {
        let collected = self.artifacts.collect(chunks).await?;
        let hash = collected.hash;
        // Until it is known to be of use again, what has the same bits is not deleted.
        let _stays = self.artifacts.stays().await;
        self.artifacts.put_at(&collected, &place((search, trial), hash)).await?;
        let mut index = self.index();
        index.useless.remove(&((search, trial), hash));
        index.stored.entry((search, trial)).or_default().insert(hash, Instant::now());
        Ok(hash)
    }

    /// Everything that was stored this long ago: of each search its trials' checkpoints, those in use among them.
    pub fn stored_for(&self, age: Duration) -> BTreeMap<SearchId, Vec<(TrialId, ArtifactHash)>> {
        let mut old: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((search, trial), hashes) in &self.index().stored {
            let hashes = hashes.iter().filter(|(_, stored)| stored.elapsed() >= age);
            let hashes: Vec<_> = hashes.map(|(hash, _)| (*trial, *hash)).collect();
            if !hashes.is_empty() {
                old.entry(*search).or_default().extend(hashes);
            }
        }
        old
    }

    /// A trial's checkpoint in chunks.
    pub async fn get_stream(
        &self,
        search: SearchId,
        trial: TrialId,
        hash: ArtifactHash,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        self.artifacts.get_stream_at(hash, &place((search, trial), hash)).await
    }

    /// Whether a trial has this checkpoint. If so, it is not deleted before it is given up (again): a start
    /// gives up what was stored and not yet named, and whoever stored it may name it right then.
    pub async fn claim(
        &self,
        search: SearchId,
        trial: TrialId,
        hash: ArtifactHash,
    ) -> Result<bool, ArtifactError> {
        let key = (search, trial);
        // Nothing is deleted while this looks.
        let _stays = self.artifacts.stays().await;
        let is_there = self.artifacts.contains_at(&place(key, hash)).await?;
        let mut index = self.index();
        if is_there && index.useless.remove(&(key, hash)) {
            index.stored.entry(key).or_default().insert(hash, Instant::now());
        }
        Ok(is_there)
    }

    /// Has deleted what is of no more use, soon. The events that say so must be durable.
    pub fn discard(&self, search: SearchId, discard: Discard) {
        let mut index = self.index();
        let useless = match discard {
            Discard::One { trial, hash } => {
                let key = (search, trial);
                let was_stored = index.stored.get_mut(&key).is_some_and(|it| it.remove(&hash).is_some());
                was_stored.then_some((key, hash)).into_iter().collect()
            }
            Discard::All { trial } => {
                let key = (search, trial);
                let hashes = index.stored.remove(&key).unwrap_or_default();
                hashes.into_keys().map(|hash| (key, hash)).collect::<Vec<_>>()
            }
        };
        if useless.is_empty() {
            return;
        }
        index.useless.extend(useless);
        drop(index);
        self.deletable.notify_one();
    }

    /// Deletes what is of no more use, until the shutdown. What it does not come to is found at the next start.
    pub async fn delete_useless(self: Arc<Self>, shutdown: CancellationToken) {
        let delete = async {
            loop {
                self.deletable.notified().await;
                while !self.delete_once().await {
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = delete => {}
        }
    }

    /// Answers whether nothing is left that could not be deleted.
    async fn delete_once(&self) -> bool {
        let useless = self.index().useless.clone();
        let mut failure = None;
        for (trial, hash) in useless {
            // It may have been stored again meanwhile.
            let is_useless = || self.index().useless.contains(&(trial, hash));
            let _no_backup = self.artifacts.deletion().await;
            match self.artifacts.delete_if(&place(trial, hash), is_useless).await {
                Ok(()) => drop(self.index().useless.remove(&(trial, hash))),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => {
                warn!(%error, "checkpoints of no more use cannot be deleted; trying again later");
                false
            }
            None => true,
        }
    }
}

/// Where a checkpoint lies. All in one folder: there are two for each trial that runs.
pub(crate) fn place((search, trial): TrialKey, hash: ArtifactHash) -> ObjectPath {
    ObjectPath::from_iter([FOLDER.to_owned(), format!("{search}-{trial}-{hash}")])
}

/// What lies at a place; `None` if it is nothing of ours.
pub(crate) fn key_of(place: &ObjectPath) -> Option<(TrialKey, ArtifactHash)> {
    let (search, rest) = place.filename()?.split_once('-')?;
    let (trial, hash) = rest.split_once('-')?;
    let key = (SearchId::new(search.parse().ok()?), TrialId::new(trial.parse().ok()?));
    Some((key, hash.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SEARCH: SearchId = SearchId::new(3);

    fn chunks(bytes: &'static [u8]) -> impl Stream<Item = Result<Bytes, String>> + Unpin {
        futures_util::stream::iter([Ok(Bytes::from_static(bytes))])
    }

    fn store(folder: &Path) -> ArtifactStore {
        ArtifactStore::in_folder(&folder.join("artifacts"), folder.join("incoming")).expect("opens")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder.join("artifacts").join(FOLDER)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|it| it.expect("lists").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn name(trial: u64, bytes: &[u8]) -> String {
        format!("3-{trial}-{}", ArtifactHash::of(bytes))
    }

    async fn stored(checkpoints: &Checkpoints, trial: u64, bytes: &'static [u8]) -> ArtifactHash {
        checkpoints.put_stream(SEARCH, TrialId::new(trial), chunks(bytes)).await.expect("stores")
    }

    #[tokio::test]
    async fn what_is_discarded_is_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let artifacts = store(folder.path());
        let model = artifacts.put(b"the same bits".to_vec()).await.expect("stores");
        let checkpoints = Checkpoints::new(artifacts.clone());
        let same = stored(&checkpoints, 0, b"the same bits").await;
        assert_eq!(same, model);
        stored(&checkpoints, 1, b"the same bits").await;
        let newer = stored(&checkpoints, 0, b"newer").await;
        stored(&checkpoints, 1, b"never named").await;

        let trial = TrialId::new(0);
        checkpoints.discard(SEARCH, Discard::One { trial, hash: same });
        assert!(checkpoints.delete_once().await);
        assert!(checkpoints.claim(SEARCH, trial, newer).await.expect("asks"));
        let mut left = [name(0, b"newer"), name(1, b"the same bits"), name(1, b"never named")];
        left.sort();
        assert_eq!(names(folder.path()), left);

        let hold = artifacts.hold().await;
        checkpoints.discard(SEARCH, Discard::All { trial: TrialId::new(1) });
        let deleting = tokio::time::timeout(Duration::from_millis(50), checkpoints.delete_once()).await;
        assert!(deleting.is_err(), "a backup may be reading them");
        assert_eq!(names(folder.path()), left);
        drop(hold);
        checkpoints.discard(SearchId::new(4), Discard::All { trial });
        assert!(checkpoints.delete_once().await);
        assert_eq!(names(folder.path()), [name(0, b"newer")]);
        assert!(artifacts.contains(model).await.expect("asks"), "an artifact of the same bits stays");
    }

    #[tokio::test]
    async fn what_is_named_or_stored_again_before_it_is_deleted_stays() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let checkpoints = Checkpoints::new(store(folder.path()));
        let (named, again) =
            (stored(&checkpoints, 0, b"named").await, stored(&checkpoints, 0, b"again").await);
        stored(&checkpoints, 0, b"neither").await;

        let started = Checkpoints::new(store(folder.path()));
        started.sweep([]).await.expect("sweeps");
        assert!(started.claim(SEARCH, TrialId::new(0), named).await.expect("asks"));
        assert_eq!(stored(&started, 0, b"again").await, again);
        assert!(started.delete_once().await);
        let mut left = [name(0, b"named"), name(0, b"again")];
        left.sort();
        assert_eq!(names(folder.path()), left);
        let unknown = ArtifactHash::of(b"unknown");
        assert!(!started.claim(SEARCH, TrialId::new(0), unknown).await.expect("asks"));

        started.discard(SEARCH, Discard::All { trial: TrialId::new(0) });
        assert!(started.delete_once().await);
        assert_eq!(names(folder.path()), [""; 0], "and goes with the trial");
    }

    #[tokio::test]
    async fn a_start_deletes_what_the_run_before_left() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let checkpoints = Checkpoints::new(store(folder.path()));
        checkpoints.sweep([]).await.expect("an empty store is swept");
        let kept = stored(&checkpoints, 0, b"kept").await;
        stored(&checkpoints, 0, b"never named").await;
        stored(&checkpoints, 12, b"of a trial that is over").await;
        let part = folder.path().join("artifacts").join(FOLDER).join("3-12-0123#1");
        std::fs::write(&part, "half of it").expect("writable");

        let again = Arc::new(Checkpoints::new(store(folder.path())));
        let trial = TrialId::new(0);
        again.sweep([(SEARCH, trial, kept)]).await.expect("sweeps");
        let shutdown = CancellationToken::new();
        let deleting = tokio::spawn(Arc::clone(&again).delete_useless(shutdown.clone()));
        let deleted = async {
            while names(folder.path()).len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), deleted).await;
        assert!(in_time.is_ok(), "left: {:?}", names(folder.path()));
        shutdown.cancel();
        deleting.await.expect("ends");
        assert_eq!(names(folder.path()), [name(0, b"kept")]);
        let bytes: Vec<Bytes> =
            again.get_stream(SEARCH, trial, kept).await.expect("there").try_collect().await.expect("reads");
        assert_eq!(bytes.concat(), b"kept");
        again.discard(SEARCH, Discard::All { trial });
        assert!(again.delete_once().await);
        assert_eq!(names(folder.path()), [""; 0], "what was there before the start is known too");
    }
}
