//! Conversions of what a search is.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{DecodeError, required};
use crate::checkpoint::CheckpointRule;
use crate::hyperparameter::{CATALOGUE, Hyperparameters, Parameter, Value};
use crate::proto as pb;
use crate::space::{
    Bell, Condition, DatasetChoice, Dimension, Distribution, MAX_GRID, Method, Scale, SearchFields,
    SearchSpec, Space,
};

/// The most values of one parameter that a message may list.
const MAX_VALUES: usize = 10_000;

impl From<Method> for pb::Method {
    fn from(it: Method) -> Self {
        match it {
            Method::Grid => Self::Grid,
            Method::Random => Self::Random,
            Method::Points => Self::Points,
        }
    }
}

impl TryFrom<pb::Method> for Method {
    type Error = DecodeError;

    fn try_from(it: pb::Method) -> Result<Self, DecodeError> {
        match it {
            pb::Method::Unspecified => Err(DecodeError::Missing("method")),
            pb::Method::Grid => Ok(Self::Grid),
            pb::Method::Random => Ok(Self::Random),
            pb::Method::Points => Ok(Self::Points),
        }
    }
}

impl From<&Distribution> for pb::Distribution {
    fn from(it: &Distribution) -> Self {
        use pb::distribution::Kind;
        let kind = match it {
            Distribution::Constant(value) => Kind::Constant(value.into()),
            Distribution::Categorical { values, probabilities } => Kind::Categorical(pb::Categorical {
                values: values.iter().map(Into::into).collect(),
                probabilities: probabilities.clone().unwrap_or_default(),
            }),
            Distribution::IntUniform { min, max } => {
                Kind::IntUniform(pb::IntegerRange { min: *min, max: *max })
            }
            Distribution::Range { scale, min, max, q } => {
                let range = pb::Range { min: *min, max: *max, q: *q };
                match scale {
                    Scale::Uniform => Kind::Uniform(range),
                    Scale::LogUniform => Kind::LogUniformValues(range),
                }
            }
            Distribution::Normal { bell, mu, sigma, q } => {
                let message = pb::Bell { mu: *mu, sigma: *sigma, q: *q };
                match bell {
                    Bell::Normal => Kind::Normal(message),
                    Bell::LogNormal => Kind::LogNormal(message),
                }
            }
        };
        Self { kind: Some(kind) }
    }
}

fn values(parameter: Parameter, messages: &[pb::Value]) -> Result<Vec<Value>, DecodeError> {
    if messages.len() > MAX_VALUES {
        return Err(DecodeError::TooMany { field: "values", found: messages.len(), most: MAX_VALUES });
    }
    messages.iter().map(|value| value.decode(parameter)).collect()
}

fn distribution(parameter: Parameter, message: pb::Distribution) -> Result<Distribution, DecodeError> {
    use pb::distribution::Kind;
    let range = |scale, it: pb::Range| Distribution::Range { scale, min: it.min, max: it.max, q: it.q };
    let normal = |bell, it: pb::Bell| Distribution::Normal { bell, mu: it.mu, sigma: it.sigma, q: it.q };
    Ok(match required("distribution.kind", message.kind)? {
        Kind::Constant(value) => Distribution::Constant(value.decode(parameter)?),
        Kind::Categorical(it) => Distribution::Categorical {
            values: values(parameter, &it.values)?,
            probabilities: (!it.probabilities.is_empty()).then_some(it.probabilities),
        },
        Kind::IntUniform(it) => Distribution::IntUniform { min: it.min, max: it.max },
        Kind::Uniform(it) => range(Scale::Uniform, it),
        Kind::LogUniformValues(it) => range(Scale::LogUniform, it),
        Kind::Normal(it) => normal(Bell::Normal, it),
        Kind::LogNormal(it) => normal(Bell::LogNormal, it),
    })
}

impl From<&Dimension> for pb::SpaceParameter {
    fn from(it: &Dimension) -> Self {
        let when = it.when.iter().map(|condition| pb::Condition {
            name: condition.parameter.name().to_owned(),
            values: condition.values.iter().map(Into::into).collect(),
        });
        Self {
            name: it.parameter.name().to_owned(),
            distribution: Some((&it.distribution).into()),
            when: when.collect(),
        }
    }
}

impl TryFrom<pb::SpaceParameter> for Dimension {
    type Error = DecodeError;

