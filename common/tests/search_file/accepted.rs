//! What is read from a file that is accepted.

use std::num::NonZeroU32;
use std::time::Duration;

use fittingroom_common::checkpoint::CheckpointRule;
use fittingroom_common::hyperparameter::{Parameter, Value};
use fittingroom_common::space::{Bell, DatasetChoice, Distribution, Method, Parsed, Scale};
use fittingroom_common::trial::Metric;

use crate::{EVERYTHING, good};

fn rule(every_epochs: Option<u32>, every_seconds: Option<u32>) -> CheckpointRule {
    let number = |number: Option<u32>| number.map(|it| NonZeroU32::new(it).expect("not 0"));
    CheckpointRule { every_epochs: number(every_epochs), every_seconds: number(every_seconds) }
}

fn parameter(name: &str) -> Parameter {
    Parameter::find(name).expect("in the catalogue")
}

fn distribution_of(name: &str, entry: &str) -> Distribution {
    let text = format!("method: random\nrun_cap: 5\nparameters:\n  {name}: {entry}\n");
    good(&text).spec.space.find(parameter(name)).expect("named").distribution.clone()
}

#[test]
fn checkpoints_can_be_left_out_altogether() {
    let spec = good("method: grid\ncheckpoint: never\nparameters: {dropout: {value: 0.1}}").spec;
    assert_eq!(spec.checkpoint, CheckpointRule::NEVER);
}

#[test]
fn every_key_is_read() {
    let Parsed { spec, notes } = good(EVERYTHING);
    assert_eq!(spec.name.as_ref().map(|name| name.as_str()), Some("everything"));
    assert_eq!(spec.description, "all keys at once");
    assert_eq!(spec.seed, 7);
    assert_eq!(spec.dataset, DatasetChoice::Folder("./my images/kmnist".into()));
    assert_eq!(spec.method, Method::Random);
    assert_eq!(spec.metric, Metric::ValidationLoss);
    assert_eq!((spec.run_cap, spec.replicates, spec.max_attempts), (Some(40), 2, 5));
    assert_eq!(spec.max_failed_trials, Some(4));
    assert_eq!(spec.budget, Some(Duration::from_secs(5_400)));
    assert!(spec.track_test);
    assert_eq!(spec.checkpoint, rule(Some(5), Some(600)));
    assert_eq!(spec.trial_count(), 40);
    let epochs = spec.space.find(parameter("epochs")).expect("at the top level");
    assert_eq!(epochs.distribution, Distribution::Constant(Value::Integer(3)));
    let order: Vec<&str> = spec.space.dimensions.iter().map(|dimension| dimension.parameter.name()).collect();
    assert_eq!(
        order,
        [
            "model",
            "hidden_sizes",
            "optimizer",
            "momentum",
            "learning_rate",
            "batch_size",
            "nesterov",
            "epochs"
        ]
    );
    let momentum = spec.space.find(parameter("momentum")).expect("named");
    assert_eq!(momentum.when[0].parameter, parameter("optimizer"));
    assert_eq!(momentum.when[0].values, [Value::Choice("sgd"), Value::Choice("rmsprop")]);
    let said: Vec<String> = notes.iter().map(ToString::to_string).collect();
    for (place, words) in [
        ("3:1", "`program` means nothing here"),
        ("4:1", "`project` means nothing here"),
        ("8:49", "`target` of a metric means nothing here"),
        ("16:1", "early termination is not available yet"),
    ] {
        assert!(
            said.iter().any(|note| note.starts_with(place) && note.contains(words)),
            "{place} {words}: {said:#?}"
        );
    }
    assert_eq!(said.len(), 4, "{said:#?}");
}

#[test]
fn what_is_not_said_has_a_default() {
    let spec = good("method: grid\nparameters: {optimizer: {values: [sgd, adam]}}").spec;
    assert_eq!(spec.name, None);
    assert_eq!(spec.seed, 0);
    assert_eq!(spec.dataset.to_string(), "fashion-mnist");
    assert_eq!(spec.metric, Metric::ValidationAccuracy);
    assert_eq!((spec.replicates, spec.max_attempts, spec.max_failed_trials), (1, 3, None));
    assert_eq!((spec.budget, spec.track_test, spec.run_cap), (None, false, None));
    assert_eq!(spec.checkpoint, rule(None, Some(60)));
    assert_eq!(spec.trial_count(), 2);
}

