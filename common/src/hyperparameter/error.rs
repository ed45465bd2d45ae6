//! What is wrong with a name or a value, and what was probably meant.

use super::Domain;

/// Why a name or a value is not one of the catalogue's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// No hyperparameter has this name.
    #[error("there is no hyperparameter {name:?}{}", suggestion(nearest))]
    UnknownName {
        /// The name as it came.
        name: String,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
    },
    /// The hyperparameter has no such choice.
    #[error("{name} cannot be {given:?}{}; it can be {}", suggestion(nearest), known.join(", "))]
    UnknownChoice {
        /// The hyperparameter.
        name: &'static str,
        /// The word as it came.
        given: String,
        /// The words that it may be.
        known: &'static [&'static str],
        /// The known word that is most like the one given.
        nearest: Option<&'static str>,
    },
    /// The value is of another kind than the hyperparameter takes.
    #[error("{name} cannot be {given}: it takes {domain}")]
    WrongKind {
        /// The hyperparameter.
        name: &'static str,
        /// The value as it came.
        given: String,
        /// What the hyperparameter takes.
        domain: Domain,
    },
    /// The value is of the right kind, but out of range.
    #[error("{name} cannot be {given}: it takes {domain}")]
    Outside {
        /// The hyperparameter.
        name: &'static str,
        /// The value as it came.
        given: String,
        /// What the hyperparameter takes.
        domain: Domain,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// The candidate that `given` was most probably meant to be, if any is near enough.
pub fn nearest(given: &str, candidates: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let given = given.to_lowercase().replace('-', "_").replace("isation", "ization");
    candidates
        .into_iter()
        .map(|candidate| {
            let starts = !given.is_empty() && (candidate.starts_with(&given) || given.starts_with(candidate));
            let likeness = strsim::jaro_winkler(&given, candidate);
            (candidate, if starts { likeness + 1.0 } else { likeness })
        })
        .filter(|(_, likeness)| *likeness > 0.75)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate)
}
