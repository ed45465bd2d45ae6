//! What search files mean, and what is said of those that are wrong.

mod accepted;
mod notes;
mod random;
mod refused;

use fittingroom_common::space::{Parsed, SearchSpec, SpaceError};

fn parse(text: &str) -> Result<Parsed, SpaceError> {
    SearchSpec::parse("file.yaml", text)
}

fn good(text: &str) -> Parsed {
    parse(text).unwrap_or_else(|error| panic!("{}\nin\n{text}", error.located()))
}

/// A file with everything, ours and W&B's.
const EVERYTHING: &str = "\
name: everything
description: all keys at once
program: train.py
project: clothes
seed: 7
dataset: ./my images/kmnist
method: random
metric: {name: validation_loss, goal: minimize, target: 0.1}
run_cap: 40
replicates: 2
max_attempts: 5
max_failed_trials: 4
budget: 1h30m
track_test: true
epochs: 3
early_terminate: {type: hyperband, min_iter: 3}
checkpoint: {every_epochs: 5, every_seconds: 600}
parameters:
  model: {values: [fcn, lenet]}
  hidden_sizes: {values: [[300, 200], [256]], when: {model: fcn}}
  optimizer: {values: [sgd, adam], probabilities: [0.25, 0.75]}
  momentum: {min: 0.5, max: 0.95, when: {optimizer: [sgd, rmsprop]}}
  learning_rate:
    distribution: log_uniform_values
    min: 1e-4
    max: 0.1
  batch_size: {distribution: q_log_uniform_values, min: 32, max: 512, q: 32}
  nesterov: {value: false, when: {optimizer: sgd}}
";