    fn try_from(it: pb::SpaceParameter) -> Result<Self, DecodeError> {
        let parameter = Parameter::find(&it.name)?;
        if it.when.len() > CATALOGUE.len() {
            return Err(DecodeError::TooMany { field: "when", found: it.when.len(), most: CATALOGUE.len() });
        }
        let condition = |condition: pb::Condition| {
            let parameter = Parameter::find(&condition.name)?;
            Ok(Condition { parameter, values: values(parameter, &condition.values)? })
        };
        Ok(Self {
            parameter,
            distribution: distribution(parameter, required("distribution", it.distribution)?)?,
            when: it.when.into_iter().map(condition).collect::<Result<_, DecodeError>>()?,
        })
    }
}

impl From<&SearchSpec> for pb::SearchSpec {
    /// The name and the dataset travel beside the search, not in it.
    fn from(it: &SearchSpec) -> Self {
        Self {
            description: it.description.clone(),
            seed: it.seed,
            method: pb::Method::from(it.method).into(),
            metric: pb::Metric::from(it.metric).into(),
            run_cap: it.run_cap.unwrap_or(0),
            replicates: it.replicates,
            max_attempts: it.max_attempts,
            max_failed_trials: it.max_failed_trials,
            budget_ms: it.budget.map(|budget| u64::try_from(budget.as_millis()).unwrap_or(u64::MAX)),
            track_test: it.track_test,
            parameters: it.space.dimensions.iter().map(Into::into).collect(),
            points: it.points.iter().map(Into::into).collect(),
            checkpoint: Some(it.checkpoint.into()),
        }
    }
}

impl From<CheckpointRule> for pb::CheckpointRule {
    fn from(it: CheckpointRule) -> Self {
        Self {
            every_epochs: it.every_epochs.map(NonZeroU32::get),
            every_seconds: it.every_seconds.map(NonZeroU32::get),
        }
    }
}

impl TryFrom<pb::CheckpointRule> for CheckpointRule {
    type Error = DecodeError;

    fn try_from(it: pb::CheckpointRule) -> Result<Self, DecodeError> {
        let from_one = |field, number: Option<u32>| match number.map(NonZeroU32::new) {
            Some(None) => {
                Err(DecodeError::Outside { field, value: "0".to_owned(), allowed: "numbers from 1" })
            }
            other => Ok(other.flatten()),
        };
        Ok(Self {
            every_epochs: from_one("checkpoint.every_epochs", it.every_epochs)?,
            every_seconds: from_one("checkpoint.every_seconds", it.every_seconds)?,
        })
    }
}

impl TryFrom<pb::SearchSpec> for SearchSpec {
    type Error = DecodeError;

    fn try_from(it: pb::SearchSpec) -> Result<Self, DecodeError> {
        if it.points.len() as u64 > MAX_GRID {
            return Err(DecodeError::TooMany {
                field: "points",
                found: it.points.len(),
                most: MAX_GRID as usize,
            });
        }
        if it.parameters.len() > CATALOGUE.len() {
            return Err(DecodeError::TooMany {
                field: "parameters",
                found: it.parameters.len(),
                most: CATALOGUE.len(),
            });
        }
        // A search that was launched before there were checkpoints gets them as it goes on.
        let checkpoint = it.checkpoint.map(CheckpointRule::try_from).transpose()?.unwrap_or_default();
        let (method, metric) = (it.method().try_into()?, it.metric().try_into()?);
        let dimensions = it.parameters.into_iter().map(Dimension::try_from).collect::<Result<_, _>>()?;
        let points = it.points.into_iter().map(Hyperparameters::try_from).collect::<Result<_, _>>()?;
        Ok(Self::new(SearchFields {
            name: None,
            description: it.description,
            seed: it.seed,
            dataset: DatasetChoice::default(),
            method,
            metric,
            run_cap: (it.run_cap > 0).then_some(it.run_cap),
            replicates: it.replicates,
            max_attempts: it.max_attempts,
            max_failed_trials: it.max_failed_trials,
            budget: it.budget_ms.map(Duration::from_millis),
            track_test: it.track_test,
            checkpoint,
            space: Space { dimensions },
            points,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_checkpoint_survives_the_wire_and_searches_from_before_get_the_default() {
        let numbers = [None, NonZeroU32::new(7)];
        let rules = numbers
            .map(|every_epochs| numbers.map(|every_seconds| CheckpointRule { every_epochs, every_seconds }));
        for rule in rules.concat() {
            let file = "method: grid\nparameters: {dropout: {value: 0.1}}";
            let spec = SearchSpec::parse("search.yaml", file).expect("parses").spec;
            let mut wire = pb::SearchSpec::from(&spec);
            wire.checkpoint = Some(rule.into());
            assert_eq!(SearchSpec::try_from(wire.clone()).expect("good").checkpoint, rule);
            wire.checkpoint = None;
            assert_eq!(SearchSpec::try_from(wire).expect("good").checkpoint, CheckpointRule::default());
        }
    }
}
