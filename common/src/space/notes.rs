//! What can be said of a search that keeps every rule, but was hardly meant so.

use crate::hyperparameter::{Hyperparameters, Parameter, Value};

use super::{Condition, Distribution, Grid, Method, Path, SearchSpec, Space, Step};

/// Remarks, each with the part of the search that it is about.
pub(super) fn remarks_on(spec: &SearchSpec) -> Vec<(Path, String)> {
    let mut remarks = Vec::new();
    remarks.extend(cap(spec));
    match spec.method {
        Method::Grid | Method::Random => {
            let without_effect =
                spec.space.dimensions.iter().filter_map(|dimension| idle(spec, dimension.parameter));
            remarks.extend(without_effect);
        }
        Method::Points => remarks.extend(idle_in_points(spec)),
    }
    remarks
}

/// A `run_cap` that cuts a list short, or lies above what there is.
fn cap(spec: &SearchSpec) -> Option<(Path, String)> {
    let cap = u128::from(spec.run_cap?);
    let points = match spec.method {
        Method::Points => spec.points.len() as u128,
        Method::Grid => Grid::new(&spec.space)?.size(),
        Method::Random if spec.space.is_evenly_finite() => Grid::new(&spec.space)?.size(),
        Method::Random => return None,
    };
    let trials = points.saturating_mul(u128::from(spec.replicates));
    let path = Path(vec!["run_cap".into()]);
    match spec.method {
        Method::Grid | Method::Points if cap < trials => {
            Some((path, format!("only the first {cap} of {trials} trials will run")))
        }
        Method::Random if cap > trials => {
            Some((path, format!("there are only {trials} different trials; each will run once")))
        }
        Method::Grid | Method::Points | Method::Random => None,
    }
}

/// Whether a hyperparameter has no effect with some values of the one that decides over it.
fn idle(spec: &SearchSpec, parameter: Parameter) -> Option<(Path, String)> {
    let space = &spec.space;
    let dimension = space.find(parameter)?;
    let (controller, used) = parameter.definition().used_with?;
    let controller = Parameter::find(controller).ok()?;
    let is_used = |value: &Value| matches!(value, Value::Choice(word) if used.contains(word));
    let (possible, is_default) = possible_values(space, controller, dimension.when.as_slice())?;
    let idle: Vec<String> =
        possible.iter().filter(|value| !is_used(value)).map(ToString::to_string).collect();
    if idle.is_empty() {
        return None;
    }
    let name = parameter.name();
    let path = Path(vec!["parameters".into(), name.into()]);
    let controller_name = controller.name();
    if idle.len() == possible.len() {
        let default = if is_default { " (its default)" } else { "" };
        return Some((
            path,
            format!("{name} has no effect: {controller_name} is {}{default}", idle.join(" or ")),
        ));
    }
    if matches!(dimension.distribution, Distribution::Constant(_)) {
        return None;
    }
    let wanted =
        used.iter().filter(|word| possible.contains(&Value::Choice(word))).copied().collect::<Vec<_>>();
    let advice = match wanted.as_slice() {
        [one] => format!("add `when: {{{controller_name}: {one}}}`"),
        more => format!("add `when: {{{controller_name}: [{}]}}`", more.join(", ")),
    };
    let repeats = match repeated_points(spec, parameter, controller, used) {
        Some(repeats) => format!(": {repeats} grid points repeat the same training"),
        None => String::new(),
    };
    let idle = idle.join(", ");
    Some((path, format!("{name} has no effect with {controller_name} {idle}{repeats}; {advice}")))
}

/// The values that a controller can have where these conditions hold, and whether they are its default.
fn possible_values(space: &Space, controller: Parameter, when: &[Condition]) -> Option<(Vec<Value>, bool)> {
    let Some(dimension) = space.find(controller) else {
        return Some((vec![controller.default_value()], true));
    };
    let size = dimension.distribution.size()?;
    let values = (0..size).filter_map(|index| dimension.distribution.value(controller, index));
    let conditions: Vec<&Condition> =
        when.iter().filter(|condition| condition.parameter == controller).collect();
    let holds = |value: &Value| conditions.iter().all(|condition| condition.values.contains(value));
    Some((values.filter(holds).collect(), false))
}

/// How many points a grid would lose by the condition that is advised.
fn repeated_points(
    spec: &SearchSpec,
    parameter: Parameter,
    controller: Parameter,
    used: &[&'static str],
) -> Option<u128> {
    if spec.method != Method::Grid {
        return None;
    }
    let mut space = spec.space.clone();
    let position = space.position(parameter)?;
    let values = used.iter().map(|word| Value::Choice(word)).collect();
    space.dimensions[position].when.push(Condition { parameter: controller, values });
    Grid::new(&spec.space)?.size().checked_sub(Grid::new(&space)?.size())
}

/// Hyperparameters of listed points that have no effect there.
fn idle_in_points(spec: &SearchSpec) -> Vec<(Path, String)> {
    let shared = spec.shared();
    let mut remarks = Vec::new();
    for (index, point) in spec.points.iter().enumerate() {
        let all = Hyperparameters::defaults().overlaid(&shared).overlaid(point);
        for (parameter, _) in point.iter() {
            let Some((controller, used)) = parameter.definition().used_with else {
                continue;
            };
            let value = Parameter::find(controller).ok().and_then(|controller| all.get(controller).cloned());
            if let Some(Value::Choice(word)) = value
                && !used.contains(&word)
            {
                let name = parameter.name();
                let path: Vec<Step> = vec!["points".into(), index.into(), name.into()];
                remarks.push((Path(path), format!("{name} has no effect with {controller} {word}")));
            }
        }
    }
    remarks
}
