//! What a search file says of checkpoints.

use std::num::NonZeroU32;

use crate::checkpoint::CheckpointRule;

use super::error::Complaint;
use super::read::{unknown_key, whole, wrong_type};
use super::tree::{Key, Kind, Node};

/// Keys of a `checkpoint`.
const KEYS: &[&str] = &["every_epochs", "every_seconds"];

const EXAMPLE: &str = "{every_seconds: 60}, or never";

/// `never`, or a mapping that says after how much training one is made.
pub(super) fn checkpoint(key: &Key, node: &Node) -> Result<CheckpointRule, Complaint> {
    let entries = match &node.kind {
        Kind::Text(text) if text == "never" => return Ok(CheckpointRule::NEVER),
        Kind::Map(entries) => entries,
        _ => return Err(wrong_type(key, &format!("a mapping as {EXAMPLE}"), node)),
    };
    let mut rule = CheckpointRule::NEVER;
    for (key, node) in entries {
        match key.text.as_str() {
            "every_epochs" => rule.every_epochs = Some(from_one(key, node)?),
            "every_seconds" => rule.every_seconds = Some(from_one(key, node)?),
            _ => return Err(unknown_key(key, KEYS, "a checkpoint")),
        }
    }
    if !rule.makes_some() {
        let complaint = Complaint::new(key.place, "`checkpoint` does not say when");
        return Err(complaint.help(format!("write {EXAMPLE}")));
    }
    Ok(rule)
}

fn from_one(key: &Key, node: &Node) -> Result<NonZeroU32, Complaint> {
    NonZeroU32::new(whole(key, node)?).ok_or_else(|| {
        Complaint::new(node.place, format!("`{}` must be at least 1", key.text))
            .help("write `checkpoint: never` for none")
    })
}
