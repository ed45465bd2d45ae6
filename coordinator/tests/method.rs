//! What the trials of a search are.

use std::collections::HashSet;

use fittingroom_common::hyperparameter::{Hyperparameters, Parameter, Value};
use fittingroom_common::id::TrialId;
use fittingroom_common::space::{
    Condition, Dimension, Distribution, Method, SearchFields, SearchSpec, Space,
};
use fittingroom_coordinator::method::Plan;
use proptest::prelude::*;

fn plan(text: &str) -> Plan {
    let parsed = SearchSpec::parse("file.yaml", text);
    Plan::new(&parsed.unwrap_or_else(|error| panic!("{}\nin\n{text}", error.located())).spec)
}

fn trials(text: &str) -> Vec<String> {
    plan(text).trials().map(|(_, hyperparameters)| hyperparameters.to_string()).collect()
}

fn parameter(name: &str) -> Parameter {
    Parameter::find(name).expect("in the catalogue")
}

/// Draws of one hyperparameter, as numbers.
fn draws(name: &str, entry: &str, count: u64) -> Vec<f64> {
    let plan = plan(&format!("method: random\nseed: 3\nrun_cap: {count}\nparameters: {{{name}: {entry}}}"));
    let number = |hyperparameters: Hyperparameters| match hyperparameters.get(parameter(name)) {
        Some(Value::Number(number)) => *number,
        Some(Value::Integer(number)) => *number as f64,
        other => panic!("{other:?}"),
    };
    plan.trials().map(|(_, hyperparameters)| number(hyperparameters)).collect()
}

#[test]
fn a_grid_is_in_the_files_order_with_the_last_parameter_fastest() {
    let text = "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n  epochs: {min: 1, max: 2}\n  \
                dropout: {distribution: q_uniform, min: 0, max: 0.2, q: 0.1}\n";
    assert_eq!(
        trials(text),
        [
            "optimizer=sgd dropout=0 epochs=1",
            "optimizer=sgd dropout=0.1 epochs=1",
            "optimizer=sgd dropout=0.2 epochs=1",
            "optimizer=sgd dropout=0 epochs=2",
            "optimizer=sgd dropout=0.1 epochs=2",
            "optimizer=sgd dropout=0.2 epochs=2",
            "optimizer=adam dropout=0 epochs=1",
            "optimizer=adam dropout=0.1 epochs=1",
            "optimizer=adam dropout=0.2 epochs=1",
            "optimizer=adam dropout=0 epochs=2",
            "optimizer=adam dropout=0.1 epochs=2",
            "optimizer=adam dropout=0.2 epochs=2",
        ]
    );
}

#[test]
fn a_conditional_parameter_exists_only_where_its_condition_holds() {
    let text = "method: grid\nparameters:\n  momentum: {values: [0, 0.9], when: {optimizer: [sgd, rmsprop]}}\n  \
                optimizer: {values: [sgd, adam, rmsprop]}\n  nesterov: {values: [true, false], when: {optimizer: sgd}}\n";
    assert_eq!(
        trials(text),
        [
            "optimizer=sgd momentum=0 nesterov=true",
            "optimizer=sgd momentum=0 nesterov=false",
            "optimizer=sgd momentum=0.9 nesterov=true",
            "optimizer=sgd momentum=0.9 nesterov=false",
            "optimizer=adam",
            "optimizer=rmsprop momentum=0",
            "optimizer=rmsprop momentum=0.9",
        ]
    );
}

#[test]
fn what_depends_on_a_missing_parameter_is_missing_too() {
    let text = "method: grid\nparameters:\n  model: {values: [fcn, lenet]}\n  \
                normalization: {values: [none, batch], when: {model: fcn}}\n  \
                dropout: {values: [0.1, 0.2], when: {normalization: none}}\n";
    assert_eq!(
        trials(text),
        [
            "model=fcn normalization=none dropout=0.1",
            "model=fcn normalization=none dropout=0.2",
            "model=fcn normalization=batch",
            "model=lenet",
        ]
    );
}

#[test]
fn replicates_of_a_point_follow_each_other() {
    let plan = plan("method: grid\nreplicates: 2\nparameters: {optimizer: {values: [sgd, adam]}}");
    let all: Vec<(u64, u64, u32)> = (0..4)
        .map(|trial| {
            let replicate = plan.replicate(TrialId::new(trial)).expect("exists");
            (trial, replicate.point, replicate.number)
        })
        .collect();
    assert_eq!(all, [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]);
    assert_eq!(plan.replicate(TrialId::new(4)), None);
    assert_eq!(plan.hyperparameters(TrialId::new(u64::MAX)), None);
}

#[test]
fn listed_points_get_the_shared_constants() {
    let text = "epochs: 4\nrun_cap: 2\npoints: [{optimizer: sgd}, {optimizer: adam}, {model: lenet}]";
    assert_eq!(trials(text), ["optimizer=sgd epochs=4", "optimizer=adam epochs=4"]);
}

