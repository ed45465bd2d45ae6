//! What watchers of a search are shown.

use fittingroom_common::view::LeaderboardView;

use super::{Cluster, ClusterError};
use crate::runner::SearchHandle;

/// The most running trials of one view.
const MOST_RUNNING_ROWS: usize = 1000;

impl Cluster {
    /// The top of a search's leaderboard now.
    pub async fn view(&self, search: &SearchHandle, top: usize) -> Result<LeaderboardView, ClusterError> {
        let totals = self.workers.totals(self.now());
        let count = |it| u32::try_from(it).unwrap_or(u32::MAX);
        let (workers, slots) = (count(totals.workers), count(totals.slots));
        let view = search
            .query(move |search| LeaderboardView {
                search: search.summary(),
                ranked: search.ranked().take(top).collect(),
                running: search.running_rows(MOST_RUNNING_ROWS),
                workers,
                slots,
            })
            .await?;
        Ok(view)
    }
}
