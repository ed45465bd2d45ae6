//! A good log, and each way in which it can be broken.

mod findings;
mod good;

use std::time::Duration;

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::event::Fact;
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{ArtifactHash, Name, SearchId};
use fittingroom_common::space::SearchSpec;
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason, Finite, Score, Seeds};
use fittingroom_common::work::Holder;

use super::*;
use crate::search::Search;

const GRID: &str = "
method: grid
seed: 3
epochs: 2
max_attempts: 2
parameters:
  learning_rate: {values: [0.1, 0.01, 0.001]}
";

fn created() -> Created {
    let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
    Created {
        name: Name::sanitised("search"),
        spec: SearchSpec::parse("search.yaml", GRID).expect("parses").spec,
        dataset: Manifest { name: Name::sanitised("data"), shape, files: [ArtifactHash::of(b""); 4] },
        defaults: Hyperparameters::defaults(),
    }
}

fn planned(trial: u64) -> Fact {
    let (created, trial) = (created(), TrialId::new(trial));
    let hyperparameters = Plan::new(&created.spec).hyperparameters(trial).expect("the grid has it");
    let seeds = Seeds::derive(created.spec.seed, 0, trial);
    Fact::TrialPlanned { trial, replicate: 0, hyperparameters, seeds }
}

fn attempt(trial: u64, number: u32) -> Attempt {
    Attempt { trial: TrialId::new(trial), number: AttemptNumber::new(number) }
}

fn holder(worker: u128) -> Holder {
    Holder {
        worker: WorkerId::new(worker),
        name: Name::sanitised(&format!("worker-{worker}")),
        slot: SlotNumber::new(0),
    }
}

fn started(trial: u64, number: u32, worker: u128) -> Fact {
    Fact::AttemptStarted { attempt: attempt(trial, number), holder: holder(worker) }
}

fn score(accuracy: f64) -> Score {
    let finite = |number| Finite::new(number).expect("finite");
    Score { loss: finite(1.0 - accuracy), accuracy: finite(accuracy) }
}

fn reported(trial: u64, number: u32, epoch: u32, accuracy: f64) -> Fact {
    let score = score(accuracy);
    let report =
        Report { epoch, train: score, validation: score, test: None, seconds: 1.0, images_per_second: 1.0 };
    Fact::EpochReported { attempt: attempt(trial, number), report }
}

fn completed(trial: u64, number: u32, model: Option<&[u8]>) -> Fact {
    Fact::TrialCompleted { attempt: attempt(trial, number), model: model.map(ArtifactHash::of) }
}

fn failed(trial: u64, number: u32, reason: FailureReason) -> Fact {
    Fact::AttemptFailed { attempt: attempt(trial, number), failure: Failure::new(reason, "") }
}

fn given_up(trial: u64) -> Fact {
    let failure = Failure::new(FailureReason::Diverged, "");
    Fact::TrialFailed { trial: TrialId::new(trial), failure }
}

fn cancelled(trial: u64) -> Fact {
    Fact::TrialCancelled { trial: TrialId::new(trial) }
}

fn kept(trial: u64, number: u32, epoch: u32) -> Fact {
    let place = CheckpointPlace { epoch, step: 0 };
    let checkpoint = Checkpoint { place, hash: ArtifactHash::of(b"checkpoint") };
    Fact::CheckpointKept { attempt: attempt(trial, number), checkpoint }
}

fn lost(trial: u64, number: u32, content: &[u8]) -> Fact {
    let hash = ArtifactHash::of(content);
    Fact::CheckpointLost { attempt: attempt(trial, number), hash, problem: String::new() }
}

fn evaluation(trial: u64, number: u32) -> Fact {
    Fact::EvaluationStarted { attempt: attempt(trial, number), holder: holder(1) }
}

fn evaluated(trial: u64) -> Fact {
    Fact::BestEvaluated { trial: TrialId::new(trial), test: score(0.5) }
}

fn stopping() -> Fact {
    Fact::SearchStopping { reason: String::new() }
}

/// Three trials: one is complete and the best, one is complete at its second attempt, one diverges.
fn good() -> Vec<Fact> {
    vec![
        Fact::SearchCreated(Box::new(created())),
        planned(0),
        started(0, 1, 1),
        planned(1),
        started(1, 1, 2),
        // The sixth event.
        reported(1, 1, 1, 0.2),
        failed(1, 1, FailureReason::TrainerCrashed),
        started(1, 2, 2),
        reported(0, 1, 1, 0.4),
        // The tenth.
        reported(0, 1, 2, 0.5),
        completed(0, 1, Some(b"model")),
        reported(1, 2, 1, 0.3),
        reported(1, 2, 2, 0.4),
        completed(1, 2, None),
        // The fifteenth.
        planned(2),
        started(2, 1, 1),
        failed(2, 1, FailureReason::Diverged),
        given_up(2),
        evaluation(0, 2),
        // The twentieth.
        evaluated(0),
        Fact::SearchCompleted,
    ]
}

fn audit(facts: &[Fact]) -> Audit {
    let at = Timestamp::from_millis(0);
    let events: Vec<Event> = facts.iter().map(|fact| Event { at, fact: fact.clone() }).collect();
    Audit::of(&events)
}

/// The names of what is found.
fn names(audit: &Audit) -> Vec<String> {
    let name = |finding: &Finding| {
        let shown = format!("{:?}", finding.violation);
        shown.split([' ', '{']).next().expect("the variant's name").to_owned()
    };
    audit.findings().iter().map(name).collect()
}
