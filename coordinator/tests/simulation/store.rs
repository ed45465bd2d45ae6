//! Where a simulated coordinator keeps checkpoints: a store that outlives it, and what it knows of that
//! store in memory. It does what the real one does; the store may lose and damage what it has.

use std::collections::{BTreeMap, BTreeSet};

use fittingroom_common::id::{ArtifactHash, TrialId};
use fittingroom_coordinator::search::Discard;

pub(crate) type Key = (TrialId, ArtifactHash);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blob {
    Good,
    Damaged,
}

#[derive(Default)]
pub(crate) struct Store {
    blobs: BTreeMap<Key, Blob>,
    /// In memory: what is stored and of use, and what is to be deleted.
    known: BTreeSet<Key>,
    useless: BTreeSet<Key>,
    /// What the store itself lost.
    pub(crate) lost: BTreeSet<Key>,
}

impl Store {
    /// The process starts, and looks for what an earlier one left.
    pub(crate) fn sweep(&mut self, kept: impl Iterator<Item = Key>) {
        let kept: BTreeSet<Key> = kept.collect();
        (self.known, self.useless) = self.blobs.keys().copied().partition(|key| kept.contains(key));
    }

    pub(crate) fn put(&mut self, key: Key) {
        self.blobs.insert(key, Blob::Good);
        self.lost.remove(&key);
        self.useless.remove(&key);
        self.known.insert(key);
    }

    /// Whether this is stored; if so, it is not deleted before it is given up again.
    pub(crate) fn claim(&mut self, key: Key) -> bool {
        if self.useless.remove(&key) {
            self.known.insert(key);
        }
        self.blobs.contains_key(&key)
    }

    pub(crate) fn get(&self, key: Key) -> Option<Blob> {
        self.blobs.get(&key).copied()
    }

    pub(crate) fn discard(&mut self, discard: Discard) {
        let useless: Vec<Key> = match discard {
            Discard::One { trial, hash } => self.known.take(&(trial, hash)).into_iter().collect(),
            Discard::All { trial } => self.known.extract_if(.., |(of, _)| *of == trial).collect(),
        };
        self.useless.extend(useless);
    }

    /// What is to be deleted now, one after the other.
    pub(crate) fn useless(&self) -> Vec<Key> {
        self.useless.iter().copied().collect()
    }

    pub(crate) fn delete(&mut self, key: Key) {
        if self.useless.remove(&key) {
            self.blobs.remove(&key);
        }
    }

    /// Harms one of the blobs; answers whether there was one.
    pub(crate) fn harm(&mut self, drawn: u64, harm: Option<Blob>) -> bool {
        let Some(at) = drawn.checked_rem(self.blobs.len() as u64) else { return false };
        let Some(key) = self.blobs.keys().nth(at as usize).copied() else { return false };
        match harm {
            Some(blob) => drop(self.blobs.insert(key, blob)),
            None => {
                self.blobs.remove(&key);
                self.lost.insert(key);
            }
        }
        true
    }

    /// What is stored although nobody will ever look for it.
    pub(crate) fn forgotten(&self) -> Vec<Key> {
        self.blobs.keys().copied().filter(|key| !self.useless.contains(key)).collect()
    }
}
