//! A log in memory whose appends meet what a seed draws for them.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fittingroom_common::dataset::Manifest;
use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{Attempt, Name, SearchId, SlotNumber, TrialId, WorkerId};
use fittingroom_common::proto as pb;
use fittingroom_common::time::Timestamp;
use fittingroom_common::view::SearchState;
use fittingroom_coordinator::audit::Audit;
use fittingroom_coordinator::log::{Append, EventLog, Listed, LogError};
use fittingroom_coordinator::search::Search;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use tokio_util::sync::CancellationToken;

use super::Tally;
use crate::disk::Disk;
use crate::scenario::{Chance, Template};

/// What befalls appends, in a thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    fails_before: u64,
    fails_after: u64,
    dies_before: u64,
    dies_after: u64,
    slow: u64,
}

impl Rates {
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let mut sometimes = |most: u64| if chance.happens(500) { chance.within(1, most + 1) } else { 0 };
        Self {
            fails_before: sometimes(200),
            fails_after: sometimes(200),
            dies_before: sometimes(60),
            dies_after: sometimes(60),
            slow: sometimes(700),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Durable,
    FailsBefore,
    FailsAfter,
    DiesBefore,
    DiesAfter,
}

struct Memory {
    disk: Disk,
    audit: Audit,
    chance: Chance,
    rates: Rates,
    is_healed: bool,
    /// The process that appends now; cancelled when it dies.
    process: CancellationToken,
    tally: Tally,
    trace: Option<String>,
}

#[derive(Clone)]
pub(super) struct FaultyLog(Arc<Mutex<Memory>>);

impl FaultyLog {
    /// A log with one search. `seed` decides over its appends.
    pub(super) fn create(template: &Template, rates: Rates, seed: u64, trace: Option<String>) -> Self {
        let fact = Fact::SearchCreated(Box::new(template.created.clone()));
        let created = Event { at: Timestamp::from_millis(0), fact };
        let audit = Audit::of([&created]);
        let mut disk = Disk::default();
        disk.log.push(created);
        Self(Arc::new(Mutex::new(Memory {
            disk,
            audit,
            chance: Chance::new(seed),
            rates,
            is_healed: false,
            process: CancellationToken::new(),
            tally: Tally::default(),
            trace,
        })))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process begins; the answer says when it dies.
    pub(super) fn begin(&self) -> CancellationToken {
        let mut memory = self.memory();
        memory.process = CancellationToken::new();
        memory.tally.lives += 1;
        memory.process.clone()
    }

    /// From now on nothing goes wrong.
    pub(super) fn heal(&self) {
        self.memory().is_healed = true;
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.memory().trace {
            let _ = writeln!(trace, "{}", what());
        }
    }

    pub(super) fn trace(&self) -> Option<String> {
        self.memory().trace.clone()
    }

    pub(super) fn tally(&self) -> Tally {
        self.memory().tally.clone()
    }

    pub(super) fn state(&self) -> Option<SearchState> {
        self.memory().audit.state()
    }

    /// Who holds an attempt, as the events say.
    pub(super) fn holder(&self, attempt: Attempt) -> Option<(WorkerId, SlotNumber)> {
        self.memory().audit.holder(attempt)
    }

    /// What all events say.
    pub(super) fn events<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.memory().disk.log)
    }

    /// Whether there is such an event.
    pub(super) fn has(&self, wish: impl Fn(&Fact) -> bool) -> bool {
        self.events(|events| events.iter().rev().any(|event| wish(&event.fact)))
    }

    /// The search as another process would load it, and whether that was from a snapshot.
    pub(super) fn load(&self) -> Result<(Search, bool), String> {
        self.memory().disk.load()
    }

    /// A rule that the events break, if there is one.
    pub(super) fn finding(&self) -> Option<String> {
        self.memory().audit.findings().first().map(ToString::to_string)
    }
}