#[test]
fn distributions_are_those_of_wandb() {
    let range = |scale, min, max, q| Distribution::Range { scale, min, max, q };
    let e = std::f64::consts::E;
    for (name, entry, expected) in [
        ("batch_size", "{min: 16, max: 64}", Distribution::IntUniform { min: 16, max: 64 }),
        ("dropout", "{min: 0, max: 0.5}", range(Scale::Uniform, 0.0, 0.5, None)),
        ("dropout", "{distribution: uniform, min: 0, max: 0.5}", range(Scale::Uniform, 0.0, 0.5, None)),
        (
            "dropout",
            "{distribution: q_uniform, min: 0, max: 0.5, q: 0.1}",
            range(Scale::Uniform, 0.0, 0.5, Some(0.1)),
        ),
        (
            "batch_size",
            "{distribution: q_uniform, min: 1, max: 9}",
            range(Scale::Uniform, 1.0, 9.0, Some(1.0)),
        ),
        (
            "learning_rate",
            "{distribution: log_uniform, min: -1, max: 0}",
            range(Scale::LogUniform, 1.0 / e, 1.0, None),
        ),
        (
            "learning_rate",
            "{distribution: inv_log_uniform, min: 0, max: 1}",
            range(Scale::LogUniform, 1.0 / e, 1.0, None),
        ),
        (
            "learning_rate",
            "{distribution: log_uniform_values, min: 1e-3, max: 1}",
            range(Scale::LogUniform, 1e-3, 1.0, None),
        ),
        (
            "learning_rate",
            "{distribution: inv_log_uniform_values, min: 1e-3, max: 1}",
            range(Scale::LogUniform, 1e-3, 1.0, None),
        ),
        (
            "batch_size",
            "{distribution: q_log_uniform, min: 0, max: 1}",
            range(Scale::LogUniform, 1.0, e, Some(1.0)),
        ),
    ] {
        match (distribution_of(name, entry), expected) {
            (
                Distribution::Range { scale: a, min, max, q },
                Distribution::Range { scale, min: low, max: high, q: step },
            ) => {
                assert_eq!((a, q), (scale, step), "{entry}");
                assert!((min - low).abs() < 1e-12 && (max - high).abs() < 1e-12, "{entry}: {min} {max}");
            }
            (found, expected) => assert_eq!(found, expected, "{entry}"),
        }
    }
    let bell = |bell, q| Distribution::Normal { bell, mu: 5.0, sigma: 1.0, q };
    for (entry, expected) in [
        ("{distribution: q_normal, mu: 5}", bell(Bell::Normal, Some(1.0))),
        ("{distribution: q_log_normal, mu: 5, q: 8}", bell(Bell::LogNormal, Some(8.0))),
    ] {
        assert_eq!(distribution_of("batch_size", entry), expected, "{entry}");
    }
    let log_normal = Distribution::Normal { bell: Bell::LogNormal, mu: -7.0, sigma: 1.0, q: None };
    assert_eq!(distribution_of("learning_rate", "{distribution: log_normal, mu: -7}"), log_normal);
    let normal = Distribution::Normal { bell: Bell::Normal, mu: 0.3, sigma: 0.1, q: None };
    assert_eq!(distribution_of("dropout", "{distribution: normal, mu: 0.3, sigma: 0.1}"), normal);
}

#[test]
fn a_short_budget_of_each_unit() {
    for (text, seconds) in [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("1d", 86_400), ("1h30m", 5_400)] {
        let file = format!("method: grid\nbudget: {text}\nparameters: {{dropout: {{value: 0.1}}}}");
        assert_eq!(good(&file).spec.budget, Some(Duration::from_secs(seconds)), "{text}");
    }
}

#[test]
fn points_share_the_constants() {
    let spec = good(
        "\
epochs: 4
parameters: {batch_size: {value: 512}}
points:
  - {optimizer: sgd, learning_rate: 0.02}
  - {optimizer: adam, learning_rate: 8e-5}
",
    )
    .spec;
    assert_eq!(spec.method, Method::Points);
    assert_eq!(spec.trial_count(), 2);
    assert_eq!(spec.shared().to_string(), "batch_size=512 epochs=4");
}
