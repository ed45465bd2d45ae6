//! The simulated coordinator: the real core between a mailbox and a log that may fail. It does with
//! them what the runner does, without its tasks and channels.

mod promises;

use std::collections::BTreeMap;
use std::fmt::Write;

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{Attempt, SlotNumber, WorkerId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::work::{Holder, Outcome, Work};
use fittingroom_coordinator::audit::Audit;
use fittingroom_coordinator::search::{Command, Discard, Rejection, Search, Snapshot};

use crate::disk::Disk;
use crate::message::{Answer, Call, Caller, Given};
use crate::scenario::{LEASE, Scenario, Template};
use crate::store::{Key, Store};
use promises::{Said, tell};

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fortune {
    Durable,
    /// The disk says no.
    Fails,
    /// The process dies before anything is durable.
    DiesBefore,
    /// The process dies when everything is durable, and answers nobody.
    DiesAfter,
}

/// What the coordinator knows in memory.
pub(crate) struct Live {
    pub(crate) search: Search,
    /// When it last looked into its mailbox, by its own clock.
    looked: Timestamp,
    pub(crate) mailbox: Vec<Call>,
    pub(crate) is_looking: bool,
}

pub(crate) struct Coordinator {
    /// What is durable.
    pub(crate) disk: Disk,
    pub(crate) store: Store,
    pub(crate) audit: Audit,
    pub(crate) live: Option<Live>,
    /// Which run of the process it is.
    pub(crate) run: u64,
    /// What its clock is ahead of the true time, in milliseconds. Steps only while it is not running,
    /// as the real one reads the machine's clock only when it starts.
    pub(crate) clock_ahead: i64,
    /// Since when every lease has had its grace, in true time.
    listening_since: u64,
    /// When an attempt was last heard of, in true time.
    heard: BTreeMap<Attempt, u64>,
    /// Which slot an attempt was given to, whether or not that became durable.
    given: BTreeMap<Attempt, (WorkerId, SlotNumber)>,
    snapshot_every: u64,
    snapshot_most: usize,
    /// How often a search was loaded from a snapshot.
    pub(crate) restored: u64,
}

/// What comes of a look into the mailbox.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) answers: Vec<(Caller, Answer)>,
    /// Checkpoints whose bytes come now.
    pub(crate) uploads: Vec<(Caller, Attempt, Checkpoint)>,
    /// Whether there is something to delete.
    pub(crate) deletes: bool,
}

impl Coordinator {
    pub(crate) fn launch(template: &Template, scenario: &Scenario, now: u64) -> Self {
        let mut it = Self {
            disk: Disk::default(),
            store: Store::default(),
            audit: Audit::default(),
            live: None,
            run: 0,
            clock_ahead: 1_800_000_000_000,
            listening_since: now,
            heard: BTreeMap::new(),
            given: BTreeMap::new(),
            snapshot_every: scenario.snapshot_every,
            snapshot_most: scenario.snapshot_most,
            restored: 0,
        };
        let created =
            Event { at: it.clock(now), fact: Fact::SearchCreated(Box::new(template.created.clone())) };
        it.audit.take(1, &created);
        it.disk.log.push(created);
        it
    }

    fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_millis(self.clock_ahead.saturating_add_unsigned(now))
    }

    /// Starts the process: loads the search, gives every lease its grace, and looks for checkpoints that
    /// nobody keeps.
    pub(crate) fn start(&mut self, now: u64) -> Result<(), String> {
        self.run += 1;
        let search = self.loaded(now)?;
        self.store.sweep(search.checkpoints());
        self.live = Some(Live { search, looked: self.clock(now), mailbox: Vec::new(), is_looking: false });
        Ok(())
    }

    fn loaded(&mut self, now: u64) -> Result<Search, String> {
        let (mut search, is_restored) = self.disk.load()?;
        self.restored += u64::from(is_restored);
        search.grant_grace(self.clock(now));
        self.listening_since = now;
        if search.summary().counts != self.audit.counts() || search.leases() != self.audit.leases() {
            return Err("the loaded search differs from the audit's account".to_owned());
        }
        Ok(search)
    }

    /// Takes everything out of the mailbox: decides all, appends once, answers all. Answers `None` if
    /// the process died of it.
    pub(crate) fn take(
        &mut self,
        now: u64,
        fortune: Fortune,
        trace: &mut Option<String>,
    ) -> Result<Option<Taken>, String> {
        let at = self.clock(now);
        let Some(mut live) = self.live.take() else { return Ok(Some(Taken::default())) };
        live.is_looking = false;
        if at.since(live.looked) > LEASE / 2 {
            live.search.grant_grace(at);
            self.listening_since = now;
        }
        live.looked = at;
        let mut events = Vec::new();
        let (mut answers, mut renewals, mut transfers) = (Vec::new(), Vec::new(), Vec::new());
        for call in std::mem::take(&mut live.mailbox) {
            match call {
                Call::Lease(from, slot) => {
                    let name = live.search.created().name.clone();
                    let holder = Holder { worker: from.worker, name, slot };
                    let decided = self.decide(&mut live.search, Command::Lease { holder }, now)?;
                    events.extend(decided.map_err(|rejection| format!("a lease is refused: {rejection}"))?);
                    let given = live.search.assignment(from.worker, slot).map(|it| Given {
                        attempt: it.id.attempt,
                        evaluates: matches!(it.work, Work::Evaluate { .. }),
                        resume_from: match it.work {
                            Work::Train { resume_from, .. } => resume_from,
                            Work::Evaluate { .. } => Vec::new(),
                        },
                    });
                    if let Some(given) = &given {
                        // Also one that it had: the answer before may be lost, and its time runs anew.
                        self.heard.insert(given.attempt, now);
                    }
                    answers.push((from, Answer::Leased(given), None));
                }
                Call::Report(from, attempt, report) => {
                    let command = Command::Report { attempt, worker: from.worker, report };
                    let decided = self.decide(&mut live.search, command, now)?;
                    let answer = self.answer(decided, (attempt, from.worker), &mut events, || {
                        Answer::Reported(live.search.wants_model(attempt))
                    })?;
                    answers.push((from, answer, Some((attempt, Said::Epoch(report.epoch)))));
                }
                Call::Complete(from, attempt, outcome) => {
                    let said = match &outcome {
                        Outcome::Trained { .. } => Said::Trained,
                        Outcome::Evaluated(_) | Outcome::Failed(_) | Outcome::Released => Said::Other,
                    };
                    let command = Command::Complete { attempt, worker: from.worker, outcome };
                    let decided = self.decide(&mut live.search, command, now)?;
                    let answer =
                        self.answer(decided, (attempt, from.worker), &mut events, || Answer::Completed)?;
                    answers.push((from, answer, Some((attempt, said))));
                }
                Call::Keep(from, attempt, checkpoint) => {
                    let command = Command::KeepCheckpoint { attempt, worker: from.worker, checkpoint };
                    let decided = self.decide(&mut live.search, command, now)?;
                    let answer =
                        self.answer(decided, (attempt, from.worker), &mut events, || Answer::Kept)?;
                    answers.push((from, answer, Some((attempt, Said::Checkpoint(checkpoint)))));
                }
                Call::Lose(from, attempt, hash) => {
                    let (worker, problem) = (from.worker, String::new());
                    let command = Command::LoseCheckpoint { attempt, worker, hash, problem };
                    let decided = self.decide(&mut live.search, command, now)?;
                    let answer =
                        self.answer(decided, (attempt, from.worker), &mut events, || Answer::Lost)?;
                    answers.push((from, answer, Some((attempt, Said::Other))));
                }
                Call::Upload(from, attempt, _) | Call::Fetch(from, attempt, _) => {
                    transfers.push((from, attempt, call));
                }
                Call::Impostor(command) => {
                    if let Ok(new) = self.decide(&mut live.search, command.clone(), now)?
                        && !new.is_empty()
                    {
                        return Err(format!("an impostor's call is accepted: {command:?}"));
                    }
                }
                Call::Unanswered(command) => {
                    events.extend(self.decide(&mut live.search, command, now)?.unwrap_or_default());
                }
                Call::Tick => {
                    let decided = self.decide(&mut live.search, Command::Tick, now)?;
                    events.extend(decided.map_err(|rejection| format!("a tick is refused: {rejection}"))?);
                }
                Call::Heartbeat { from, held, draining } => renewals.push((from, held, draining)),
            }
        }
        if let Some(trace) = trace {
            for event in &events {
                let _ = writeln!(trace, "{now:>8}      log[{fortune:?}] {}", tell(&event.fact));
            }
        }
        let snapshot = self.due_snapshot(&mut live.search);
        match fortune {
            Fortune::DiesBefore => return Ok(None),
            Fortune::DiesAfter => return self.append(&live.search, events, snapshot).map(|()| None),
            Fortune::Fails if !events.is_empty() || snapshot.is_some() => {
                live.search = self.loaded(now)?;
                for (_, answer, said) in &mut answers {
                    (*answer, *said) = (Answer::Unavailable, None);
                }
            }
            Fortune::Fails | Fortune::Durable => self.append(&live.search, events, snapshot)?,
        }
        let mut taken = Taken::default();
        for discard in live.search.take_discards() {
            self.store.discard(discard);
            taken.deletes = true;
        }
        self.must_store_what_is_kept(&live.search)?;
        for (from, answer, said) in &answers {
            self.check_answer(*from, answer, *said)?;
            if let (Answer::Rejected(_), Some((attempt, Said::Checkpoint(Checkpoint { hash, .. })))) =
                (answer, said)
            {
                self.give_up_unless_kept(&live.search, (attempt.trial, *hash));
                taken.deletes = true;
            }
        }
        let mut answers: Vec<_> = answers.into_iter().map(|(from, answer, _)| (from, answer)).collect();
        for (from, attempt, call) in transfers {
            let superseded = Answer::Rejected(Rejection::Superseded { attempt });
            match call {
                _ if !live.search.is_held(attempt, from.worker) => answers.push((from, superseded)),
                Call::Upload(_, _, checkpoint) => taken.uploads.push((from, attempt, checkpoint)),
                Call::Fetch(_, _, hash) => {
                    answers.push((from, Answer::Fetched(self.store.get((attempt.trial, hash)))));
                }
                _ => {}
            }
        }
        for (from, held, draining) in renewals {
            let renewed = held.iter().map(|&attempt| {
                let holds = live.search.renew(attempt, from.worker, None, at);
                if holds {
                    self.heard.insert(attempt, now);
                }
                (attempt, holds)
            });
            answers.push((from, Answer::Renewed(renewed.collect())));
            if draining {
                // What a draining worker was given and does not hold: the answer to its lease was lost.
                let mut lost = live.search.held_by(from.worker);
                lost.retain(|attempt| !held.contains(attempt));
                lost.sort_unstable();
                let nobody = Caller { call: 0, ..from };
                let give_back = |attempt| Call::Complete(nobody, attempt, Outcome::Released);
                live.mailbox.extend(lost.into_iter().map(give_back));
            }
        }
        self.live = Some(live);
        taken.answers = answers;
        Ok(Some(taken))
    }

    /// The bytes of a checkpoint have come. If its attempt has been superseded meanwhile, nobody will name it.
    pub(crate) fn store(&mut self, from: Caller, attempt: Attempt, checkpoint: Checkpoint) -> Answer {
        let key = (attempt.trial, checkpoint.hash);
        self.store.put(key);
        let Some(live) = self.live.take() else { return Answer::Unavailable };
        let is_held = live.search.is_held(attempt, from.worker);
        if !is_held {
            self.give_up_unless_kept(&live.search, key);
        }
        self.live = Some(live);
        if is_held {
            return Answer::Uploaded;
        }
        Answer::Rejected(Rejection::Superseded { attempt })
    }

    /// If the trial ended meanwhile, nobody would look for the checkpoint any more.
    fn give_up_unless_kept(&mut self, search: &Search, key: Key) {
        if !search.checkpoints().any(|kept| kept == key) {
            self.store.discard(Discard::One { trial: key.0, hash: key.1 });
        }
    }

    /// Deletes what was found to be useless, if that is still so.
    pub(crate) fn delete(&mut self, key: Key) -> Result<(), String> {
        self.store.delete(key);
        self.live.as_ref().map_or(Ok(()), |live| self.must_store_what_is_kept(&live.search))
    }

    fn due_snapshot(&self, search: &mut Search) -> Option<Snapshot> {
        let since = search.events_since_snapshot();
        let is_due = since >= self.snapshot_every || (since > 0 && search.state().has_ended());
        is_due.then(|| search.take_snapshot(self.snapshot_most))
    }

    /// Has the core decide, and checks what it decides that the log alone cannot show.
    fn decide(
        &mut self,
        search: &mut Search,
        command: Command,
        now: u64,
    ) -> Result<Result<Vec<Event>, Rejection>, String> {
        let decided = search.handle(command, self.clock(now));
        for event in decided.iter().flatten() {
            match &event.fact {
                Fact::AttemptStarted { attempt, holder } | Fact::EvaluationStarted { attempt, holder } => {
                    self.given.insert(*attempt, (holder.worker, holder.slot));
                    self.heard.insert(*attempt, now);
                }
                Fact::EpochReported { attempt, .. } => drop(self.heard.insert(*attempt, now)),
                Fact::AttemptFailed { attempt, failure } | Fact::EvaluationFailed { attempt, failure } => {
                    self.must_have_been_silent(*attempt, failure, now)?;
                }
                _ => {}
            }
        }
        Ok(decided)
    }

    /// Makes events durable, and holds the log and the state against each other.
    fn append(
        &mut self,
        search: &Search,
        events: Vec<Event>,
        snapshot: Option<Snapshot>,
    ) -> Result<(), String> {
        snapshot.into_iter().for_each(|snapshot| self.disk.keep(snapshot));
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            self.audit.take(self.disk.log.len() as u64 + 1, &event);
            self.disk.log.push(event);
        }
        if let Some(finding) = self.audit.findings().first() {
            return Err(format!("the log breaks a rule: {finding}"));
        }
        let summary = search.summary();
        let said = (search.version(), summary.counts, search.leases(), Some(summary.state));
        let audited =
            (self.disk.log.len() as u64, self.audit.counts(), self.audit.leases(), self.audit.state());
        if said != audited {
            return Err(format!("the state says {said:?}, the log {audited:?}"));
        }
        let best = search.best().map(|best| best.row.trial);
        if best != self.audit.best() {
            return Err(format!("the best is {best:?}, by the log {:?}", self.audit.best()));
        }
        Ok(())
    }

    /// The search as the process has it in memory.
    pub(crate) fn search(&self) -> Option<&Search> {
        self.live.as_ref().map(|live| &live.search)
    }

    /// Every attempt that was ever given out, and to whom, durable or not.
    pub(crate) fn given(&self) -> Vec<(Attempt, WorkerId)> {
        self.given.iter().map(|(attempt, (worker, _))| (*attempt, *worker)).collect()
    }
}
