//! What is said of files that are accepted.

use fittingroom_common::space::{Parsed, SearchSpec};

use crate::good;

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
