//! The rules that a search keeps, whether it came from a file or over the wire.

use std::collections::{HashMap, HashSet};

use crate::hyperparameter::{Bound, Domain, Hyperparameters, Parameter, Value, ValueError};

use super::distribution::multiple;
use super::{
    Bell, Dimension, Distribution, Grid, MAX_GRID, MAX_TRIALS, MAX_VALUES, Method, Multiples, Path, Problem,
    SearchFields, Space, SpecError, Step,
};

fn wrong<const N: usize>(path: [Step; N], problem: impl Into<Problem>) -> SpecError {
    SpecError { path: Path(path.to_vec()), problem: problem.into() }
}

/// Checks every rule; the number of trials.
pub(super) fn trial_count(fields: &SearchFields) -> Result<u64, SpecError> {
    for (key, is_zero) in [
        ("run_cap", fields.run_cap == Some(0)),
        ("replicates", fields.replicates == 0),
        ("max_attempts", fields.max_attempts == 0),
        ("budget", fields.budget.is_some_and(|budget| budget.is_zero())),
    ] {
        if is_zero {
            return Err(wrong([key.into()], Problem::Zero));
        }
    }
    if let Some(run_cap) = fields.run_cap.filter(|run_cap| *run_cap > MAX_TRIALS) {
        return Err(wrong(["run_cap".into()], Problem::TooManyTrials { run_cap }));
    }
    for (position, dimension) in fields.space.dimensions.iter().enumerate() {
        check_dimension(&fields.space, position, dimension)?;
    }
    check_circles(&fields.space)?;
    check_momentum(fields)?;
    let points = match fields.method {
        Method::Points => {
            check_points(fields)?;
            fields.points.len() as u128
        }
        Method::Grid | Method::Random if !fields.points.is_empty() => {
            return Err(wrong(["points".into()], Problem::UnusedPoints { method: fields.method }));
        }
        Method::Grid | Method::Random if fields.space.dimensions.is_empty() => {
            return Err(wrong(["parameters".into()], Problem::NoParameters));
        }
        Method::Grid => grid_size(fields)?,
        Method::Random if fields.run_cap.is_none() => {
            return Err(wrong(["method".into()], Problem::NoRunCap));
        }
        Method::Random if fields.space.is_evenly_finite() => Grid::new(&fields.space)
            .ok_or_else(|| wrong(["parameters".into()], Problem::TooManyConditions))?
            .size(),
        Method::Random => u128::MAX,
    };
    let trials = points.saturating_mul(u128::from(fields.replicates));
    let cap = fields.run_cap.unwrap_or(u64::MAX);
    Ok(u64::try_from(trials).map_or(cap, |trials| trials.min(cap)))
}

fn grid_size(fields: &SearchFields) -> Result<u128, SpecError> {
    for dimension in &fields.space.dimensions {
        if dimension.distribution.size().is_none() {
            let distribution = dimension.distribution.name();
            let path = ["parameters".into(), dimension.parameter.name().into()];
            return Err(wrong(path, Problem::EndlessGrid { distribution }));
        }
    }
    let grid =
        Grid::new(&fields.space).ok_or_else(|| wrong(["parameters".into()], Problem::TooManyConditions))?;
    let trials = grid.size().saturating_mul(u128::from(fields.replicates));
    if trials > u128::from(MAX_GRID) {
        return Err(wrong(["parameters".into()], Problem::GridTooLarge { trials }));
    }
    Ok(grid.size())
}

fn check_points(fields: &SearchFields) -> Result<(), SpecError> {
    for dimension in &fields.space.dimensions {
        if !matches!(dimension.distribution, Distribution::Constant(_)) || !dimension.when.is_empty() {
            let parameter = dimension.parameter.name();
            return Err(wrong(["parameters".into(), parameter.into()], Problem::NotShared { parameter }));
        }
    }
    if fields.points.is_empty() {
        return Err(wrong(["points".into()], Problem::NoPoints));
    }
    for (index, point) in fields.points.iter().enumerate() {
        if let Some((parameter, _)) =
            point.iter().find(|(parameter, _)| fields.space.find(*parameter).is_some())
        {
            let parameter = parameter.name();
            let path = ["points".into(), index.into(), parameter.into()];
            return Err(wrong(path, Problem::GivenTwice { parameter }));
        }
    }
    if let Some((first, second)) = first_repetition(&fields.points) {
        return Err(wrong(["points".into(), second.into()], Problem::DuplicatePoint { first: first + 1 }));
    }
    Ok(())
}

