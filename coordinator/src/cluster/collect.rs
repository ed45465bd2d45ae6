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