const CONTINUOUS: &str = "\
method: random
run_cap: 50
parameters:
  model: {values: [fcn, lenet]}
  hidden_sizes: {values: [[300], [200]], when: {model: fcn}}
  learning_rate: {distribution: log_uniform_values, min: 1e-4, max: 0.1}
";

#[test]
fn a_random_search_is_decided_by_its_seed_alone() {
    assert_eq!(trials(CONTINUOUS), trials(CONTINUOUS));
    assert_ne!(trials(CONTINUOUS), trials(&format!("seed: 1\n{CONTINUOUS}")));
    let more = CONTINUOUS.replace("run_cap: 50", "run_cap: 60");
    assert_eq!(trials(CONTINUOUS), trials(&more)[..50], "more trials do not change the first");
    let another = format!("{CONTINUOUS}  dropout: {{min: 0.0, max: 0.5}}\n");
    let rate =
        |line: &String| line.split(' ').find(|word| word.starts_with("learning_rate")).map(str::to_owned);
    let rates = |lines: Vec<String>| lines.iter().map(rate).collect::<Vec<_>>();
    assert_eq!(
        rates(trials(CONTINUOUS)),
        rates(trials(&another)),
        "another parameter does not change a draw"
    );
    // Frozen: a change here would change every search that is repeated from its file.
    assert_eq!(trials(CONTINUOUS)[0], FIRST);
}

const FIRST: &str = "model=lenet learning_rate=0.00176304";

#[test]
fn a_random_search_honours_conditions() {
    let drawn = trials(CONTINUOUS);
    assert!(
        drawn.iter().all(|line| line.contains("model=fcn") == line.contains("hidden_sizes")),
        "{drawn:#?}"
    );
    assert!((15..36).contains(&drawn.iter().filter(|line| line.contains("lenet")).count()));
}

#[test]
fn a_finite_space_is_drawn_from_without_repetition() {
    let space = "parameters:\n  optimizer: {values: [sgd, adam, adamw]}\n  epochs: {min: 1, max: 7}\n  \
                 momentum: {values: [0, 0.5], when: {optimizer: sgd}}\n";
    let grid: HashSet<String> = trials(&format!("method: grid\n{space}")).into_iter().collect();
    let all = trials(&format!("method: random\nrun_cap: 1000\n{space}"));
    assert_eq!(all.len(), 28);
    assert_eq!(all.iter().cloned().collect::<HashSet<_>>(), grid);
    assert_ne!(all, trials(&format!("method: random\nseed: 1\nrun_cap: 1000\n{space}")));
    assert_eq!(trials(&format!("method: random\nrun_cap: 5\n{space}")), all[..5]);
}

#[test]
fn draws_have_the_bounds_and_the_middle_of_their_distribution() {
    // The hyperparameter, its entry, the bounds of its draws, and the share of draws below a number.
    for (name, entry, (low, high), below, share) in [
        ("dropout", "{min: 0.0, max: 0.5}", (0.0, 0.5), 0.1, 0.2),
        ("learning_rate", "{distribution: log_uniform_values, min: 1e-4, max: 1}", (1e-4, 1.0), 1e-3, 0.25),
        (
            "learning_rate",
            "{distribution: inv_log_uniform_values, min: 1e-4, max: 1}",
            (1e-4, 1.0),
            1e-3,
            0.25,
        ),
        ("learning_rate", "{distribution: log_uniform, min: -8, max: 0}", (0.000335462, 1.0), 0.0183156, 0.5),
        (
            "learning_rate",
            "{distribution: inv_log_uniform, min: 0, max: 8}",
            (0.000335462, 1.0),
            0.0183156,
            0.5,
        ),
        (
            "batch_size",
            "{distribution: q_log_uniform_values, min: 32, max: 512, q: 32}",
            (32.0, 512.0),
            129.0,
            0.537,
        ),
        ("dropout", "{distribution: normal, mu: 0.5, sigma: 0.1}", (0.0, 1.0), 0.4, 0.1587),
        ("dropout", "{distribution: normal, mu: 0, sigma: 0.1}", (0.0, 1.0), 0.067449, 0.5),
        ("learning_rate", "{distribution: log_normal, mu: -7, sigma: 1}", (0.0, 10.0), 0.000911882, 0.5),
        ("batch_size", "{distribution: q_normal, mu: 128, sigma: 32, q: 16}", (16.0, 300.0), 120.0, 0.401),
        ("batch_size", "{distribution: q_log_normal, mu: 5, sigma: 0.5, q: 8}", (8.0, 4_000.0), 148.5, 0.5),
        ("epochs", "{values: [1, 2, 3], probabilities: [0.5, 0.2, 0.3]}", (1.0, 3.0), 2.5, 0.7),
    ] {
        let drawn = draws(name, entry, 4_000);
        assert!(drawn.iter().all(|number| (low..=high).contains(number)), "{entry}: outside {low} to {high}");
        let found = drawn.iter().filter(|number| **number < below).count() as f64 / 4_000.0;
        // The standard deviation of a share of 4000 is at most 0.008.
        assert!((found - share).abs() < 0.03, "{entry}: {found} of the draws are below {below}, not {share}");
    }
}