/// Optimizers that are named for their momentum are refused by every worker where it is 0, as it is by
/// default: better said once than by every trial.
fn check_momentum(fields: &SearchFields) -> Result<(), SpecError> {
    let (Ok(optimizer), Ok(momentum)) = (Parameter::find("optimizer"), Parameter::find("momentum")) else {
        return Ok(());
    };
    let named = |value: &Value| match value {
        Value::Choice(word @ ("momentum" | "nesterov")) => Some(*word),
        Value::Choice(_) | Value::Number(_) | Value::Integer(_) | Value::Flag(_) | Value::Sizes(_) => None,
    };
    if fields.space.find(momentum).is_some() {
        return Ok(());
    }
    let shared = fields.space.find(optimizer).and_then(|dimension| match &dimension.distribution {
        Distribution::Constant(value) => named(value),
        Distribution::Categorical { values, .. } => values.iter().find_map(named),
        Distribution::IntUniform { .. } | Distribution::Range { .. } | Distribution::Normal { .. } => None,
    });
    let Some(optimizer_of_all) = shared else {
        let lacks = |point: &Hyperparameters| {
            point.get(optimizer).and_then(named).filter(|_| point.get(momentum).is_none())
        };
        let point = fields.points.iter().enumerate().find_map(|(index, point)| Some((index, lacks(point)?)));
        return point.map_or(Ok(()), |(index, optimizer)| {
            Err(wrong(["points".into(), index.into(), "optimizer".into()], Problem::NoMomentum { optimizer }))
        });
    };
    if !fields.points.is_empty() && fields.points.iter().all(|point| point.get(momentum).is_some()) {
        return Ok(());
    }
    let path = ["parameters".into(), "optimizer".into()];
    Err(wrong(path, Problem::NoMomentum { optimizer: optimizer_of_all }))
}

/// The first point that repeats an earlier one, and that one.
fn first_repetition(points: &[Hyperparameters]) -> Option<(usize, usize)> {
    // By their text, which tells all values of a hyperparameter apart: floats print to the last bit.
    let mut seen = HashMap::with_capacity(points.len());
    points
        .iter()
        .enumerate()
        .find_map(|(index, point)| seen.insert(format!("{point:?}"), index).map(|first| (first, index)))
}

fn check_circles(space: &Space) -> Result<(), SpecError> {
    let order = space.order();
    match (0..space.dimensions.len()).find(|position| !order.contains(position)) {
        Some(position) => {
            let parameter = space.dimensions[position].parameter.name();
            let path = ["parameters".into(), parameter.into(), "when".into()];
            Err(wrong(path, Problem::Circle { parameter }))
        }
        None => Ok(()),
    }
}

fn check_dimension(space: &Space, position: usize, dimension: &Dimension) -> Result<(), SpecError> {
    let parameter = dimension.parameter;
    let name = parameter.name();
    if space.position(parameter) != Some(position) {
        return Err(wrong(["parameters".into(), name.into()], Problem::GivenTwice { parameter: name }));
    }
    check_distribution(parameter, &dimension.distribution).map_err(|(at, problem)| {
        let steps = ["parameters".into(), name.into()].into_iter().chain(at).collect();
        SpecError { path: Path(steps), problem }
    })?;
    for condition in &dimension.when {
        let controller = condition.parameter.name();
        let refuse = |problem| {
            Err(wrong(["parameters".into(), name.into(), "when".into(), controller.into()], problem))
        };
        match space.find(condition.parameter).map(|controller| &controller.distribution) {
            None => return refuse(Problem::UnknownController { controller }),
            Some(Distribution::Constant(_) | Distribution::Categorical { .. }) => {}
            Some(drawn) => {
                return refuse(Problem::DrawnController { controller, distribution: drawn.name() });
            }
        }
        if condition.values.is_empty() {
            return refuse(Problem::NoValues);
        }
        if condition.values.len() > MAX_VALUES {
            return refuse(Problem::TooManyValues { values: condition.values.len() });
        }
        for value in &condition.values {
            if let Err(error) = condition.parameter.check(value) {
                return refuse(error.into());
            }
        }
    }
    Ok(())
}

/// What is wrong with a distribution, and in which of its keys.
type Wrong = (Vec<Step>, Problem);

fn check_distribution(parameter: Parameter, distribution: &Distribution) -> Result<(), Wrong> {
    let at = |key: &'static str| move |error: ValueError| (vec![Step::Key(key)], Problem::from(error));
    match distribution {
        Distribution::Constant(value) => parameter.check(value).map(drop).map_err(at("value")),
        Distribution::Categorical { values, probabilities } => {
            check_values(parameter, values)?;
            probabilities.as_ref().map_or(Ok(()), |probabilities| {
                check_probabilities(probabilities, values.len())
                    .map_err(|problem| (vec!["probabilities".into()], problem))
            })
        }
        Distribution::IntUniform { min, max } => {
            if min >= max {
                let bounds = Problem::Bounds { min: *min as f64, max: *max as f64 };
                return Err((vec!["min".into()], bounds));
            }
            parameter.integer(*min).map_err(at("min"))?;
            parameter.integer(*max).map(drop).map_err(at("max"))
        }
        Distribution::Range { min, max, q, .. } => {
            check_finite([("min", *min), ("max", *max)])?;
            if min >= max {
                return Err((vec!["min".into()], Problem::Bounds { min: *min, max: *max }));
            }
            if distribution.name().contains("log") && *min <= 0.0 {
                return Err((vec!["min".into()], Problem::NotPositive { min: *min }));
            }
            check_step(parameter, distribution, *q)?;
            let (low, high) = match q {
                None => (*min, *max),
                Some(q) => Multiples::within(*min, *max, *q)
                    .map(|multiples| (multiples.nearest(*min), multiples.nearest(*max)))
                    .ok_or((vec!["q".into()], Problem::NoMultiples { q: *q, min: *min, max: *max }))?,
            };
            parameter.number(low).map_err(at("min"))?;
            parameter.number(high).map(drop).map_err(at("max"))
        }
        Distribution::Normal { bell, mu, sigma, q } => {
            check_finite([("mu", *mu), ("sigma", *sigma)])?;
            if *sigma <= 0.0 {
                return Err((vec!["sigma".into()], Problem::Sigma { sigma: *sigma }));
            }
            check_step(parameter, distribution, *q)?;
            check_reach(parameter, *bell, *mu, *sigma, *q)
        }
    }
}

