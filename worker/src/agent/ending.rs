//! The three steps in which an agent ends.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

/// What is over, each step after the one before it. Once cancelled, a step stays so.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// No new work is taken.
    pub(crate) drain: CancellationToken,
    /// Running attempts are given back.
    pub(crate) release: CancellationToken,
    /// Whatever the coordinator has not answered by now is not waited for.
    pub(crate) give_up: CancellationToken,
}

impl Ending {
    /// An ending whose first step is the signal to shut down.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { drain: shutdown, release: CancellationToken::new(), give_up: CancellationToken::new() }
    }

    /// Waits for the signal to shut down, then takes the later steps: running attempts may go on
    /// for `grace`, and giving them back may take `farewell`.
    pub(crate) async fn run(self, grace: Duration, farewell: Duration) {
        self.drain.cancelled().await;
        if grace.is_zero() {
            info!("ending: running trials are given back");
        } else {
            info!(grace_seconds = grace.as_secs(), "ending: running trials may finish");
            tokio::time::sleep(grace).await;
        }
        self.release.cancel();
        tokio::time::sleep(farewell).await;
        self.give_up.cancel();
    }
}
