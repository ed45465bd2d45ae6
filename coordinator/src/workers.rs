//! The workers that are connected now. In memory alone: after a restart they register again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fittingroom_common::gpu::GpuLoad;
use fittingroom_common::id::{Name, SlotNumber, WorkerId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::view::WorkerRow;
use fittingroom_common::work::{Holder, WorkerInfo};

use crate::access::TokenId;

/// The most workers that are remembered at a time.
const MOST_WORKERS: usize = 100_000;
/// The most of them whose GPUs are remembered, which have at most 64 each.
const MOST_GPU_WORKERS: usize = 1024;
/// How often all of them are looked through for silent ones.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Whether all workers are to be looked through for silent ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    /// If that has not been done for a while.
    WhenDue,
    /// In any case.
    Now,
}

#[derive(Clone, Debug)]
struct Entry {
    info: WorkerInfo,
    heard: Timestamp,
    busy: u32,
    draining: bool,
    /// The token that it registered with, where calls need one.
    token: Option<TokenId>,
}

#[derive(Debug, Default)]
struct Known {
    entries: BTreeMap<WorkerId, Entry>,
    /// How busy the GPUs of some of them are; of others for at most a sweep.
    gpus: BTreeMap<WorkerId, Vec<GpuLoad>>,
    /// When those that are silent for too long were last forgotten.
    swept: Option<Timestamp>,
}

/// How many workers are connected, and what they have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerTotals {
    /// The workers.
    pub workers: u64,
    /// Those of them that take no new work.
    pub draining: u64,
    /// Their slots.
    pub slots: u64,
    /// The slots that had work at the last heartbeat.
    pub busy: u64,
}

/// Why a worker is not taken as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// It never registered, was silent for long, or the coordinator was restarted.
    #[error("unknown worker: register again")]
    Unknown,
    /// It has no such slot.
    #[error("worker {name} has {slots} slots, numbered from 0; it has no slot {slot}")]
    NoSuchSlot {
        /// The worker.
        name: Name,
        /// How many it has.
        slots: u32,
        /// The one that was named.
        slot: SlotNumber,
    },
    /// It registered with another token.
    #[error("worker {name} registered with another token, and only that one speaks for it")]
    NotYours {
        /// The worker.
        name: Name,
    },
    /// There are too many.
    #[error("the coordinator has {MOST_WORKERS} workers and takes no more")]
    TooMany,
}

/// The workers that are connected now.
#[derive(Debug)]
pub struct Workers {
    known: Mutex<Known>,
    /// How long a silent worker is remembered.
    patience: Duration,
}

impl Workers {
    /// No workers yet. A worker that is silent for `patience` is forgotten.
    pub fn new(patience: Duration) -> Self {
        Self { known: Mutex::default(), patience }
    }