fn check_values(parameter: Parameter, values: &[Value]) -> Result<(), Wrong> {
    if values.is_empty() {
        return Err((vec!["values".into()], Problem::NoValues));
    }
    if values.len() > MAX_VALUES {
        return Err((vec!["values".into()], Problem::TooManyValues { values: values.len() }));
    }
    let mut seen = HashSet::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let here = || vec!["values".into(), index.into()];
        let value = parameter.check(value).map_err(|error| (here(), error.into()))?;
        if !seen.insert(format!("{value:?}")) {
            return Err((here(), Problem::DuplicateValue { value }));
        }
    }
    Ok(())
}

fn check_probabilities(probabilities: &[f64], values: usize) -> Result<(), Problem> {
    if probabilities.len() != values {
        return Err(Problem::ProbabilityCount { probabilities: probabilities.len(), values });
    }
    if let Some(&probability) = probabilities.iter().find(|probability| !(0.0..=1.0).contains(*probability)) {
        return Err(Problem::Probability { probability });
    }
    let sum: f64 = probabilities.iter().sum();
    // People write 0.33, 0.33, 0.34, and also 0.333, 0.333, 0.333.
    if (sum - 1.0).abs() > 0.01 { Err(Problem::ProbabilitySum { sum }) } else { Ok(()) }
}

fn check_finite<const N: usize>(numbers: [(&'static str, f64); N]) -> Result<(), Wrong> {
    match numbers.into_iter().find(|(_, number)| !number.is_finite()) {
        Some((key, number)) => Err((vec![key.into()], Problem::NotFinite { number })),
        None => Ok(()),
    }
}

/// Numbers can only be drawn for a hyperparameter that takes numbers, and whole ones where it needs those.
fn check_step(parameter: Parameter, distribution: &Distribution, q: Option<f64>) -> Result<(), Wrong> {
    if let Some(q) = q
        && !(q.is_finite() && q > 0.0)
    {
        return Err((vec!["q".into()], Problem::Step { q }));
    }
    match parameter.definition().domain {
        Domain::Number { .. } => Ok(()),
        Domain::Integer { .. } if q.is_some_and(|q| q.fract() == 0.0) => Ok(()),
        Domain::Integer { .. } => {
            let problem =
                Problem::NotWhole { parameter: parameter.name(), distribution: distribution.name() };
            Err((vec![if q.is_some() { "q" } else { "distribution" }.into()], problem))
        }
        domain @ (Domain::Choice(_) | Domain::Flag | Domain::Sizes { .. }) => {
            let given = format!("a number from {}", distribution.name());
            let error = ValueError::WrongKind { name: parameter.name(), given, domain };
            Err((vec!["distribution".into()], error.into()))
        }
    }
}

/// Draws outside the domain are drawn again; this sees to it that at least some in a hundred lie inside.
fn check_reach(parameter: Parameter, bell: Bell, mu: f64, sigma: f64, q: Option<f64>) -> Result<(), Wrong> {
    let centre = match bell {
        Bell::Normal => mu,
        Bell::LogNormal => mu.exp(),
    };
    let centre = q.map_or(centre, |q| multiple((centre / q).round(), q));
    let domain = parameter.definition().domain;
    let (low, high) = match domain {
        Domain::Number { min, max } => {
            let bound = |bound| match bound {
                Bound::Included(number) | Bound::Excluded(number) => number,
            };
            (bound(min), bound(max))
        }
        Domain::Integer { min, max } => (min as f64, max as f64),
        Domain::Choice(_) | Domain::Flag | Domain::Sizes { .. } => return Ok(()),
    };
    let width = match bell {
        Bell::Normal => high - low,
        Bell::LogNormal if low <= 0.0 => f64::INFINITY,
        Bell::LogNormal => (high / low).ln(),
    };
    // A mean inside and a domain of a tenth of sigma: at least 0.1 * 0.39 of the draws lie inside.
    if parameter.number(centre).is_ok() && width >= sigma / 10.0 {
        Ok(())
    } else {
        let problem = Problem::OutOfReach { parameter: parameter.name(), domain, centre };
        Err((vec!["mu".into()], problem))
    }
}
