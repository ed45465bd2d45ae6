//! What is done with bytes from strangers, as functions of bytes: for fuzzing (`deploy/fuzz`), and for the
//! test that every committed input passes. Compiled for these two alone.
//!
//! Bytes may be refused. Each function panics where a promise is broken.

mod commands;
#[path = "../../../common/src/fuzz/corpus.rs"]
mod corpus;
mod header;
mod kept;
mod log;
mod trials;

use std::time::Duration;

use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::event::Created;
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{ArtifactHash, Name, SearchId};
use fittingroom_common::space::SearchSpec;

pub use commands::commands;
pub use header::header;
pub use kept::snapshot;
pub use log::log;
pub use trials::trials;

use crate::audit::Audit;
use crate::search::Search;

const LEASE: Duration = Duration::from_secs(10);
const SEARCH: SearchId = SearchId::new(1);

/// Every target by its name.
pub const TARGETS: &[corpus::Target] =
    &[("commands", commands), ("header", header), ("log", log), ("snapshot", snapshot), ("trials", trials)];

/// What a search file launches.
fn created(spec: SearchSpec) -> Created {
    let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
    Created {
        name: Name::sanitised("search"),
        spec,
        dataset: Manifest { name: Name::sanitised("data"), shape, files: [ArtifactHash::of(b""); 4] },
        defaults: Hyperparameters::defaults(),
    }
}

/// The state and the second account of the same events say the same.
fn must_agree(search: &Search, audit: &Audit) {
    let summary = search.summary();
    let said = (summary.counts, search.leases(), Some(summary.state));
    assert_eq!(said, (audit.counts(), audit.leases(), audit.state()));
    assert_eq!(summary.best.map(|row| row.trial), audit.best());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_of_the_corpus_passes() {
        corpus::pass(env!("CARGO_MANIFEST_DIR"), TARGETS);
    }
}
