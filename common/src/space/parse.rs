//! From the text of a search file to a [`SearchSpec`]: syntax, then types and names, then the rules.

use super::error::{Complaint, Note, SpaceError};
use super::notes::remarks_on;
use super::tree::{Kind, Node, Place};
use super::{MAX_FILE_BYTES, Path, Problem, SearchSpec, SpecError, Step, read, tree};

/// A search file that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The search.
    pub spec: SearchSpec,
    /// What was accepted, but means nothing here or was hardly meant so; in the file's order.
    pub notes: Vec<Note>,
}

impl SearchSpec {
    /// Reads the text of a search file. `file_name` is for messages alone.
    pub fn parse(file_name: &str, text: &str) -> Result<Parsed, SpaceError> {
        accept(text).map_err(|complaint| SpaceError::new(file_name, text, complaint))
    }

    /// Reads the bytes of a search file, which must be UTF-8.
    pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Parsed, SpaceError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(file_name, text),
            Err(error) => {
                let (good, _) = bytes.split_at(error.valid_up_to().min(bytes.len()));
                let good = String::from_utf8_lossy(good);
                let line = good.matches('\n').count() + 1;
                let column = good.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
                let complaint = Complaint::new(Place { line, column, length: 1 }, "this is not UTF-8 text")
                    .help("a search file is a text; save it as UTF-8");
                Err(SpaceError::new(file_name, &String::from_utf8_lossy(bytes), complaint))
            }
        }
    }
}

fn accept(text: &str) -> Result<Parsed, Complaint> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; a search file may have {MAX_FILE_BYTES}", text.len());
        return Err(Complaint::new(Place::START, message)
            .help("describe values by distributions, or split the points over several searches"));
    }
    let root = tree::parse(text)?;
    let (fields, mut remarks) = read::read(&root)?;
    let spec = SearchSpec::new(fields).map_err(|SpecError { path, problem }| {
        let complaint = Complaint::new(locate(&root, &path), message_of(&path, &problem));
        match problem.help() {
            Some(help) => complaint.help(help),
            None => complaint,
        }
    })?;
    remarks.extend(remarks_on(&spec).into_iter().map(|(path, message)| (locate(&root, &path), message)));
    remarks.sort_by_key(|(place, _)| (place.line, place.column));
    let notes = remarks
        .into_iter()
        .map(|(place, message)| Note { message, line: place.line, column: place.column })
        .collect();
    Ok(Parsed { spec, notes })
}

/// The message of a broken rule; where it does not say which key it is about, that key too.
fn message_of(path: &Path, problem: &Problem) -> String {
    match problem {
        Problem::Value(_) | Problem::GivenTwice { .. } => problem.to_string(),
        _ => format!("{path}: {problem}"),
    }
}

/// Where a part of the search stands in the file, or the nearest part around it that does.
/// A scalar is pointed at itself; what spans lines, at its key.
fn locate(root: &Node, path: &Path) -> Place {
    let mut steps = path.0.as_slice();
    // `epochs` may stand at the top as well.
    if let [Step::Key("parameters"), rest @ ..] = steps
        && let [Step::Key(name), ..] = rest
        && root.entry("parameters").and_then(|(_, node)| node.entry(name)).is_none()
        && root.entry(name).is_some()
    {
        steps = rest;
    }
    let mut node = root;
    let mut place = Place::START;
    for step in steps {
        let below = match (step, &node.kind) {
            (Step::Key(name), _) => node.entry(name).map(|(key, node)| (Some(key.place), node)),
            (Step::Index(index), Kind::List(nodes)) => nodes.get(*index).map(|node| (None, node)),
            (Step::Index(_), _) => None,
        };
        let Some((key, found)) = below else { break };
        node = found;
        place = match (key, &node.kind) {
            (Some(key), Kind::Map(_) | Kind::List(_)) => key,
            _ => node.place,
        };
    }
    place
}
