//! What search files mean, and what is said of those that are wrong.

use std::num::NonZeroU32;
use std::time::Duration;

use fittingroom_common::checkpoint::CheckpointRule;
use fittingroom_common::hyperparameter::{Parameter, Value};
use fittingroom_common::space::{
    Bell, DatasetChoice, Distribution, MAX_FILE_BYTES, Method, Parsed, Scale, SearchSpec, SpaceError,
};
use fittingroom_common::trial::Metric;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Parsed, SpaceError> {
    SearchSpec::parse("file.yaml", text)
}

fn good(text: &str) -> Parsed {
    parse(text).unwrap_or_else(|error| panic!("{}\nin\n{text}", error.located()))
}

fn rule(every_epochs: Option<u32>, every_seconds: Option<u32>) -> CheckpointRule {
    let number = |number: Option<u32>| number.map(|it| NonZeroU32::new(it).expect("not 0"));
    CheckpointRule { every_epochs: number(every_epochs), every_seconds: number(every_seconds) }
}

#[test]
fn checkpoints_can_be_left_out_altogether() {
    let spec = good("method: grid\ncheckpoint: never\nparameters: {dropout: {value: 0.1}}").spec;
    assert_eq!(spec.checkpoint, CheckpointRule::NEVER);
}

fn parameter(name: &str) -> Parameter {
    Parameter::find(name).expect("in the catalogue")
}

