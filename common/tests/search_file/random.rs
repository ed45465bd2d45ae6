//! Files of any bytes.

use fittingroom_common::space::{Parsed, SearchSpec, SpaceError};
use proptest::prelude::*;

use crate::{EVERYTHING, parse};

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
