//! What a search promises, as a specification.

mod attempts;
mod checkpoints;
mod failures;
mod happenings;
mod operator;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::id::{ArtifactHash, AttemptNumber};
use fittingroom_common::space::SearchSpec;
use fittingroom_common::trial::{Failure, FailureReason, Finite, Report};
use fittingroom_common::view::{TrialRow, TrialState};
use fittingroom_common::work::{Assignment, Holder, Outcome, Work};
use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(30);

fn created(extra: &str) -> Created {
    let file = format!(
        "method: grid\nepochs: 2\n{extra}\nparameters:\n  learning_rate: {{values: [0.1, 0.01, 0.001]}}\n"
    );
    let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
    let name = |text: &str| text.parse().expect("usable");
    Created {
        name: name("search"),
        spec: SearchSpec::parse("search.yaml", &file).expect("parses").spec,
        dataset: Manifest { name: name("data"), shape, files: [ArtifactHash::of(b""); 4] },
        defaults: Hyperparameters::defaults(),
    }
}

/// A search with a clock and the events so far, driven as workers would.
struct Bench {
    search: Search,
    events: Vec<Event>,
    now: Timestamp,
    /// What the search gave up, as it did.
    discards: Vec<Discard>,
    /// The checkpoints that a store would have.
    stored: BTreeSet<(TrialId, ArtifactHash)>,
}

impl Bench {
    fn new(extra: &str) -> Self {
        Self::of(created(extra))
    }

    fn of(created: Created) -> Self {
        let now = Timestamp::from_millis(1_000);
        let events = vec![Event { at: now, fact: Fact::SearchCreated(Box::new(created.clone())) }];
        let search = Search::new(SearchId::new(1), created, now, LEASE);
        Self { search, events, now, discards: Vec::new(), stored: BTreeSet::new() }
    }

    fn give(&mut self, command: Command) -> Result<usize, Rejection> {
        let new = self.search.handle(command, self.now)?;
        let count = new.len();
        self.stored.extend(new.iter().filter_map(|event| match &event.fact {
            Fact::CheckpointKept { attempt, checkpoint } => Some((attempt.trial, checkpoint.hash)),
            _ => None,
        }));
        self.events.extend(new);
        let discards = self.search.take_discards();
        for discard in &discards {
            match discard {
                Discard::One { trial, hash } => drop(self.stored.remove(&(*trial, *hash))),
                Discard::All { trial } => self.stored.retain(|(of, _)| of != trial),
            }
        }
        self.discards.extend(discards);
        Ok(count)
    }

    fn wait(&mut self, wait: Duration) {
        self.now = self.now.after(wait);
        self.give(Command::Tick).expect("a tick is never refused");
    }

    fn lease(&mut self, worker: u128) -> Option<Assignment> {
        self.give(Command::Lease { holder: holder(worker) }).expect("a lease is never refused");
        self.search.assignment(WorkerId::new(worker), SlotNumber::new(0))
    }

    fn report(
        &mut self,
        worker: u128,
        attempt: Attempt,
        epoch: u32,
        accuracy: f64,
    ) -> Result<usize, Rejection> {
        self.give(Command::Report { attempt, worker: WorkerId::new(worker), report: report(epoch, accuracy) })
    }

    fn complete(&mut self, worker: u128, attempt: Attempt, outcome: Outcome) -> Result<usize, Rejection> {
        self.give(Command::Complete { attempt, worker: WorkerId::new(worker), outcome })
    }

    /// Leases a trial and trains it to its end.
    fn train(&mut self, worker: u128, accuracy: f64) -> Attempt {
        let attempt = self.lease(worker).expect("work").id.attempt;
        self.report(worker, attempt, 1, accuracy / 2.0).expect("accepted");
        self.report(worker, attempt, 2, accuracy).expect("accepted");
        let model =
            self.search.wants_model(attempt).then(|| ArtifactHash::of(&attempt.trial.get().to_le_bytes()));
        self.complete(worker, attempt, Outcome::Trained { model }).expect("accepted");
        attempt
    }

    fn fail(&mut self, worker: u128, reason: FailureReason) -> Attempt {
        let attempt = self.lease(worker).expect("work").id.attempt;
        self.complete(worker, attempt, Outcome::Failed(Failure::new(reason, ""))).expect("accepted");
        attempt
    }

    fn evaluate(&mut self, worker: u128, accuracy: f64) {
        let assignment = self.lease(worker).expect("the evaluation is left");
        assert!(matches!(assignment.work, Work::Evaluate { .. }), "{assignment:?}");
        let outcome = Outcome::Evaluated(report(1, accuracy).validation);
        self.complete(worker, assignment.id.attempt, outcome).expect("accepted");
    }

    fn rows(&self) -> Vec<TrialRow> {
        self.search.ranked().chain(self.search.unranked()).collect()
    }

    fn state_of(&self, trial: u64) -> TrialState {
        self.search.row(TrialId::new(trial)).expect("drawn").state
    }
}

fn holder(worker: u128) -> Holder {
    let name = format!("worker-{worker}").parse().expect("usable");
    Holder { worker: WorkerId::new(worker), name, slot: SlotNumber::new(0) }
}

fn report(epoch: u32, accuracy: f64) -> Report {
    let score = Score {
        loss: Finite::new(1.0 - accuracy).expect("finite"),
        accuracy: Finite::new(accuracy).expect("finite"),
    };
    Report { epoch, train: score, validation: score, test: None, seconds: 1.0, images_per_second: 1.0 }
}
