//! From the entry of a hyperparameter in a search file to its distribution, by W&B's names and rules.

use crate::hyperparameter::{Domain, Parameter, nearest};

use super::error::Complaint;
use super::read::{Remark, text, unknown_key, wrong_type};
use super::read_parameters::value;
use super::tree::{Key, Kind, Node};
use super::{Bell, Distribution, Scale};

/// Keys that an entry may have.
const KEYS: &[&str] =
    &["value", "values", "probabilities", "distribution", "min", "max", "mu", "sigma", "q", "when"];

/// Each distribution with the keys that it needs and those that it may have beside them.
const DISTRIBUTIONS: &[(&str, &[&str], &[&str])] = &[
    ("constant", &["value"], &[]),
    ("categorical", &["values"], &["probabilities"]),
    ("categorical_w_probabilities", &["values", "probabilities"], &[]),
    ("int_uniform", &["min", "max"], &[]),
    ("uniform", &["min", "max"], &[]),
    ("q_uniform", &["min", "max"], &["q"]),
    ("log_uniform", &["min", "max"], &[]),
    ("log_uniform_values", &["min", "max"], &[]),
    ("q_log_uniform", &["min", "max"], &["q"]),
    ("q_log_uniform_values", &["min", "max"], &["q"]),
    ("inv_log_uniform", &["min", "max"], &[]),
    ("inv_log_uniform_values", &["min", "max"], &[]),
    ("normal", &[], &["mu", "sigma"]),
    ("q_normal", &[], &["mu", "sigma", "q"]),
    ("log_normal", &[], &["mu", "sigma"]),
    ("q_log_normal", &[], &["mu", "sigma", "q"]),
];

/// The distribution that an entry of `parameters` says or implies.
pub(super) fn distribution(
    parameter: Parameter,
    key: &Key,
    node: &Node,
    remarks: &mut Vec<Remark>,
) -> Result<Distribution, Complaint> {
    let Kind::Map(entries) = &node.kind else {
        let example = if matches!(node.kind, Kind::List(_)) { "values" } else { "value" };
        return Err(wrong_type(key, "a mapping that says its values", node)
            .help(format!("write `{}: {{{example}: …}}`", key.text)));
    };
    let name = match node.entry("distribution") {
        Some((key, node)) => named(key, node)?,
        None => implied(key, node)?,
    };
    let Some((_, needed, optional)) = DISTRIBUTIONS.iter().find(|(known, ..)| *known == name) else {
        return Err(Complaint::new(key.place, format!("there is no distribution {name:?}")));
    };
    for (key, _) in entries {
        let known = key.text.as_str();
        if known == "parameters" {
            return Err(Complaint::new(key.place, "`parameters` inside a parameter is not available")
                .help("write every hyperparameter directly under the top `parameters:`"));
        }
        if !KEYS.contains(&known) {
            return Err(unknown_key(key, KEYS, "a parameter"));
        }
        if !needed.contains(&known)
            && !optional.contains(&known)
            && !["distribution", "when"].contains(&known)
        {
            return Err(Complaint::new(key.place, format!("`{known}` has no meaning for {name}"))
                .help(format!("{name} takes {}", [*needed, *optional].concat().join(", "))));
        }
    }
    if let Some(missing) = needed.iter().find(|needed| node.entry(needed).is_none()) {
        return Err(Complaint::new(key.place, format!("{} lacks `{missing}`", key.text))
            .help(format!("{name} takes {}", [*needed, *optional].concat().join(", "))));
    }
    let is_inferred = node.entry("distribution").is_none();
    if is_inferred && name == "int_uniform" && matches!(parameter.definition().domain, Domain::Number { .. })
    {
        let message = "min and max are whole numbers, so only whole numbers are tried; write them with a point, \
                       as 0.0, for all numbers between";
        remarks.push((key.place, message.to_owned()));
    }
    build(name, parameter, node)
}

/// The distribution that the entry names.
fn named(key: &Key, node: &Node) -> Result<&'static str, Complaint> {
    let written = text(key, node)?;
    let names = || DISTRIBUTIONS.iter().map(|(name, ..)| *name);
    names().find(|name| *name == written).ok_or_else(|| {
        let complaint = Complaint::new(node.place, format!("there is no distribution {written:?} here"));
        let list = names().collect::<Vec<_>>().join(", ");
        match nearest(written, names()) {
            Some(name) => complaint.help(format!("did you mean `{name}`? The distributions are {list}")),
            None => complaint.help(format!("the distributions are {list}")),
        }
    })
}

