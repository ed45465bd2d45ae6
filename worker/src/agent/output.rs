//! Reads what a trainer process writes: events on its output, diagnostics beside it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fittingroom_common::trial::Failure;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::mpsc;
use tracing::debug;

use super::trainer::TrainerError;
use crate::trainer::protocol::Event;

/// The longest line that a trainer may write.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// How many of its last lines of diagnostics tell why a trainer ended.
const DIAGNOSTICS_LINES: usize = 40;
/// How much of them fits beside the rest of a failure's detail, in bytes.
const DIAGNOSTICS_BYTES: usize = Failure::MAX_DETAIL - 512;

/// Whether these are the words with which Rust's or C++'s allocator ends a process that it has no memory for.
pub(crate) fn tells_of_refused_memory(text: &str) -> bool {
    ["memory allocation of", "std::bad_alloc"].iter().any(|words| text.contains(words))
}

/// The last lines that a trainer wrote for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnostics(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<String>,
    /// The line that tells of refused memory: a backtrace may follow it that is longer than what is kept.
    refusal: Option<String>,
}

impl Diagnostics {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: String) {
        let mut kept = self.kept();
        if tells_of_refused_memory(&line) {
            kept.refusal = Some(line.chars().take(200).collect());
        }
        if kept.last.len() == DIAGNOSTICS_LINES {
            kept.last.pop_front();
        }
        kept.last.push_back(line);
    }

    /// As many of the last lines as a failure's detail can tell; before them what told of refused
    /// memory, if it is not among them.
    pub(crate) fn last(&self) -> String {
        let kept = self.kept();
        let refusal = kept.refusal.as_deref();
        let mut left = DIAGNOSTICS_BYTES - refusal.map_or(0, |line| line.len() + 1);
        let mut told: Vec<&str> = Vec::new();
        for line in kept.last.iter().rev() {
            let Some(rest) = left.checked_sub(line.len() + 1) else {
                break;
            };
            left = rest;
            told.push(line);
        }
        if !told.iter().any(|line| tells_of_refused_memory(line)) {
            told.extend(refusal);
        }
        told.reverse();
        told.join("\n")
    }

    /// Keeps the last lines of a stream until it ends.
    pub(crate) async fn read<R: AsyncRead + Unpin>(self, output: R) {
        let mut output = BufReader::new(output);
        while let Ok(Some(line)) = next_line(&mut output).await {
            debug!(target: "fittingroom_worker::trainer", "{line}");
            self.push(line);
        }
    }
}

/// Passes on the events of a stream until it ends, or nobody wants them any more.
pub(crate) async fn read_events<R: AsyncRead + Unpin>(
    output: R,
    events: mpsc::Sender<Result<Event, TrainerError>>,
) {
    let mut output = BufReader::new(output);
    while let Ok(Some(line)) = next_line(&mut output).await {
        if line.is_empty() {
            continue;
        }
        let event = serde_json::from_str(&line).map_err(|error| TrainerError::Garbled {
            line: line.chars().take(200).collect(),
            // It may quote the line.
            problem: error.to_string().chars().take(200).collect(),
        });
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// The next line, without its end; `None` at the end of the stream. Longer lines come in pieces.
async fn next_line<R: AsyncRead + Unpin>(reader: &mut BufReader<R>) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_as_far_as_a_failure_can_tell_them() {
        let last = async |text: String| {
            let diagnostics = Diagnostics::default();
            diagnostics.clone().read(text.as_bytes()).await;
            diagnostics.last()
        };
        let numbered = |range: std::ops::Range<usize>| range.map(|n| format!("line {n}")).collect::<Vec<_>>();
        assert_eq!(last(String::new()).await, "");
        assert_eq!(last("a\n\nb".to_owned()).await, "a\n\nb");
        assert_eq!(last(numbered(0..100).join("\n")).await, numbered(60..100).join("\n"));
        let long = "x".repeat(3000);
        assert_eq!(last(format!("{long}\n{long}\nend")).await, format!("{long}\nend"));
        let refused = "memory allocation of 8 bytes failed";
        let backtrace = numbered(0..100).join("\n");
        let told = last(format!("{refused}\n{backtrace}")).await;
        assert_eq!(told, format!("{refused}\n{}", numbered(60..100).join("\n")));
        assert_eq!(last(format!("{refused}\nend")).await, format!("{refused}\nend"));
    }

    #[tokio::test]
    async fn what_is_no_event_is_passed_on_as_an_error_and_reading_goes_on() {
        let text = "{\"event\":\"stopped\",\"id\":\"a\"}\n\nhello\n{\"event\":\"stopped\",\"id\":\"b\"}";
        let (sender, mut events) = mpsc::channel(9);
        read_events(text.as_bytes(), sender).await;
        let mut heard = Vec::new();
        while let Some(event) = events.recv().await {
            heard.push(match event {
                Ok(event) => format!("{event:?}"),
                Err(error) => error.to_string(),
            });
        }
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert!(heard[0].contains("\"a\"") && heard[2].contains("\"b\""), "{heard:?}");
        assert!(heard[1].contains("\"hello\""), "{heard:?}");
    }
}
