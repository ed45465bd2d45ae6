//! Watching a leaderboard through broken connections: whoever watches sees views, and is told of the gaps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fittingroom_common::id::Name;
use fittingroom_common::rng::Stream;
use fittingroom_common::view::LeaderboardView;
use rand::Rng;
use tokio::sync::mpsc;

use super::client::Client;
use super::error::CliError;

/// What a watcher gets to know.
pub(crate) enum Update {
    /// The leaderboard as it is now.
    View(Box<LeaderboardView>),
    /// The connection is lost; it is tried again after the wait.
    Lost {
        /// What went wrong.
        why: CliError,
        /// How long until the next try.
        wait: Duration,
    },
    /// There is no point in trying again.
    Refused(CliError),
}

/// The longest wait between two tries to connect again.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The longest first wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Watches until the search has ended, the coordinator refuses, or the receiver is dropped.
pub(crate) fn watch(client: Client, name: Name, top: u32) -> mpsc::Receiver<Update> {
    let (updates, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        tokio::select! {
            () = watch_on(client, &name, top, &updates) => {}
            () = updates.closed() => {}
        }
    });
    receiver
}

async fn watch_on(mut client: Client, name: &Name, top: u32, updates: &mpsc::Sender<Update>) {
    let mut waits = Waits::new(seed());
    loop {
        let why = match watch_once(&mut client, name, top, updates, &mut waits).await {
            Ok(()) => return,
            Err(why) => why,
        };
        let wait = waits.next();
        let update = if is_passing(&why) { Update::Lost { why, wait } } else { Update::Refused(why) };
        let is_over = matches!(update, Update::Refused(_));
        if updates.send(update).await.is_err() || is_over {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// Passes on the views of one connection; `Ok` once the search has ended.
async fn watch_once(
    client: &mut Client,
    name: &Name,
    top: u32,
    updates: &mpsc::Sender<Update>,
    waits: &mut Waits,
) -> Result<(), CliError> {
    let mut views = client.watch(name, top).await?;
    while let Some(view) = views.next().await? {
        waits.reset();
        let has_ended = view.search.state.has_ended();
        let is_unheard = updates.send(Update::View(Box::new(view))).await.is_err();
        if has_ended || is_unheard {
            return Ok(());
        }
    }
    Err(CliError::EndedEarly)
}

/// Whether the same call may succeed later.
fn is_passing(error: &CliError) -> bool {
    matches!(
        error,
        CliError::Unreachable { .. }
            | CliError::Broken { .. }
            | CliError::Slow { .. }
            | CliError::EndedEarly
            | CliError::Busy { .. }
    )
}

/// Waits between tries: somewhere between nothing and a bound that doubles, so that many watchers
/// do not come back at the same moment.
struct Waits {
    stream: Stream,
    tries: u32,
}

impl Waits {
    fn new(seed: u64) -> Self {
        Self { stream: Stream::new(seed).named("reconnect"), tries: 0 }
    }

    fn next(&mut self) -> Duration {
        let bound = FIRST_WAIT.saturating_mul(1 << self.tries.min(10)).min(LONGEST_WAIT);
        self.tries = self.tries.saturating_add(1);
        let mut generator = self.stream.clone().numbered(self.tries.into()).generator();
        bound.mul_f64(generator.random::<f64>())
    }

    fn reset(&mut self) {
        self.tries = 0;
    }
}

/// A seed that differs between the processes of one moment and the moments of one process.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64) ^ u64::from(std::process::id()).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew() {
        for seed in 0..200 {
            let mut waits = Waits::new(seed);
            for bound in [1, 2, 4, 8, 15, 15, 15] {
                let wait = waits.next();
                assert!(wait <= Duration::from_secs(bound), "seed {seed}: {wait:?} of {bound} s");
            }
            waits.reset();
            assert!(waits.next() <= FIRST_WAIT, "seed {seed}");
        }
        let longest = (0..200).map(|seed| Waits::new(seed).next()).max();
        assert!(longest > Some(FIRST_WAIT / 2), "waits are spread: {longest:?}");
    }
}
