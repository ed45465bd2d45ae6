//! How long to wait before trying again.

use std::time::Duration;

/// Doubling waits with full jitter, after Marc Brooker, "Exponential Backoff And Jitter" (AWS
/// Architecture Blog, 2015): each wait is drawn evenly from zero to a ceiling that doubles, so
/// that workers which lost the same coordinator do not come back at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Waits of at most `first` to begin with, and never more than `last`.
    pub(crate) const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, ceiling: first }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        // Jitter shapes no result, so it may come from the thread's generator.
        let wait = self.ceiling.mul_f64(rand::random::<f64>());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.last);
        wait
    }

    /// Begins anew, after a success.
    pub(crate) const fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_last_and_begin_anew_after_a_success() {
        let (first, last) = (Duration::from_millis(200), Duration::from_secs(10));
        let mut backoff = Backoff::new(first, last);
        let ceilings: Vec<_> = (0..8)
            .map(|_| {
                let ceiling = backoff.ceiling;
                assert!(backoff.next() <= ceiling);
                ceiling.as_millis()
            })
            .collect();
        assert_eq!(ceilings, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
