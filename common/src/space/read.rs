//! From the tree of a search file to what the search says: keys, types, names. The rules that need
//! no file are left to [`SearchSpec::new`](super::SearchSpec::new).

use std::path::PathBuf;
use std::time::Duration;

use crate::hyperparameter::{Parameter, nearest};
use crate::id::Name;
use crate::trial::Metric;

use super::error::Complaint;
use super::read_checkpoint::checkpoint;
use super::read_parameters::{constant, parameters, points, unreachable_parameters};
use super::tree::{Key, Kind, Node, Place};
use super::{DatasetChoice, Method, SearchFields};

/// Keys of the top level that say something here.
const KEYS: &[&str] = &[
    "name",
    "description",
    "seed",
    "dataset",
    "method",
    "metric",
    "parameters",
    "points",
    "epochs",
    "run_cap",
    "replicates",
    "max_attempts",
    "max_failed_trials",
    "budget",
    "track_test",
    "checkpoint",
    "early_terminate",
];

/// Keys of W&B's sweeps that mean nothing here.
const IGNORED: &[&str] = &[
    "program",
    "command",
    "project",
    "entity",
    "controller",
    "kind",
    "apiVersion",
    "job",
    "image_uri",
    "scheduler",
];

/// Keys of a metric that mean nothing here.
const IGNORED_OF_METRIC: &[&str] = &["target", "impute", "impute_while_running"];

/// Something to be said of an accepted part of the file.
pub(super) type Remark = (Place, String);

/// What the file says, and remarks on it.
pub(super) fn read(root: &Node) -> Result<(SearchFields, Vec<Remark>), Complaint> {
    let entries = match &root.kind {
        Kind::Map(entries) => entries,
        Kind::Null => {
            return Err(Complaint::new(Place::START, "this search file is empty").help(
                "begin with `method: random`, `run_cap: 20` and `parameters:`; deploy/searches has examples",
            ));
        }
        other => {
            let message =
                format!("a search file is a mapping of keys to values, but this is {}", other.describe());
            return Err(Complaint::new(root.place, message).help("write it as `key: value` lines"));
        }
    };
    let mut fields = SearchFields::default();
    let mut remarks = Vec::new();
    let mut method = None;
    let mut epochs = None;
    for (key, node) in entries {
        match key.text.as_str() {
            "name" => fields.name = Some(name(node, &mut remarks)?),
            "description" => fields.description = text(key, node)?.to_owned(),
            "seed" => fields.seed = whole(key, node)?,
            "dataset" => fields.dataset = dataset(key, node)?,
            "method" => method = Some(read_method(key, node)?),
            "metric" => fields.metric = metric(key, node, &mut remarks)?,
            "parameters" => fields.space.dimensions = parameters(key, node, &mut remarks)?,
            "points" => fields.points = points(key, node)?,
            "epochs" => epochs = Some(constant("epochs", key, node)?),
            "run_cap" => fields.run_cap = Some(whole(key, node)?),
            "replicates" => fields.replicates = whole(key, node)?,
            "max_attempts" => fields.max_attempts = whole(key, node)?,
            "max_failed_trials" => fields.max_failed_trials = Some(whole(key, node)?),
            "budget" => fields.budget = Some(budget(key, node)?),
            "track_test" => fields.track_test = flag(key, node)?,
            "checkpoint" => fields.checkpoint = checkpoint(key, node)?,
            "early_terminate" => remarks.push((
                key.place,
                "every trial runs all its epochs: early termination is not available yet".to_owned(),
            )),
            ignored if IGNORED.contains(&ignored) => {
                remarks.push((key.place, format!("`{ignored}` means nothing here and is left aside")));
            }
            _ => return Err(unknown_key(key, KEYS, "a search file")),
        }
    }
    let points_are_listed = root.entry("points").is_some();
    if fields.space.dimensions.is_empty() && !points_are_listed {
        return Err(Complaint::new(Place::START, "the search has no `parameters`")
            .help("add `parameters:` with at least one hyperparameter, or a list of `points:`"));
    }
    fields.space.dimensions.extend(epochs);
    fields.method = match method {
        Some(method) => method,
        None if points_are_listed => Method::Points,
        None => {
            return Err(Complaint::new(Place::START, "the search does not say its `method`")
                .help("add `method: grid` or `method: random`"));
        }
    };
    remarks.extend(unreachable_parameters(root, &fields.space));
    Ok((fields, remarks))
}

/// A key that is not known where it stands.
pub(super) fn unknown_key(key: &Key, known: &'static [&'static str], of: &str) -> Complaint {
    let shown: String = key.text.chars().take(80).collect();
    let complaint = Complaint::new(key.place, format!("{of} has no key {shown:?}"));
    if Parameter::find(&key.text).is_ok() {
        return complaint.help("hyperparameters stand under `parameters:`");
    }
    complaint.help(match nearest(&key.text, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? The keys are {}", known.join(", ")),
        None => format!("the keys are {}", known.join(", ")),
    })
}

/// A value of another type than its key takes.
pub(super) fn wrong_type(key: &Key, takes: &str, node: &Node) -> Complaint {
    let complaint =
        Complaint::new(node.place, format!("`{}` takes {takes}, not {}", key.text, node.kind.describe()));
    match &node.kind {
        Kind::Text(text) if text.parse::<f64>().is_ok() => complaint.help("take the quotes away"),
        _ => complaint,
    }
}

