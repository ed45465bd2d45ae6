//! What is done with bytes from strangers, as functions of bytes: for fuzzing (`deploy/fuzz`), and for the
//! test that every committed input passes. Compiled for these two alone.
//!
//! Bytes may be refused. Each function panics where a promise is broken: bytes that are read as something
//! must be the same after a round trip, words about them stay short, and memory is bounded by what came.

mod corpus;
mod dataset;
mod message;
mod record;
mod search_file;

pub use dataset::{gzip, idx};
pub use message::message;
pub use record::record;
pub use search_file::search_file;

/// The longest text that is said about bytes, in bytes.
const MOST_WORDS: usize = 4_096;

/// Every target by its name.
pub const TARGETS: &[corpus::Target] =
    &[("gzip", gzip), ("idx", idx), ("message", message), ("record", record), ("search_file", search_file)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_of_the_corpus_passes() {
        corpus::pass(env!("CARGO_MANIFEST_DIR"), TARGETS);
    }
}