    /// What is known, without those that are silent for too long. Looking through all is for every so
    /// often: thousands of workers are heard thousands of times a second.
    fn known(&self, now: Timestamp, sweep: Sweep) -> MutexGuard<'_, Known> {
        // A panic while the lock was held leaves a map that is still whole.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = known.swept.is_none_or(|swept| now.since(swept) >= SWEEP_EVERY);
        if is_due || sweep == Sweep::Now {
            let Known { entries, gpus, .. } = &mut *known;
            entries.retain(|_, entry| now.since(entry.heard) < self.patience);
            gpus.retain(|id, _| entries.contains_key(id));
            known.swept = Some(now);
        }
        known
    }

    /// One worker, if it is not silent for too long.
    fn entry<'a>(
        &self,
        known: &'a mut Known,
        id: WorkerId,
        now: Timestamp,
    ) -> Result<&'a mut Entry, WorkerError> {
        let entry = known.entries.get_mut(&id).ok_or(WorkerError::Unknown)?;
        if now.since(entry.heard) < self.patience { Ok(entry) } else { Err(WorkerError::Unknown) }
    }

    /// Makes a worker known; from now on only calls with the same token speak for it.
    pub fn register(
        &self,
        info: WorkerInfo,
        token: Option<TokenId>,
        now: Timestamp,
    ) -> Result<(), WorkerError> {
        self.check(info.id, token)?;
        let mut known = self.known(now, Sweep::WhenDue);
        if known.entries.len() >= MOST_WORKERS && !known.entries.contains_key(&info.id) {
            return Err(WorkerError::TooMany);
        }
        known.entries.insert(info.id, Entry { info, heard: now, busy: 0, draining: false, token });
        Ok(())
    }

    /// Whether a call with this token may speak for a worker. One that is not known, or registered when
    /// no token was needed, is known by its id alone, which nobody else was told.
    pub fn check(&self, id: WorkerId, token: Option<TokenId>) -> Result<(), WorkerError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.entries.get(&id) {
            Some(entry) if entry.token.is_some() && entry.token != token => {
                Err(WorkerError::NotYours { name: entry.info.name.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a worker is remembered.
    pub fn knows(&self, id: WorkerId) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).entries.contains_key(&id)
    }

    /// Forgets those that registered when no token was needed, and answers who they are.
    pub fn forget_strangers(&self) -> Vec<WorkerId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let strangers = known.entries.extract_if(.., |_, entry| entry.token.is_none());
        strangers.map(|(id, _)| id).collect()
    }

    /// Notes a heartbeat: how many slots are busy, and whether the worker takes new work.
    pub fn heard(&self, id: WorkerId, busy: u32, draining: bool, now: Timestamp) -> Result<(), WorkerError> {
        let mut known = self.known(now, Sweep::WhenDue);
        let entry = self.entry(&mut known, id, now)?;
        entry.heard = now;
        entry.busy = busy;
        entry.draining = draining;
        Ok(())
    }

    /// Notes how busy a worker's GPUs are, instead of what was noted of them before. Beyond so many workers
    /// nothing is noted of another's.
    pub fn note_gpus(&self, id: WorkerId, gpus: Vec<GpuLoad>, now: Timestamp) -> Result<(), WorkerError> {
        let mut known = self.known(now, Sweep::WhenDue);
        self.entry(&mut known, id, now)?;
        if gpus.is_empty() {
            known.gpus.remove(&id);
        } else if known.gpus.len() < MOST_GPU_WORKERS || known.gpus.contains_key(&id) {
            known.gpus.insert(id, gpus);
        }
        Ok(())
    }

    /// How busy the GPUs of the connected workers are, each with its worker's name.
    pub fn gpus(&self, now: Timestamp) -> Vec<(Name, GpuLoad)> {
        let known = self.known(now, Sweep::Now);
        let named =
            known.gpus.iter().filter_map(|(id, gpus)| Some((&known.entries.get(id)?.info.name, gpus)));
        named.flat_map(|(name, gpus)| gpus.iter().map(|gpu| (name.clone(), gpu.clone()))).collect()
    }

    /// The holder that a worker's slot is.
    pub fn holder(&self, id: WorkerId, slot: SlotNumber, now: Timestamp) -> Result<Holder, WorkerError> {
        let mut known = self.known(now, Sweep::WhenDue);
        let entry = self.entry(&mut known, id, now)?;
        entry.heard = now;
        let name = entry.info.name.clone();
        if slot.get() >= entry.info.slots {
            return Err(WorkerError::NoSuchSlot { name, slots: entry.info.slots, slot });
        }
        Ok(Holder { worker: id, name, slot })
    }

    /// The workers that are connected, by name.
    pub fn rows(&self, now: Timestamp) -> Vec<WorkerRow> {
        let known = self.known(now, Sweep::Now);
        let mut rows: Vec<WorkerRow> = known
            .entries
            .values()
            .map(|entry| WorkerRow {
                name: entry.info.name.clone(),
                id: entry.info.id,
                device: entry.info.device.clone(),
                slots: entry.info.slots,
                busy: entry.busy,
                program_version: entry.info.program_version.clone(),
                silent: now.since(entry.heard),
                draining: entry.draining,
                gpus: known.gpus.get(&entry.info.id).cloned().unwrap_or_default(),
            })
            .collect();
        drop(known);
        rows.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        rows
    }

    /// How many workers are connected, and what they have together.
    pub fn totals(&self, now: Timestamp) -> WorkerTotals {
        let mut totals = WorkerTotals::default();
        for entry in self.known(now, Sweep::Now).entries.values() {
            totals.workers += 1;
            totals.draining += u64::from(entry.draining);
            totals.slots += u64::from(entry.info.slots);
            totals.busy += u64::from(entry.busy.min(entry.info.slots));
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use fittingroom_common::gpu::GpuWords;

    use super::*;

    #[test]
    fn gpus_are_remembered_of_so_many_connected_workers() {
        let workers = Workers::new(Duration::from_secs(10));
        let at = |seconds: i64| Timestamp::from_millis(1000 * seconds);
        let words = GpuWords::sanitised("x");
        let gpu = GpuLoad { number: 0, uuid: words.clone(), name: words, utilization: None, memory: None };
        let join = |number: usize, now| {
            let info = WorkerInfo {
                id: WorkerId::new(number as u128),
                name: Name::sanitised("x"),
                slots: 1,
                device: String::new(),
                program_version: String::new(),
            };
            workers.register(info, None, now).expect("joins");
        };
        let tell = |number: usize, now| {
            let told = workers.note_gpus(WorkerId::new(number as u128), vec![gpu.clone()], now);
            told.map(|()| workers.gpus(now).len())
        };
        assert_eq!(tell(0, at(0)), Err(WorkerError::Unknown));
        (0..=MOST_GPU_WORKERS).for_each(|number| join(number, at(0)));
        for number in 0..=MOST_GPU_WORKERS {
            assert_eq!(tell(number, at(1)), Ok((number + 1).min(MOST_GPU_WORKERS)));
        }
        assert_eq!(tell(0, at(2)), Ok(MOST_GPU_WORKERS), "those who are told of go on to be");
        let shown = workers.rows(at(2)).into_iter().filter(|row| row.gpus == [gpu.clone()]).count();
        assert_eq!(shown, MOST_GPU_WORKERS);
        join(MOST_GPU_WORKERS, at(5));
        assert_eq!(workers.gpus(at(12)), [], "they are gone with their workers");
        assert_eq!(tell(MOST_GPU_WORKERS, at(12)), Ok(1), "and leave room to others");
    }
}
