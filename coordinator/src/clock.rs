//! Where the time comes from: handed to whoever needs it, so that tests can hand another.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fittingroom_common::time::Timestamp;

/// Says what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's time when the program started, counted on from there by the machine's steady
/// clock: a clock that is set forth or back meanwhile ends no lease.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Timestamp,
    since: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Timestamp::from_millis(0).after(since_epoch), since: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.since.elapsed())
    }
}
