//! The trials of a search file.

use std::collections::HashSet;

use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::TrialId;
use fittingroom_common::proto as pb;
use fittingroom_common::space::{Method, SearchSpec};

use crate::method::Plan;

/// How many of the first trials are drawn.
const FIRST: u64 = 24;

/// Every trial of a search that is accepted can be drawn, is the same each time, and is one that a worker
/// takes; no point of a grid is there twice.
pub fn trials(bytes: &[u8]) {
    let Ok(parsed) = SearchSpec::parse_bytes("search.yaml", bytes) else { return };
    let spec = parsed.spec;
    let (plan, again) = (Plan::new(&spec), Plan::new(&spec));
    let count = spec.trial_count();
    let defaults = Hyperparameters::defaults();
    let mut points = HashSet::new();
    let first = 0..count.min(FIRST);
    for (number, is_first) in
        first.map(|number| (number, true)).chain([(count / 2, false), (count - 1, false)])
    {
        let trial = TrialId::new(number);
        let drawn =
            plan.hyperparameters(trial).unwrap_or_else(|| panic!("trial {trial} of {count} is not drawn"));
        assert_eq!(again.hyperparameters(trial).as_ref(), Some(&drawn));
        for (parameter, value) in drawn.iter() {
            assert_eq!(parameter.check(value).as_ref(), Ok(value), "{}", parameter.name());
        }
        let whole = defaults.overlaid(&drawn);
        assert_eq!(Hyperparameters::try_from(pb::Hyperparameters::from(&whole)).as_ref(), Ok(&whole));
        let replicate = plan.replicate(trial).expect("it is drawn");
        assert!(replicate.number < spec.replicates, "{replicate:?}");
        if is_first && replicate.number == 0 && spec.method == Method::Grid {
            assert!(points.insert(drawn.to_string()), "{drawn} is there twice");
        }
    }
    assert_eq!(plan.hyperparameters(TrialId::new(count)), None);
}
