//! The text of a search file as a tree of YAML nodes, each of which knows where it stands.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned};

use super::error::Complaint;

/// Where a part of the text begins, and how much of its line to mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
    /// In characters.
    pub(super) length: usize,
}

impl Place {
    /// The beginning of the text.
    pub(super) const START: Self = Self { line: 1, column: 1, length: 0 };

    fn of(location: &Location) -> Self {
        let number = |part: u64| usize::try_from(part).unwrap_or(usize::MAX);
        Self {
            line: number(location.line()).max(1),
            column: number(location.column()).max(1),
            length: number(location.span().len()),
        }
    }
}

/// A YAML node and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) place: Place,
}

/// A key of a mapping and where it stands.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

/// What a YAML node is.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Flag(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Kind {
    /// What it is, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

impl Node {
    /// The key of this name, and its value.
    pub(super) fn entry(&self, name: &str) -> Option<(&Key, &Self)> {
        let Kind::Map(entries) = &self.kind else {
            return None;
        };
        entries.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key, node))
    }
}

/// Reads the text. Nesting, size and the expansion of aliases are bounded.
pub(super) fn parse(text: &str) -> Result<Node, Complaint> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            flow_nesting_limit: 32,
            max_nodes: 500_000,
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map_or(Place::START, |location| Place::of(&location));
        let (message, help) = explain(error);
        Complaint { place, message, help }
    })
}

/// The parser's message in the words of this file's reader, and what to do.
fn explain(error: &serde_saphyr::Error) -> (String, Option<String>) {
    use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};
    let message = match error {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("this key");
            return (format!("{key} is given twice"), Some("keep one of the two".to_owned()));
        }
        Error::MultipleDocuments { .. } => {
            let help = "write one search per file, without a second `---`".to_owned();
            return ("a second document begins here".to_owned(), Some(help));
        }
        other => UserMessageFormatter.format_message(other),
    };
    let help = if message.contains("tabs") {
        Some("indent with spaces")
    } else if message.contains("mapping values are not allowed") {
        Some("entries of one mapping begin in the same column; a text that holds `: ` needs quotes")
    } else if message.contains("unclosed") || message.contains("illegal placement") {
        Some("look for a bracket or a quote that is not closed")
    } else {
        None
    };
    (format!("this cannot be read as YAML: {message}"), help.map(str::to_owned))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { kind: spanned.value, place: Place::of(&spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Kind, E> {
        Ok(Kind::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Kind, E> {
        Ok(Kind::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
        Ok(Kind::Integer(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Kind, E> {
        Ok(Kind::Integer(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Kind, E> {
        Ok(i128::try_from(number).map_or(Kind::Float(number as f64), Kind::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Kind, E> {
        Ok(Kind::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Kind::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let place = Place::of(&key.referenced);
            entries.push((Key { text: key.value, place }, map.next_value()?));
        }
        Ok(Kind::Map(entries))
    }
}
