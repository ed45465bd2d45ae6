//! The task of a search over its whole life: it runs while there is something to do or somebody asks,
//! and rests outside of memory after the search has ended.

use std::time::Duration;

use fittingroom_common::id::SearchId;
use tokio::sync::{mpsc, watch};
use tracing::error;

use super::{Envelope, Pulse, Runner, Surroundings, restore};
use crate::search::{Glance, Search};

/// What a search's task has of it in memory.
pub(super) enum Mind {
    Awake(Box<Search>),
    /// It has ended, and nobody asks for more than this.
    Resting(Box<Glance>),
}

/// The task that owns a search, awake or not.
pub(super) struct Owner {
    pub(super) id: SearchId,
    pub(super) surroundings: Surroundings,
    pub(super) pulse: watch::Sender<Pulse>,
    pub(super) envelopes: mpsc::Receiver<Envelope>,
    pub(super) rest_after: Duration,
}

impl Owner {
    pub(super) async fn own(mut self, mut mind: Mind) {
        loop {
            mind = match mind {
                Mind::Awake(search) => {
                    let looked = self.surroundings.clock.now();
                    let mut runner = Runner {
                        search: *search,
                        surroundings: &self.surroundings,
                        pulse: &self.pulse,
                        looked,
                    };
                    match runner.run(&mut self.envelopes, self.rest_after).await {
                        Some(glance) => Mind::Resting(Box::new(glance)),
                        None => return,
                    }
                }
                Mind::Resting(glance) => match self.rest(&glance).await {
                    Some((search, first)) => {
                        let looked = self.surroundings.clock.now();
                        let mut runner =
                            Runner { search, surroundings: &self.surroundings, pulse: &self.pulse, looked };
                        runner.take(vec![first]).await;
                        Mind::Awake(Box::new(runner.search))
                    }
                    None => return,
                },
            };
        }
    }

    /// Rests until somebody asks for more than a glance; answers the loaded search, and what was asked.
    async fn rest(&mut self, glance: &Glance) -> Option<(Search, Envelope)> {
        loop {
            let envelope = tokio::select! {
                () = self.surroundings.shutdown.cancelled() => return None,
                envelope = self.envelopes.recv() => envelope?,
            };
            if let Envelope::Glance(answer) = envelope {
                // Whoever asked may have gone.
                let _ = answer.send(glance.clone());
                continue;
            }
            let Surroundings { log, lease, .. } = &self.surroundings;
            match restore::load(log.as_ref(), self.id, *lease).await {
                Ok(Some(loaded)) => return Some((loaded.search, envelope)),
                // Whoever asked is told that there is no answer.
                Ok(None) => error!("the log has no such search"),
                Err(error) => error!(%error, "a resting search cannot be loaded"),
            }
        }
    }
}
