//! How long the agent waits for what.

use std::time::Duration;

use super::backoff::Backoff;

/// The agent's waits. The defaults are for use; tests shorten them.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The ceiling of the first wait before a call is tried again.
    pub retry_first: Duration,
    /// The ceiling that later waits grow to.
    pub retry_last: Duration,
    /// How long the coordinator may wait for work before it answers a lease.
    pub lease_wait: Duration,
    /// How long a trainer may take until it is ready; a GPU's driver can take many seconds.
    pub trainer_start: Duration,
    /// How long a trainer may say nothing while it has work.
    pub trainer_silence: Duration,
    /// How long a trainer may take to stop before it is killed.
    pub trainer_stop: Duration,
    /// How long running trials may go on after the signal to end.
    pub drain: Duration,
    /// How long giving back what runs may take after that.
    pub farewell: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry_first: Duration::from_millis(200),
            retry_last: Duration::from_secs(5),
            lease_wait: Duration::from_secs(20),
            trainer_start: Duration::from_secs(120),
            trainer_silence: Duration::from_secs(600),
            trainer_stop: Duration::from_secs(5),
            drain: Duration::ZERO,
            farewell: Duration::from_secs(8),
        }
    }
}

impl Timing {
    /// The longest time from the signal to end to the agent's end, whatever hangs.
    pub fn longest_ending(&self) -> Duration {
        self.drain + self.farewell + 2 * self.trainer_stop
    }

    /// The waits between tries of something that fails.
    pub(crate) const fn backoff(&self) -> Backoff {
        Backoff::new(self.retry_first, self.retry_last)
    }
}