pub(super) fn text<'a>(key: &Key, node: &'a Node) -> Result<&'a str, Complaint> {
    match &node.kind {
        Kind::Text(text) => Ok(text),
        _ => Err(wrong_type(key, "a text", node)),
    }
}

fn flag(key: &Key, node: &Node) -> Result<bool, Complaint> {
    match node.kind {
        Kind::Flag(flag) => Ok(flag),
        _ => Err(wrong_type(key, "true or false", node)),
    }
}

pub(super) fn whole<N: TryFrom<i128>>(key: &Key, node: &Node) -> Result<N, Complaint> {
    match node.kind {
        Kind::Integer(number) => {
            N::try_from(number).map_err(|_| wrong_type(key, "a smaller whole number from 0 up", node))
        }
        _ => Err(wrong_type(key, "a whole number", node)),
    }
}

fn name(node: &Node, remarks: &mut Vec<Remark>) -> Result<Name, Complaint> {
    let written = match &node.kind {
        Kind::Text(text) => text.clone(),
        Kind::Integer(number) => number.to_string(),
        other => {
            return Err(Complaint::new(node.place, format!("`name` takes a text, not {}", other.describe())));
        }
    };
    // W&B allows any text here, and such a file is to parse.
    Ok(written.parse().unwrap_or_else(|_| {
        let name = Name::sanitised(&written);
        remarks.push((node.place, format!("the search will be called {name}")));
        name
    }))
}

fn dataset(key: &Key, node: &Node) -> Result<DatasetChoice, Complaint> {
    let written = text(key, node)?;
    if written.contains('/') || written.starts_with('.') {
        return Ok(DatasetChoice::Folder(PathBuf::from(written)));
    }
    written.parse().map(DatasetChoice::Named).map_err(|error| {
        Complaint::new(node.place, error.to_string())
            .help("a folder is written with a `/`, as in ./my-images")
    })
}

fn read_method(key: &Key, node: &Node) -> Result<Method, Complaint> {
    let written = text(key, node)?;
    Method::ALL.into_iter().find(|method| method.name() == written).ok_or_else(|| {
        let complaint = Complaint::new(node.place, format!("there is no method {written:?} yet"));
        match nearest(written, Method::ALL.map(Method::name)) {
            Some(name) => complaint.help(format!("did you mean `{name}`?")),
            None => complaint.help("grid and random are available, and a list of `points`"),
        }
    })
}

fn metric(key: &Key, node: &Node, remarks: &mut Vec<Remark>) -> Result<Metric, Complaint> {
    let entries = match &node.kind {
        Kind::Text(_) => return metric_name(key, node),
        Kind::Map(entries) => entries,
        _ => {
            return Err(wrong_type(key, "a mapping as {name: validation_accuracy, goal: maximize}", node));
        }
    };
    let mut metric = Metric::ValidationAccuracy;
    for (key, node) in entries {
        match key.text.as_str() {
            "name" => metric = metric_name(key, node)?,
            "goal" => {}
            ignored if IGNORED_OF_METRIC.contains(&ignored) => {
                remarks
                    .push((key.place, format!("`{ignored}` of a metric means nothing here: all trials run")));
            }
            _ => return Err(unknown_key(key, &["name", "goal"], "a metric")),
        }
    }
    let goal = match metric {
        Metric::ValidationAccuracy => "maximize",
        Metric::ValidationLoss => "minimize",
    };
    match node.entry("goal") {
        Some((key, node)) if text(key, node)? != goal => {
            let message = format!("the goal for {metric} cannot be {}", node.kind.describe());
            Err(Complaint::new(node.place, message).help(format!("write `goal: {goal}`, or leave it out")))
        }
        _ => Ok(metric),
    }
}

fn metric_name(key: &Key, node: &Node) -> Result<Metric, Complaint> {
    let written = text(key, node)?;
    if let Some(metric) = Metric::ALL.into_iter().find(|metric| metric.name() == written) {
        return Ok(metric);
    }
    let lower = written.to_lowercase();
    let meant = if lower.contains("acc") {
        Some(Metric::ValidationAccuracy)
    } else if lower.contains("loss") {
        Some(Metric::ValidationLoss)
    } else {
        None
    };
    let help = match meant {
        Some(metric) => format!("did you mean `{metric}`?"),
        None => format!("the metrics are {}", Metric::ALL.map(Metric::name).join(" and ")),
    };
    let message = if lower.starts_with("test") {
        format!("trials are never ranked by the test set, so {written:?} cannot be the metric")
    } else if lower.starts_with("train") {
        format!("trials are ranked on the validation set, so {written:?} cannot be the metric")
    } else {
        format!("there is no metric {written:?}")
    };
    Err(Complaint::new(node.place, message).help(help))
}

fn budget(key: &Key, node: &Node) -> Result<Duration, Complaint> {
    let wrong = || {
        wrong_type(key, "a time with its unit", node)
            .help("write, say, \"90s\", \"30m\", \"2h\", \"1h30m\" or \"1d\"")
    };
    let Kind::Text(text) = &node.kind else {
        return Err(wrong());
    };
    let mut seconds = 0u64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(unit_at);
        let unit = tail.chars().next().ok_or_else(wrong)?;
        let unit_seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        seconds = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_seconds)?.checked_add(seconds))
            .filter(|seconds| *seconds < 1 << 40)
            .ok_or_else(wrong)?;
        rest = &tail[unit.len_utf8()..];
    }
    if text.trim().is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}