impl Memory {
    /// What an append meets, and how often it gives way to others before it does.
    fn draw(&mut self) -> (Fate, u64) {
        self.tally.appends += 1;
        if self.is_healed {
            return (Fate::Durable, 0);
        }
        let Rates { fails_before, fails_after, dies_before, dies_after, slow } = self.rates;
        let fates = [
            (fails_before, Fate::FailsBefore),
            (fails_after, Fate::FailsAfter),
            (dies_before, Fate::DiesBefore),
            (dies_after, Fate::DiesAfter),
        ];
        let struck = fates.into_iter().find(|(rate, _)| self.chance.happens(*rate));
        let is_slow = self.chance.happens(slow);
        self.tally.slow += u64::from(is_slow);
        let pause = if is_slow { self.chance.within(1, 60) } else { 0 };
        (struck.map_or(Fate::Durable, |(_, fate)| fate), pause)
    }

    fn commit(&mut self, append: Append) -> Result<(), LogError> {
        let Append { search, expected_version, events, snapshot } = append;
        if expected_version != self.disk.log.len() as u64 {
            self.tally.conflicts += 1;
            return Err(LogError::Conflict { search, expected: expected_version });
        }
        for event in events {
            self.audit.take(self.disk.log.len() as u64 + 1, &event);
            if let Some(trace) = &mut self.trace {
                let _ = writeln!(trace, "     {:?}", event.fact);
            }
            self.disk.log.push(event);
        }
        snapshot.into_iter().for_each(|snapshot| self.disk.keep(*snapshot));
        Ok(())
    }
}

impl EventLog for FaultyLog {
    fn create(&self, _: Name, _: Event) -> BoxFuture<'_, Result<SearchId, LogError>> {
        async { Err(LogError::Closed) }.boxed()
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let (fate, pause) = self.memory().draw();
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
            self.tell(|| format!("   append at {}: {fate:?}", append.expected_version));
            let process = self.memory().process.clone();
            match fate {
                Fate::Durable => return self.memory().commit(append),
                Fate::FailsBefore => {
                    self.memory().tally.failed_before += 1;
                    return Err(LogError::DiskFull);
                }
                Fate::FailsAfter => {
                    self.memory().tally.failed_after += 1;
                    self.memory().commit(append)?;
                    return Err(LogError::Commit("it is not known whether it is durable".to_owned()));
                }
                Fate::DiesBefore => self.memory().tally.died_before += 1,
                Fate::DiesAfter => {
                    self.memory().tally.died_after += 1;
                    // Nobody hears whether it was.
                    drop(self.memory().commit(append));
                }
            }
            process.cancel();
            pending().await
        }
        .boxed()
    }

    fn searches(&self) -> BoxFuture<'_, Result<Vec<Listed>, LogError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn events(&self, _: SearchId) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        async { Ok(self.memory().disk.log.clone()) }.boxed()
    }

    fn events_after(
        &self,
        _: SearchId,
        version: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        let skipped = usize::try_from(version).unwrap_or(usize::MAX);
        let after = self.memory().disk.log.iter().skip(skipped).take(most).cloned().collect();
        async { Ok(after) }.boxed()
    }

    fn snapshot(&self, _: SearchId) -> BoxFuture<'_, Result<Option<pb::SearchSnapshot>, LogError>> {
        async { Ok(self.memory().disk.head()) }.boxed()
    }

    fn snapshot_trials(
        &self,
        _: SearchId,
        from: TrialId,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<pb::TrialSnapshot>, LogError>> {
        async move { Ok(self.memory().disk.trials(from, most)) }.boxed()
    }

    fn events_of_trial(&self, search: SearchId, _: TrialId) -> BoxFuture<'_, Result<Vec<Event>, LogError>> {
        EventLog::events(self, search)
    }

    fn put_dataset(&self, _: Manifest) -> BoxFuture<'_, Result<(), LogError>> {
        async { Ok(()) }.boxed()
    }

    fn datasets(&self) -> BoxFuture<'_, Result<Vec<Manifest>, LogError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), LogError>> {
        async { Ok(()) }.boxed()
    }

    fn copy(&self, _: PathBuf, _: CancellationToken) -> BoxFuture<'_, Result<(), LogError>> {
        async { Err(LogError::Closed) }.boxed()
    }
}
