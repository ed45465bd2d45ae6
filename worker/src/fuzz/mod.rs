//! What is done with bytes from strangers, as functions of bytes: for fuzzing (`deploy/fuzz`), and for the
//! test that every committed input passes. Compiled for these two alone.
//!
//! Bytes may be refused. Each function panics where a promise is broken.

#[path = "../../../common/src/fuzz/corpus.rs"]
mod corpus;
mod model;

pub use crate::agent::fuzz::events;
pub use crate::train::checkpoint::fuzz::checkpoint;
pub use crate::trainer::fuzz::commands;
pub use model::model;

/// Every target by its name.
pub const TARGETS: &[corpus::Target] =
    &[("checkpoint", checkpoint), ("commands", commands), ("events", events), ("model", model)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_of_the_corpus_passes() {
        corpus::pass(env!("CARGO_MANIFEST_DIR"), TARGETS);
    }
}
