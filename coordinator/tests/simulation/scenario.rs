//! What a seed decides before anything happens: the search, the machines, and which faults there are.

use std::time::Duration;

use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::event::Created;
use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::{ArtifactHash, Name};
use fittingroom_common::length::TrainingLength;
use fittingroom_common::rng::Stream;
use fittingroom_common::space::SearchSpec;
use rand::RngCore;

use crate::trainer::Trainer;

/// How long a lease lasts, in milliseconds.
pub(crate) const LEASE_MS: u64 = 10_000;
pub(crate) const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// A search and its trainers, made once and simulated often.
pub(crate) struct Template {
    pub(crate) created: Created,
    pub(crate) trainer: Trainer,
    /// Whether nothing but an operator can keep it from finding what an undisturbed run finds.
    pub(crate) is_steadfast: bool,
}

/// The searches, each with how many epochs and how much patience its trials have.
pub(crate) fn templates() -> Vec<Template> {
    const RATES: &str = "learning_rate: {values: [0.1, 0.01, 0.001]}";
    const CUBE: &str = "learning_rate: {values: [0.1, 0.01, 0.001]}\n  dropout: {values: [0.0, 0.5]}\n  depth: {values: [1, 2]}";
    const DRAWN: &str = "learning_rate: {distribution: log_uniform_values, min: 0.0001, max: 0.1}";
    let patient = format!("{RATES}\n  early_stopping_patience: {{value: 1}}");
    let stubborn = "max_attempts: 1000";
    let rows: &[(&str, &str, u32, u32, &str)] = &[
        ("grid", stubborn, 1, 0, "optimizer: {value: adam}"),
        ("grid", stubborn, 2, 0, RATES),
        ("grid", stubborn, 3, 0, CUBE),
        ("grid", "max_attempts: 1000\nreplicates: 2", 1, 0, RATES),
        ("grid", "max_attempts: 1000\nmetric: validation_loss", 5, 1, &patient),
        ("grid", "max_attempts: 1000\ntrack_test: true", 2, 0, RATES),
        ("grid", "max_attempts: 1000\ncheckpoint: {every_epochs: 1}", 6, 0, RATES),
        ("grid", "max_attempts: 1000\ncheckpoint: never", 3, 0, RATES),
        ("random", "max_attempts: 1000\nrun_cap: 5", 3, 0, DRAWN),
        ("random", "max_attempts: 1000\nrun_cap: 8\nreplicates: 3", 2, 0, CUBE),
        ("random", "max_attempts: 1000\nrun_cap: 2", 5, 0, DRAWN),
        ("grid", "", 2, 0, RATES),
        ("grid", "max_attempts: 1", 3, 0, RATES),
        ("grid", "max_attempts: 2\nmax_failed_trials: 1", 2, 0, CUBE),
        ("grid", "max_attempts: 1\nmax_failed_trials: 0", 2, 0, RATES),
        ("random", "max_attempts: 2\nrun_cap: 6\nbudget: 40s", 3, 0, DRAWN),
        ("random", "run_cap: 12", 1, 0, DRAWN),
    ];
    let templates = rows.iter().zip(0..).map(|(&(method, extra, epochs, patience, parameters), salt)| {
        let file = format!(
            "method: {method}\nseed: {salt}\nepochs: {epochs}\n{extra}\nparameters:\n  {parameters}\n"
        );
        let spec = SearchSpec::parse("simulated.yaml", &file).expect("parses").spec;
        Template {
            trainer: Trainer {
                salt,
                length: TrainingLength { epochs, patience },
                tracks_test: spec.track_test,
                makes_checkpoints: spec.checkpoint.makes_some(),
            },
            created: created(spec),
            is_steadfast: extra.contains(stubborn),
        }
    });
    templates.collect()
}

fn created(spec: SearchSpec) -> Created {
    let shape = Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 };
    Created {
        name: Name::sanitised("simulated"),
        spec,
        dataset: Manifest { name: Name::sanitised("data"), shape, files: [ArtifactHash::of(b""); 4] },
        defaults: Hyperparameters::defaults(),
    }
}

