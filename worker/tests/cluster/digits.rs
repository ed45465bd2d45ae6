//! Searches of seconds on a small dataset, for tests that disturb them, and what they find when
//! nothing does.

use std::sync::OnceLock;

use serde_json::Value as Json;

use crate::harness::{Cluster, results};
use crate::input::write_small_dataset;

/// Trials of about a second, so that one is always in the middle of its training. Trials may be
/// tried often: a test that kills at random kills one trial more than three times now and then.
const SEARCH: &str = "
method: grid
dataset: ./my-digits
epochs: 60
max_attempts: 1000
parameters:
  hidden_sizes: {values: [[192], [128, 32]]}
  learning_rate: {values: [0.02, 0.01, 0.003]}
  batch_size: {value: 2}
  optimizer: {value: sgd}
";

/// How many trials [`launch`] launches.
pub(crate) const TRIALS: usize = 6;
/// How many epochs each has.
pub(crate) const EPOCHS: u64 = 60;

/// A coordinator whose leases are short.
pub(crate) fn start() -> Cluster {
    Cluster::start(&["--lease-seconds", "2"])
}

/// Launches the search.
pub(crate) fn launch(cluster: &Cluster, name: &str) {
    launch_with(cluster, name, "");
}

/// Launches the search with other lines for keys that change nothing of what it finds.
pub(crate) fn launch_with(cluster: &Cluster, name: &str, lines: &str) {
    let folder = cluster.folder.path().join("my-digits");
    if !folder.exists() {
        write_small_dataset(&folder, 12, 9, 4);
    }
    let replaced = |line: &&str| lines.lines().any(|other| line.split(':').next() == other.split(':').next());
    let kept: Vec<&str> = SEARCH.lines().filter(|line| line.is_empty() || !replaced(line)).collect();
    cluster.launch(name, &format!("{}\n{lines}\n", kept.join("\n")));
}

/// What the search finds when nothing disturbs it, found out once for all tests.
pub(crate) fn undisturbed() -> &'static [Json] {
    static FOUND: OnceLock<Vec<Json>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut cluster = start();
        let worker = cluster.worker("undisturbed");
        launch(&cluster, "undisturbed");
        let found = results(&cluster.wait_until_complete("undisturbed"));
        drop(worker);
        let checked = cluster.check();
        assert_eq!(checked["searches"][0]["repeated_epochs"], 0, "{checked:#}");
        found
    })
}
