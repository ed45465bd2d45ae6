//! From the entries of `parameters` and `points` in a search file to hyperparameters and their values.

use crate::hyperparameter::{Domain, Hyperparameters, Parameter, Value, ValueError};

use super::error::Complaint;
use super::read::{Remark, wrong_type};
use super::read_distribution::distribution;
use super::tree::{Key, Kind, Node};
use super::{Condition, Dimension, Distribution, Space};

/// A hyperparameter that stands at the top level with its value.
pub(super) fn constant(name: &str, key: &Key, node: &Node) -> Result<Dimension, Complaint> {
    if matches!(node.kind, Kind::Map(_) | Kind::List(_)) {
        return Err(wrong_type(key, "one number", node)
            .help(format!("to search it, write `{name}:` under `parameters:`")));
    }
    let parameter = find(key)?;
    let distribution = Distribution::Constant(value(parameter, node)?);
    Ok(Dimension { parameter, distribution, when: Vec::new() })
}

/// The entries of `parameters`.
pub(super) fn parameters(
    key: &Key,
    node: &Node,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<Dimension>, Complaint> {
    let Kind::Map(entries) = &node.kind else {
        return Err(wrong_type(key, "a mapping of hyperparameters", node));
    };
    entries
        .iter()
        .map(|(key, node)| {
            let parameter = find(key)?;
            let distribution = distribution(parameter, key, node, remarks)?;
            let when = node.entry("when").map_or(Ok(Vec::new()), |(key, node)| conditions(key, node))?;
            Ok(Dimension { parameter, distribution, when })
        })
        .collect()
}

fn conditions(key: &Key, node: &Node) -> Result<Vec<Condition>, Complaint> {
    let Kind::Map(entries) = &node.kind else {
        return Err(wrong_type(key, "a mapping as {optimizer: [sgd, rmsprop]}", node));
    };
    entries
        .iter()
        .map(|(key, node)| {
            let parameter = find(key)?;
            let is_sizes = matches!(parameter.definition().domain, Domain::Sizes { .. });
            let values = match &node.kind {
                Kind::List(nodes)
                    if !is_sizes || nodes.iter().any(|node| matches!(node.kind, Kind::List(_))) =>
                {
                    nodes.iter().map(|node| value(parameter, node)).collect::<Result<_, _>>()?
                }
                _ => vec![value(parameter, node)?],
            };
            Ok(Condition { parameter, values })
        })
        .collect()
}

/// The entries of `points`.
pub(super) fn points(key: &Key, node: &Node) -> Result<Vec<Hyperparameters>, Complaint> {
    let Kind::List(nodes) = &node.kind else {
        return Err(wrong_type(key, "a list of points", node)
            .help("write each as `- {optimizer: adam, learning_rate: 0.001}`"));
    };
    nodes
        .iter()
        .map(|node| {
            let Kind::Map(entries) = &node.kind else {
                let message =
                    format!("a point is a mapping of hyperparameters, not {}", node.kind.describe());
                return Err(Complaint::new(node.place, message)
                    .help("write it as `- {optimizer: adam, learning_rate: 0.001}`"));
            };
            let mut point = Hyperparameters::new();
            for (key, node) in entries {
                let parameter = find(key)?;
                let value = value(parameter, node)?;
                point
                    .set(parameter, &value)
                    .map_err(|error| Complaint::new(node.place, error.to_string()))?;
            }
            Ok(point)
        })
        .collect()
}

fn find(key: &Key) -> Result<Parameter, Complaint> {
    Parameter::find(&key.text).map_err(|error| {
        let names: Vec<&str> = Parameter::all().map(Parameter::name).collect();
        Complaint::new(key.place, error.to_string())
            .help(format!("the hyperparameters are {}", names.join(", ")))
    })
}

/// A node as the value of a hyperparameter.
pub(super) fn value(parameter: Parameter, node: &Node) -> Result<Value, Complaint> {
    let result = match &node.kind {
        Kind::Text(word) => parameter.choice(word),
        Kind::Flag(flag) => parameter.flag(*flag),
        Kind::Integer(number) => match i64::try_from(*number) {
            Ok(number) => parameter.integer(number),
            Err(_) => parameter.number(*number as f64),
        },
        Kind::Float(number) => parameter.number(*number),
        Kind::List(nodes) => {
            let sizes: Option<Vec<u32>> = nodes
                .iter()
                .map(|node| match node.kind {
                    Kind::Integer(size) => u32::try_from(size).ok(),
                    _ => None,
                })
                .collect();
            sizes.map_or_else(|| Err(wrong_kind(parameter, node)), |sizes| parameter.sizes(&sizes))
        }
        Kind::Null | Kind::Map(_) => Err(wrong_kind(parameter, node)),
    };
    result.map_err(|error| {
        let complaint = Complaint::new(node.place, error.to_string());
        match (&node.kind, parameter.definition().domain) {
            (Kind::Text(text), Domain::Number { .. } | Domain::Integer { .. })
                if text.parse::<f64>().is_ok() =>
            {
                complaint.help("take the quotes away")
            }
            (Kind::Integer(_), Domain::Sizes { .. }) => {
                complaint.help("write a list, even of one size: [300]; `values` then is a list of lists")
            }
            _ => complaint,
        }
    })
}

fn wrong_kind(parameter: Parameter, node: &Node) -> ValueError {
    ValueError::WrongKind {
        name: parameter.name(),
        given: node.kind.describe(),
        domain: parameter.definition().domain,
    }
}

/// Remarks on conditions that none of their controller's values can meet.
pub(super) fn unreachable_parameters(root: &Node, space: &Space) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for dimension in &space.dimensions {
        for condition in &dimension.when {
            let Some(controller) = space.find(condition.parameter) else {
                continue;
            };
            let can_hold = (0..controller.distribution.size().unwrap_or(0)).any(|index| {
                let value = controller.distribution.value(condition.parameter, index);
                value.is_some_and(|value| condition.values.contains(&value))
            });
            let name = dimension.parameter.name();
            if let Some((key, _)) = root.entry("parameters").and_then(|(_, node)| node.entry(name))
                && !can_hold
            {
                let controller = condition.parameter.name();
                remarks.push((
                    key.place,
                    format!("no trial has {name}: {controller} never has the value that its `when` asks for"),
                ));
            }
        }
    }
    remarks
}