#[test]
fn multiples_are_multiples() {
    for number in draws("batch_size", "{distribution: q_log_uniform_values, min: 30, max: 200, q: 16}", 200) {
        assert!(number % 16.0 == 0.0 && (30.0..=200.0).contains(&number), "{number}");
    }
    let mut tenths = draws("dropout", "{distribution: q_uniform, min: 0, max: 0.9, q: 0.1}", 50);
    tenths.sort_by(f64::total_cmp);
    assert_eq!(tenths, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]);
}

#[test]
fn every_file_in_deploy_searches_has_all_its_trials() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/searches")).expect("there")
    {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let spec = SearchSpec::parse("file", &text).expect("good").spec;
        let all: HashSet<String> = Plan::new(&spec).trials().map(|(_, it)| it.to_string()).collect();
        assert_eq!(all.len() as u64, spec.trial_count(), "{}", path.display());
    }
}

#[test]
fn methods_name_nothing_but_their_input() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/method");
    for entry in std::fs::read_dir(folder).expect("there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for word in [
                "tokio",
                "tonic",
                "rusqlite",
                "std::time",
                "Instant",
                "thread_rng",
                "rand::rng",
                "rand::random",
            ] {
                assert!(!line.contains(word), "{}: {line}", path.display());
            }
        }
    }
}

/// Any space of some hyperparameters with some values each, under any conditions that make no circle.
fn any_space() -> impl Strategy<Value = Space> {
    let names = prop::sample::subsequence(
        vec!["model", "dropout", "optimizer", "momentum", "epochs", "batch_size"],
        1..=6,
    );
    let seeds = prop::collection::vec((1usize..4, any::<prop::sample::Index>(), any::<u8>()), 6);
    (names.prop_shuffle(), seeds).prop_map(|(names, seeds)| {
        let mut dimensions: Vec<Dimension> = Vec::new();
        for (name, (size, controller, bits)) in names.into_iter().zip(seeds) {
            let parameter = parameter(name);
            let values: Vec<Value> = match name {
                "model" => vec![Value::Choice("fcn"), Value::Choice("lenet")],
                "optimizer" => ["sgd", "rmsprop", "adam"].map(Value::Choice).to_vec(),
                "epochs" | "batch_size" => (1..4).map(Value::Integer).collect(),
                _ => [0.0, 0.25, 0.5].map(Value::Number).to_vec(),
            };
            let values: Vec<Value> = values.into_iter().take(size).collect();
            let mut when = Vec::new();
            if bits % 2 == 0 && !dimensions.is_empty() {
                let controller = &dimensions[controller.index(dimensions.len())];
                let Distribution::Categorical { values, .. } = &controller.distribution else {
                    continue;
                };
                let chosen = values.iter().enumerate().filter(|(at, _)| *at == 0 || bits >> at & 1 == 1);
                let values = chosen.map(|(_, value)| value.clone()).collect();
                when.push(Condition { parameter: controller.parameter, values });
            }
            dimensions.push(Dimension {
                parameter,
                distribution: Distribution::Categorical { values, probabilities: None },
                when,
            });
        }
        // What depends may stand before what it depends on.
        dimensions.reverse();
        Space { dimensions }
    })
}

/// The points of a space, found by trying every combination.
fn brute_force(space: &Space) -> HashSet<String> {
    let mut all = vec![Hyperparameters::new()];
    for dimension in &space.dimensions {
        let Distribution::Categorical { values, .. } = &dimension.distribution else { panic!("not listed") };
        all = all
            .iter()
            .flat_map(|point| {
                values.iter().map(|value| {
                    let mut point = point.clone();
                    point.set(dimension.parameter, value).expect("fits");
                    point
                })
            })
            .collect();
    }
    let exists = |point: &Hyperparameters, parameter: Parameter| {
        let mut parameter = Some(parameter);
        while let Some(dimension) = parameter.and_then(|parameter| space.find(parameter)) {
            let Some(condition) = dimension.when.first() else {
                return true;
            };
            if !point.get(condition.parameter).is_some_and(|value| condition.values.contains(value)) {
                return false;
            }
            parameter = Some(condition.parameter);
        }
        false
    };
    all.iter()
        .map(|point| {
            let mut left = Hyperparameters::new();
            for (parameter, value) in point.iter().filter(|(parameter, _)| exists(point, *parameter)) {
                left.set(parameter, value).expect("fits");
            }
            left.to_string()
        })
        .collect()
}

proptest! {
    #[test]
    fn a_grid_has_every_point_exactly_once(space in any_space()) {
        let expected = brute_force(&space);
        for method in [Method::Grid, Method::Random] {
            let fields = SearchFields { method, run_cap: Some(10_000), space: space.clone(), ..SearchFields::default() };
            let spec = SearchSpec::new(fields).expect("good");
            let found: Vec<String> = Plan::new(&spec).trials().map(|(_, it)| it.to_string()).collect();
            prop_assert_eq!(found.len() as u64, spec.trial_count());
            prop_assert_eq!(found.len(), expected.len(), "{:?}", found);
            prop_assert_eq!(&found.into_iter().collect::<HashSet<_>>(), &expected);
        }
    }
}