/// The one source of chance in a simulation.
pub(crate) struct Chance(Box<dyn RngCore + Send>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Box::new(Stream::new(seed).named("simulation").generator()))
    }

    /// A number from `least` up to, but not including, `end`.
    pub(crate) fn within(&mut self, least: u64, end: u64) -> u64 {
        least + self.0.next_u64() % (end - least)
    }

    /// Whether something happens that happens in so many of a thousand cases.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.within(0, 1_000) < per_mille
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0, choices.len() as u64) as usize]
    }
}

/// Something that befalls a cluster at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blow {
    AgentCrash,
    AgentPause,
    AgentDrain,
    CoordinatorCrash,
    PartitionBothWays,
    PartitionOneWay,
    Impostor,
    Confusion,
    OperatorPause,
    OperatorResume,
    OperatorStop,
    OperatorCancel,
    StoreLoses,
    StoreDamages,
    SnapshotDamaged,
}

impl Blow {
    pub(crate) const ALL: [Self; 15] = [
        Self::AgentCrash,
        Self::AgentPause,
        Self::AgentDrain,
        Self::CoordinatorCrash,
        Self::PartitionBothWays,
        Self::PartitionOneWay,
        Self::Impostor,
        Self::Confusion,
        Self::OperatorPause,
        Self::OperatorResume,
        Self::OperatorStop,
        Self::OperatorCancel,
        Self::StoreLoses,
        Self::StoreDamages,
        Self::SnapshotDamaged,
    ];
}

/// Which faults there are in a simulation, and how often. Each simulation has some of them only, so
/// that none hides another (swarm testing: Groce et al., 2012).
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) machines: u64,
    pub(crate) slots: u64,
    /// When every fault ends.
    pub(crate) healed_at: u64,
    /// The longest time between two blows.
    pub(crate) blow_every: u64,
    pub(crate) blows: Vec<Blow>,
    /// In a thousand.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    pub(crate) append_fails: u64,
    pub(crate) crash_at_append: u64,
    pub(crate) stall: u64,
    pub(crate) trainer_crash: u64,
    /// How many epochs leave a checkpoint.
    pub(crate) checkpoints: u64,
    /// How many whole checkpoints a trainer cannot use.
    pub(crate) refused: u64,
    pub(crate) clock_steps: u64,
    /// After how many events there is a snapshot, and of how many trials at a time.
    pub(crate) snapshot_every: u64,
    pub(crate) snapshot_most: usize,
    /// The longest epoch, in milliseconds.
    pub(crate) slowest_epoch: u64,
}

impl Scenario {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let mut sometimes = |most: u64| if chance.happens(500) { chance.within(1, most + 1) } else { 0 };
        let (lost, doubled, late) = (sometimes(300), sometimes(300), sometimes(200));
        let (append_fails, crash_at_append, stall) = (sometimes(150), sometimes(60), sometimes(60));
        let (trainer_crash, clock_steps) = (sometimes(150), sometimes(1_000));
        let (checkpoints, refused) = (sometimes(2_000).min(1_000), sometimes(200));
        // Stopping and cancelling end a search before much can go wrong: most are left to go on.
        let likely = |blow| match blow {
            Blow::OperatorStop | Blow::OperatorCancel => 60,
            _ => 400,
        };
        let blows = Blow::ALL.into_iter().filter(|&blow| chance.happens(likely(blow))).collect();
        Self {
            machines: chance.within(1, 7),
            slots: chance.within(1, 3),
            healed_at: chance.within(5_000, 90_000),
            blow_every: chance.within(500, 12_000),
            blows,
            lost,
            doubled,
            late,
            append_fails,
            crash_at_append,
            stall,
            trainer_crash,
            checkpoints,
            refused,
            clock_steps,
            snapshot_every: chance.one_of(&[1, 5, 20, u64::MAX, u64::MAX]),
            snapshot_most: chance.one_of(&[1, 3, usize::MAX]),
            slowest_epoch: chance.within(100, 5_000),
        }
    }
}