fn distribution_of(name: &str, entry: &str) -> Distribution {
    let text = format!("method: random\nrun_cap: 5\nparameters:\n  {name}: {entry}\n");
    good(&text).spec.space.find(parameter(name)).expect("named").distribution.clone()
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

#[test]
fn a_wrong_file_is_told_where_and_why() {
    // What is wrong, the file, line:column, words of the message and its help.
    let rows: &[(&str, &str, &str, &[&str])] = &[
        ("syntax", "method: grid\nparameters: [1, 2\n", "2:13", &["YAML", "bracket"]),
        ("tab", "method: grid\nparameters:\n\tdropout: 1\n", "3:2", &["tabs", "spaces"]),
        ("two documents", "method: grid\n---\nmethod: grid\n", "3:1", &["second document"]),
        ("duplicate key", "seed: 1\nseed: 2\n", "2:1", &["seed", "twice"]),
        ("empty", "", "1:1", &["empty"]),
        ("only comments", "# nothing\n", "1:1", &["empty"]),
        ("no mapping", "- method: grid\n", "1:1", &["a list", "key: value"]),
        ("unknown key", "method: grid\nrun_cpa: 3\n", "2:1", &["run_cpa", "`run_cap`"]),
        (
            "hyperparameter at the top",
            "method: grid\ndropout: 3\n",
            "2:1",
            &["dropout", "under `parameters:`"],
        ),
        (
            "unknown hyperparameter",
            "method: grid\nparameters:\n  lerning_rate: {value: 1}\n",
            "3:3",
            &["\"learning_rate\""],
        ),
        (
            "unknown value",
            "method: grid\nparameters:\n  optimizer:\n    values: [sgd, addam]\n",
            "4:19",
            &["\"adam\""],
        ),
        (
            "unknown key of a parameter",
            "method: grid\nparameters:\n  dropout: {vlues: [0.1]}\n",
            "3:13",
            &["vlues", "`values`"],
        ),
        (
            "value outside",
            "method: grid\nparameters:\n  dropout: {values: [0.1, 1.0]}\n",
            "3:27",
            &["dropout cannot be 1"],
        ),
        (
            "bound outside",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {min: 0.0, max: 1.5}\n",
            "4:28",
            &["dropout cannot be 1.5"],
        ),
        (
            "wrong type of value",
            "method: grid\nparameters:\n  epochs: {value: 1.5}\n",
            "3:19",
            &["whole number"],
        ),
        ("quoted number", "method: grid\nparameters:\n  dropout: {value: \"0.1\"}\n", "3:20", &["quotes"]),
        ("wrong type of a key", "method: grid\nseed: -3\n", "2:7", &["seed", "from 0 up"]),
        ("wrong type of a flag", "method: grid\ntrack_test: maybe\n", "2:13", &["true or false"]),
        ("scalar parameter", "method: grid\nparameters:\n  dropout: 0.1\n", "3:12", &["{value: …}"]),
        (
            "parameters as a list",
            "method: grid\nparameters: [dropout]\n",
            "2:13",
            &["mapping of hyperparameters"],
        ),
        (
            "min over max",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {min: 0.5, max: 0.1}\n",
            "4:18",
            &["0.5", "0.1", "less than max"],
        ),
        (
            "min equal max",
            "method: grid\nparameters:\n  batch_size: {min: 8, max: 8}\n",
            "3:21",
            &["less than max"],
        ),
        ("no max", "method: grid\nparameters:\n  batch_size: {min: 8}\n", "3:3", &["lacks `max`"]),
        (
            "log from 0",
            "method: random\nrun_cap: 1\nparameters:\n  learning_rate: {distribution: log_uniform_values, min: 0, max: 0.1}\n",
            "4:58",
            &["above 0"],
        ),
        (
            "exponents taken for values",
            "method: random\nrun_cap: 1\nparameters:\n  learning_rate: {distribution: log_uniform, min: 0, max: 0.1}\n",
            "4:59",
            &["exponents of e", "log_uniform_values"],
        ),
        ("empty values", "method: grid\nparameters:\n  dropout: {values: []}\n", "3:13", &["no value"]),
        (
            "duplicate values",
            "method: grid\nparameters:\n  dropout: {values: [0.1, 0.2, 0.10]}\n",
            "3:32",
            &["0.1 is listed twice"],
        ),
        (
            "too few probabilities",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {values: [0.1, 0.2], probabilities: [1]}\n",
            "4:33",
            &["1 probabilities for 2 values"],
        ),
        (
            "negative probability",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {values: [0.1, 0.2], probabilities: [-1, 2]}\n",
            "4:33",
            &["-1"],
        ),
        (
            "probabilities over 1",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {values: [0.1, 0.2], probabilities: [0.5, 0.9]}\n",
            "4:33",
            &["add up to 1.4"],
        ),
        (
            "two kinds of values",
            "method: grid\nparameters:\n  dropout: {value: 0.1, values: [0.2]}\n",
            "3:25",
            &["`values` has no meaning for constant"],
        ),
        (
            "too many values",
            &format!(
                "method: grid\nparameters:\n  epochs: {{values: {:?}}}\n",
                (1..=1_001).collect::<Vec<_>>()
            ),
            "3:12",
            &["1001 values", "`q`"],
        ),
        ("no values", "method: grid\nparameters:\n  dropout: {}\n", "3:3", &["does not say its values"]),
        (
            "mu without distribution",
            "method: grid\nparameters:\n  dropout: {mu: 1}\n",
            "3:3",
            &["distribution: normal"],
        ),
        (
            "unknown distribution",
            "method: grid\nparameters:\n  dropout: {distribution: log_uniform_value, min: 1, max: 2}\n",
            "3:27",
            &["`log_uniform_values`"],
        ),
        (
            "beta",
            "method: grid\nparameters:\n  dropout: {distribution: beta, a: 1, b: 2}\n",
            "3:27",
            &["\"beta\"", "q_uniform"],
        ),
        (
            "nested parameters",
            "method: grid\nparameters:\n  optimizer: {parameters: {name: {value: sgd}}}\n",
            "3:15",
            &["inside a parameter", "directly"],
        ),
        (
            "fractions for whole",
            "method: random\nrun_cap: 1\nparameters:\n  batch_size: {min: 1.5, max: 8.5}\n",
            "4:3",
            &["whole numbers", "int_uniform"],
        ),
        (
            "fractional steps for whole",
            "method: grid\nparameters:\n  batch_size: {distribution: q_uniform, min: 1, max: 8, q: 0.5}\n",
            "3:60",
            &["whole numbers"],
        ),
        (
            "q of 0",
            "method: grid\nparameters:\n  dropout: {distribution: q_uniform, min: 0.0, max: 0.5, q: 0}\n",
            "3:61",
            &["above 0"],
        ),
        (
            "q between",
            "method: grid\nparameters:\n  dropout: {distribution: q_uniform, min: 0.1, max: 0.2, q: 0.5}\n",
            "3:61",
            &["multiples"],
        ),
        (
            "numbers for words",
            "method: grid\nparameters:\n  optimizer: {min: 1, max: 2}\n",
            "3:20",
            &["optimizer cannot be"],
        ),
        (
            "sigma of 0",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {distribution: normal, mu: 0.3, sigma: 0}\n",
            "4:51",
            &["sigma"],
        ),
        (
            "mu outside",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {distribution: normal, mu: 3}\n",
            "4:39",
            &["hardly ever"],
        ),
        (
            "size for sizes",
            "method: grid\nparameters:\n  hidden_sizes: {values: [300, 200]}\n",
            "3:27",
            &["list of lists"],
        ),
        ("no parameters", "method: grid\n", "1:1", &["no `parameters`"]),
        ("empty parameters", "method: grid\nepochs: 3\nparameters: {}\n", "1:1", &["no `parameters`"]),
        ("no method", "parameters: {dropout: {value: 0.1}}\n", "1:1", &["method: random"]),
        ("bayes", "method: bayes\n", "1:9", &["bayes", "grid and random"]),
        ("unknown method", "method: gird\n", "1:9", &["`grid`"]),
        (
            "endless grid",
            "method: grid\nparameters:\n  dropout: {min: 0.0, max: 0.5}\n",
            "3:3",
            &["uniform has no end", "`values`", "method: random"],
        ),
        (
            "large grid",
            "method: grid\nreplicates: 1000\nparameters:\n  batch_size: {min: 1, max: 1001}\n",
            "3:1",
            &["1001000 trials", "1000000"],
        ),
        (
            "random without an end",
            "method: random\nparameters: {dropout: {min: 0.0, max: 0.5}}\n",
            "1:9",
            &["run_cap"],
        ),
        (
            "run_cap of 0",
            "method: random\nrun_cap: 0\nparameters: {dropout: {value: 0.1}}\n",
            "2:10",
            &["at least 1"],
        ),
        (
            "no replicates",
            "method: grid\nreplicates: 0\nparameters: {dropout: {value: 0.1}}\n",
            "2:13",
            &["at least 1"],
        ),
        (
            "epochs twice",
            "method: grid\nepochs: 3\nparameters:\n  epochs: {value: 2}\n",
            "4:3",
            &["epochs", "twice"],
        ),
        (
            "epochs of 0",
            "method: grid\nepochs: 0\nparameters: {dropout: {value: 0.1}}\n",
            "2:9",
            &["epochs cannot be 0"],
        ),
        (
            "epochs searched at the top",
            "method: grid\nepochs: {values: [1, 2]}\n",
            "2:9",
            &["under `parameters:`"],
        ),
        ("budget without a unit", "method: grid\nbudget: 90\n", "2:9", &["unit", "90s"]),
        (
            "checkpoint of a number",
            "method: grid\ncheckpoint: 60\n",
            "2:13",
            &["{every_seconds: 60}", "never"],
        ),
        (
            "checkpoint of another word",
            "method: grid\ncheckpoint: always\n",
            "2:13",
            &["\"always\"", "never"],
        ),
        ("checkpoint of nothing", "method: grid\ncheckpoint: {}\n", "2:1", &["when", "{every_seconds: 60}"]),
        (
            "checkpoint of zero",
            "method: grid\ncheckpoint: {every_epochs: 0}\n",
            "2:28",
            &["at least 1", "never"],
        ),
        (
            "checkpoint of half a second",
            "method: grid\ncheckpoint: {every_seconds: 0.5}\n",
            "2:29",
            &["whole"],
        ),
        (
            "unknown key of a checkpoint",
            "method: grid\ncheckpoint: {every_epoch: 1}\n",
            "2:14",
            &["every_epoch\"", "every_epochs"],
        ),
        ("budget of words", "method: grid\nbudget: soon\n", "2:9", &["unit"]),
        ("dataset with spaces", "method: grid\ndataset: my images\n", "2:10", &["my images", "./my-images"]),
        (
            "metric of the test set",
            "method: grid\nmetric: {name: test_accuracy}\n",
            "2:16",
            &["never ranked by the test set", "validation_accuracy"],
        ),
        (
            "alias of a metric",
            "method: grid\nmetric: {name: val_loss, goal: minimize}\n",
            "2:16",
            &["`validation_loss`"],
        ),
        (
            "unknown metric",
            "method: grid\nmetric: {name: speed}\n",
            "2:16",
            &["validation_accuracy and validation_loss"],
        ),
        (
            "contradicting goal",
            "method: grid\nmetric: {goal: minimize, name: validation_accuracy}\n",
            "2:16",
            &["goal: maximize"],
        ),
        (
            "unknown controller",
            "method: grid\nparameters:\n  momentum: {values: [0, 0.9], when: {optimizer: sgd}}\n",
            "3:50",
            &["optimizer", "does not name"],
        ),
        (
            "drawn controller",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {min: 0.0, max: 0.5}\n  momentum: {value: 0.9, when: {dropout: 0.1}}\n",
            "5:42",
            &["dropout", "uniform"],
        ),
        (
            "own controller",
            "method: grid\nparameters:\n  dropout: {values: [0.1, 0.2], when: {dropout: 0.1}}\n",
            "3:33",
            &["depends on itself"],
        ),
        (
            "circle",
            "method: grid\nparameters:\n  model: {values: [fcn, lenet], when: {optimizer: sgd}}\n  optimizer: {values: [sgd, adam], when: {model: fcn}}\n",
            "3:33",
            &["depends on itself"],
        ),
        (
            "an optimizer named for the momentum that it lacks",
            "method: grid\nparameters:\n  optimizer: {values: [sgd, nesterov]}\n  learning_rate: {values: [0.1, 0.2]}\n",
            "3:3",
            &["nesterov needs a momentum above 0", "momentum: {value: 0.9}"],
        ),
        (
            "a point that lacks momentum",
            "points:\n  - {optimizer: momentum, momentum: 0.9}\n  - {optimizer: momentum}\n",
            "3:17",
            &["momentum needs a momentum above 0"],
        ),
        (
            "unknown value of a controller",
            "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n  momentum: {values: [0, 0.9], when: {optimizer: sdgd}}\n",
            "4:50",
            &["\"sgd\""],
        ),
        (
            "no value of a controller",
            "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n  momentum: {values: [0, 0.9], when: {optimizer: []}}\n",
            "4:39",
            &["no value"],
        ),
        (
            "points twice",
            "points:\n  - {optimizer: sgd}\n  - {optimizer: adam}\n  - {optimizer: sgd}\n",
            "4:5",
            &["the same as point 1"],
        ),
        ("no points", "points: []\n", "1:1", &["empty"]),
        ("a point that is none", "points: [sgd]\n", "1:10", &["mapping"]),
        (
            "points and grid",
            "method: grid\nparameters: {dropout: {value: 0.1}}\npoints: [{optimizer: sgd}]\n",
            "3:1",
            &["grid"],
        ),
        (
            "points and a list",
            "parameters:\n  dropout: {values: [0.1, 0.2]}\npoints: [{optimizer: sgd}]\n",
            "2:3",
            &["one value that all points share"],
        ),
        (
            "points and a shared value",
            "parameters:\n  dropout: {value: 0.1}\npoints: [{dropout: 0.2}]\n",
            "3:20",
            &["dropout", "twice"],
        ),
        ("unknown hyperparameter of a point", "points: [{optimiser: sgd}]\n", "1:11", &["\"optimizer\""]),
        (
            "infinite",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {min: -.inf, max: 0.5}\n",
            "4:18",
            &["finite"],
        ),
        ("deep nesting", &format!("method: {}", "[".repeat(5_000)), "1:41", &["YAML"]),
        ("key that is a list", "? [a, b]\n: 1\n", "1:3", &["YAML"]),
    ];
    let mut wrong = Vec::new();
    for (what, text, place, words) in rows {
        let said = match parse(text) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => format!("{} help: {}", error.located(), error.help().unwrap_or("-")),
        };
        let is_there = said.starts_with(&format!("file.yaml:{place}: "));
        if !is_there || !words.iter().all(|word| said.contains(word)) {
            wrong.push(format!("{what}: not at {place} with {words:?}, but {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn aliases_that_multiply_are_stopped() {
    let mut text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for (name, below) in
        ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
    {
        text += &format!("{name}: &{name} [{}]\n", vec![format!("*{below}"); 10].join(", "));
    }
    let error = parse(&text).expect_err("too much");
    assert!(error.message().contains("too large"), "{}", error.located());
}

#[test]
fn files_that_are_no_small_text_are_refused() {
    let error = SearchSpec::parse_bytes("f.yaml", b"method: grid\nname: \xff\n").expect_err("not UTF-8");
    assert_eq!(error.located(), "f.yaml:2:7: this is not UTF-8 text");
    let error = parse(&"#".repeat(MAX_FILE_BYTES + 1)).expect_err("too large");
    assert!(error.message().contains("1048577 bytes"), "{}", error.located());
}

#[test]
fn miette_shows_the_line() {
    let error = parse("method: grid\nparameters:\n  dropout: {values: [0.1, ö]}\n").expect_err("wrong");
    let mut shown = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none()).with_width(100);
    handler.render_report(&mut shown, &error).expect("renders");
    for part in ["dropout cannot be \"ö\"", "file.yaml:3:27", "dropout: {values: [0.1, ö]}"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}

#[test]
fn what_was_hardly_meant_gets_a_note() {
    let rows: &[(&str, &str, &str, &str)] = &[
        (
            "repeated grid points",
            "method: grid\nparameters:\n  optimizer: {values: [sgd, rmsprop, adam]}\n  dropout: {values: [0, 0.1]}\n  momentum: {values: [0, 0.5, 0.9]}\n",
            "5:3",
            "momentum has no effect with optimizer adam: 4 grid points repeat the same training; \
             add `when: {optimizer: [sgd, rmsprop]}`",
        ),
        (
            "without effect in a random search",
            "method: random\nrun_cap: 3\nparameters:\n  model: {values: [fcn, lenet]}\n  hidden_sizes: {values: [[300], [200]]}\n",
            "5:3",
            "hidden_sizes has no effect with model lenet; add `when: {model: fcn}`",
        ),
        (
            "never with an effect",
            "method: grid\nparameters:\n  momentum: {values: [0, 0.9]}\n",
            "3:3",
            "momentum has no effect: optimizer is adam (its default)",
        ),
        (
            "a condition that never holds",
            "method: grid\nparameters:\n  model: {value: lenet}\n  hidden_sizes: {values: [[300], [200]], when: {model: fcn}}\n",
            "4:3",
            "no trial has hidden_sizes",
        ),
        (
            "without effect at a point",
            "points:\n  - {optimizer: sgd, momentum: 0.9}\n  - {optimizer: adam, momentum: 0.9}\n",
            "3:33",
            "momentum has no effect with optimizer adam",
        ),
        (
            "more trials than points",
            "method: random\nrun_cap: 9\nparameters: {optimizer: {values: [sgd, adam]}}\n",
            "2:10",
            "only 2 different trials",
        ),
        (
            "a grid cut short",
            "method: grid\nrun_cap: 1\nparameters: {optimizer: {values: [sgd, adam]}}\n",
            "2:10",
            "only the first 1 of 2 trials",
        ),
        (
            "whole numbers where there are others",
            "method: random\nrun_cap: 1\nparameters:\n  weight_decay: {min: 0, max: 1}\n",
            "4:3",
            "only whole numbers are tried",
        ),
        (
            "a name with spaces",
            "name: my first search\nmethod: grid\nparameters: {optimizer: {values: [sgd, adam]}}\n",
            "1:7",
            "called my-first-search",
        ),
    ];
    for (what, text, place, words) in rows {
        let notes: Vec<String> = good(text).notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 1, "{what}: {notes:#?}");
        assert!(notes[0].starts_with(&format!("{place}: ")), "{what}: not at {place}: {notes:?}");
        assert!(notes[0].contains(words), "{what}: {notes:?}");
    }
}

#[test]
fn a_parameter_with_its_condition_gets_no_note() {
    let text = "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n  \
                momentum: {values: [0, 0.9], when: {optimizer: sgd}}\n";
    let Parsed { spec, notes } = good(text);
    assert_eq!(notes, []);
    assert_eq!(spec.trial_count(), 3);
}

#[test]
fn every_file_in_deploy_searches_is_accepted_without_a_note() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/searches");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("deploy/searches") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("readable");
        let parsed =
            SearchSpec::parse_bytes(&name, &bytes).unwrap_or_else(|error| panic!("{}", error.located()));
        assert_eq!(parsed.notes, [], "{name}");
        names.push(name);
    }
    for name in ["quickstart.yaml", "baseline-fcn.yaml", "baseline-cnn.yaml"] {
        assert!(names.iter().any(|found| found == name), "{name} is not there");
    }
}

/// Places of errors lie in the text, and printing them works.
fn look_at(result: Result<Parsed, SpaceError>, lines: usize) {
    match result {
        Ok(parsed) => assert!(parsed.spec.trial_count() > 0),
        Err(error) => {
            assert!((1..=lines + 1).contains(&error.line()) && error.column() >= 1, "{}", error.located());
            let mut shown = String::new();
            let handler = miette::NarratableReportHandler::new();
            handler.render_report(&mut shown, &error).expect("renders");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let lines = bytes.len();
        look_at(SearchSpec::parse_bytes("random", &bytes), lines);
    }

    #[test]
    fn no_change_of_a_good_file_causes_a_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[-a-z0-9.:{}\\[\\], \n\"'&*!]{0,6}"), 1..5)
    ) {
        let mut text = EVERYTHING.to_owned();
        for (at, length, instead) in cuts {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, &instead);
        }
        let lines = text.lines().count();
        look_at(parse(&text), lines);
    }

    #[test]
    fn numbers_of_any_size_cause_no_panic(
        name in prop::sample::select(vec!["dropout", "batch_size", "learning_rate", "optimizer", "hidden_sizes"]),
        distribution in prop::sample::select(vec![
            "int_uniform", "uniform", "q_uniform", "log_uniform", "q_log_uniform", "log_uniform_values",
            "q_log_uniform_values", "inv_log_uniform", "normal", "q_normal", "log_normal", "q_log_normal",
        ]),
        numbers in prop::array::uniform3(prop_oneof![any::<f64>(), -10.0..1000.0, Just(0.0), Just(1e-300)]),
        method in prop::sample::select(vec!["grid", "random"]),
    ) {
        let [a, b, q] = numbers;
        let bounds = if distribution.contains("normal") { ["mu", "sigma"] } else { ["min", "max"] };
        let step = if distribution.starts_with("q_") { format!(", q: {q:?}") } else { String::new() };
        let (a, b) = if distribution == "int_uniform" { (format!("{}", a as i64), format!("{}", b as i64)) } else { (format!("{a:?}"), format!("{b:?}")) };
        let text = format!(
            "method: {method}\nrun_cap: 3\nparameters:\n  {name}: {{distribution: {distribution}, {}: {a}, {}: {b}{step}}}\n",
            bounds[0], bounds[1]
        );
        look_at(parse(&text), 4);
    }
}
