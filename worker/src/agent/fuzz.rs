//! The lines of a trainer, as its agent reads them; see [`crate::fuzz`].

use fittingroom_common::trial::Failure;
use tokio::sync::mpsc;

use super::output::read_events;
use super::trainer::{TrainerError, run_of};
use crate::trainer::protocol::{EpochMetrics, Event};

/// The longest text that is said about a line, in bytes.
const MOST_WORDS: usize = 4_096;

/// Whatever a trainer writes is a line that is an event, or an error that fits into a failure. An event
/// is the same when it is written and read again.
pub fn events(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (sender, mut events) = mpsc::channel::<Result<Event, TrainerError>>(64);
    let hear = async move {
        while let Some(event) = events.recv().await {
            match event {
                Ok(event) => check(&event),
                Err(error) => {
                    assert!(error.to_string().len() < MOST_WORDS, "{error}");
                    assert!(Failure::from(&error).detail.len() <= Failure::MAX_DETAIL);
                }
            }
        }
    };
    runtime.block_on(async { tokio::join!(read_events(bytes, sender), hear) });
}

fn check(event: &Event) {
    let line = serde_json::to_string(event).expect("an event can be written");
    assert!(!line.contains('\n'), "{line}");
    assert_eq!(serde_json::from_str::<Event>(&line).ok().as_ref(), Some(event));
    let _ = run_of(event);
    if let Event::Epoch { metrics, .. } = event
        && let Some(report) = metrics.report()
    {
        let (test_loss, test_accuracy) = (metrics.test_loss, metrics.test_accuracy);
        let is_tested = test_loss.is_some() && test_accuracy.is_some();
        let told = EpochMetrics {
            test_loss: test_loss.filter(|_| is_tested),
            test_accuracy: test_accuracy.filter(|_| is_tested),
            ..*metrics
        };
        assert_eq!(EpochMetrics::from(&report), told);
    }
}
