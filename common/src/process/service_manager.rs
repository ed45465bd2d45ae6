//! What a program tells the service manager that started it: systemd's protocol, `sd_notify(3)`.
//!
//! Without a service manager, nothing is told and nothing fails.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The longest time from one sign of life to the next, should the service manager allow a longer one.
const MOST_BETWEEN_SIGNS: Duration = Duration::from_secs(10);

/// The service manager, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceManager {
    /// After which silence it takes the program for dead; `None` if it does not look.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero()) }
    }

    /// The time from one sign of life to the next: three in what the service manager allows.
    pub fn interval(&self) -> Duration {
        self.watchdog.map_or(MOST_BETWEEN_SIGNS, |watchdog| (watchdog / 3).min(MOST_BETWEEN_SIGNS))
    }

    /// The program does what it was started for.
    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// What the program is doing, in a line for people.
    pub fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    /// A sign of life. It must follow from the program's work: a timer alone proves nothing.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// The program ends, which may take this long.
    pub fn stopping(&self, at_most: Duration) {
        let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        // A service manager that does not hear will act on its own; there is nobody else to tell.
        debug!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_signs_of_life_are_due_before_the_service_manager_gives_up() {
        let interval = |watchdog| ServiceManager { watchdog }.interval();
        assert_eq!(interval(None), MOST_BETWEEN_SIGNS);
        assert_eq!(interval(Some(Duration::from_secs(3))), Duration::from_secs(1));
        assert_eq!(interval(Some(Duration::from_secs(3600))), MOST_BETWEEN_SIGNS);
    }
}