/// The distribution that the entry's keys imply.
fn implied(key: &Key, node: &Node) -> Result<&'static str, Complaint> {
    let has = |name| node.entry(name).is_some();
    let is_whole = |name| node.entry(name).is_none_or(|(_, node)| matches!(node.kind, Kind::Integer(_)));
    // `parameters` is refused where all keys are looked at.
    if has("value") || has("parameters") {
        Ok("constant")
    } else if has("values") {
        Ok("categorical")
    } else if (has("min") || has("max")) && is_whole("min") && is_whole("max") {
        Ok("int_uniform")
    } else if has("min") || has("max") {
        Ok("uniform")
    } else if has("mu") || has("sigma") {
        Err(Complaint::new(key.place, format!("{} has mu or sigma, but no `distribution`", key.text))
            .help("add `distribution: normal` or `distribution: log_normal`"))
    } else {
        let stranger = match &node.kind {
            Kind::Map(entries) => entries.iter().find(|(key, _)| !KEYS.contains(&key.text.as_str())),
            _ => None,
        };
        Err(match stranger {
            Some((key, _)) => unknown_key(key, KEYS, "a parameter"),
            None => Complaint::new(key.place, format!("{} does not say its values", key.text))
                .help("give it a `value`, `values`, or `min` and `max`"),
        })
    }
}

fn build(name: &str, parameter: Parameter, node: &Node) -> Result<Distribution, Complaint> {
    let number_or = |key, default| node.entry(key).map_or(Ok(default), |(key, node)| number(key, node));
    let bounds = || Ok((number_or("min", 0.0)?, number_or("max", 0.0)?));
    let q = if name.starts_with("q_") { Some(number_or("q", 1.0)?) } else { None };
    match name {
        "constant" => match node.entry("value") {
            Some((_, node)) => Ok(Distribution::Constant(value(parameter, node)?)),
            None => Ok(Distribution::Constant(parameter.default_value())),
        },
        "categorical" | "categorical_w_probabilities" => categorical(parameter, node),
        "int_uniform" => {
            let whole = |key| node.entry(key).map_or(Ok(0), |(key, node)| whole(key, node));
            Ok(Distribution::IntUniform { min: whole("min")?, max: whole("max")? })
        }
        "uniform" | "q_uniform" => {
            let (min, max) = bounds()?;
            Ok(Distribution::Range { scale: Scale::Uniform, min, max, q })
        }
        "log_uniform_values" | "q_log_uniform_values" | "inv_log_uniform_values" => {
            let (min, max) = bounds()?;
            Ok(Distribution::Range { scale: Scale::LogUniform, min, max, q })
        }
        "log_uniform" | "q_log_uniform" => {
            let (min, max) = bounds()?;
            exponents(name, parameter, node, min, max, q)
        }
        "inv_log_uniform" => {
            let (min, max) = bounds()?;
            exponents(name, parameter, node, -max, -min, q)
        }
        _ => {
            let bell = if name.contains("log") { Bell::LogNormal } else { Bell::Normal };
            Ok(Distribution::Normal { bell, mu: number_or("mu", 0.0)?, sigma: number_or("sigma", 1.0)?, q })
        }
    }
}

/// A logarithmic distribution whose bounds are given as exponents of e.
fn exponents(
    name: &str,
    parameter: Parameter,
    node: &Node,
    low: f64,
    high: f64,
    q: Option<f64>,
) -> Result<Distribution, Complaint> {
    let (min, max) = (low.exp(), high.exp());
    let takes_fractions = matches!(parameter.definition().domain, Domain::Number { .. });
    let place = node.entry("max").map_or(node.place, |(_, node)| node.place);
    if takes_fractions && max > 1.0 {
        let message =
            format!("{name} takes exponents of e, so this draws {} from {min} to {max}", parameter.name());
        return Err(Complaint::new(place, message)
            .help("`log_uniform_values` takes the smallest and the largest value themselves"));
    }
    if low < high && !(min > 0.0 && max.is_finite() && min < max) {
        let message = format!("{name} takes exponents of e, and e to the power of these is {min} and {max}");
        return Err(Complaint::new(place, message).help("use exponents from -700 to 700"));
    }
    Ok(Distribution::Range { scale: Scale::LogUniform, min, max, q })
}

fn categorical(parameter: Parameter, node: &Node) -> Result<Distribution, Complaint> {
    let list = |name| match node.entry(name) {
        Some((key, node)) => match &node.kind {
            Kind::List(nodes) => Ok(Some((key, nodes))),
            _ => Err(wrong_type(key, "a list", node)),
        },
        None => Ok(None),
    };
    let values = match list("values")? {
        Some((_, nodes)) => nodes.iter().map(|node| value(parameter, node)).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let probabilities = match list("probabilities")? {
        Some((key, nodes)) => Some(nodes.iter().map(|node| number(key, node)).collect::<Result<_, _>>()?),
        None => None,
    };
    Ok(Distribution::Categorical { values, probabilities })
}

fn number(key: &Key, node: &Node) -> Result<f64, Complaint> {
    match node.kind {
        Kind::Integer(number) => Ok(number as f64),
        Kind::Float(number) => Ok(number),
        _ => Err(wrong_type(key, "a number", node)),
    }
}

fn whole(key: &Key, node: &Node) -> Result<i64, Complaint> {
    match node.kind {
        Kind::Integer(number) if i64::try_from(number).is_ok() => Ok(number as i64),
        _ => Err(wrong_type(key, "a whole number", node)),
    }
}
