//! The simulated coordinator: the real core between a mailbox and a log that may fail. It does with
//! them what the runner does, without its tasks and channels.

use std::collections::BTreeMap;
use std::fmt::Write;

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::{Attempt, SearchId, SlotNumber, WorkerId};
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason};
use fittingroom_common::work::{Holder, Outcome, Work};
use fittingroom_coordinator::audit::Audit;
use fittingroom_coordinator::search::{Command, Rejection, Search};

use crate::message::{Answer, Call, Caller, Given};
use crate::scenario::{LEASE, LEASE_MS, Template};

const SEARCH: SearchId = SearchId::new(1);

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
    search: Search,
    /// When it last looked into its mailbox, by its own clock.
    looked: Timestamp,
    pub(crate) mailbox: Vec<Call>,
    pub(crate) is_looking: bool,
}

pub(crate) struct Coordinator {
    /// What is durable.
    pub(crate) log: Vec<Event>,
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
}

impl Coordinator {
    pub(crate) fn launch(template: &Template, now: u64) -> Self {
        let mut it = Self {
            log: Vec::new(),
            audit: Audit::default(),
            live: None,
            run: 0,
            clock_ahead: 1_800_000_000_000,
            listening_since: now,
            heard: BTreeMap::new(),
            given: BTreeMap::new(),
        };
        let created =
            Event { at: it.clock(now), fact: Fact::SearchCreated(Box::new(template.created.clone())) };
        it.audit.take(1, &created);
        it.log.push(created);
        it
    }

    fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_millis(self.clock_ahead.saturating_add_unsigned(now))
    }

    /// Starts the process: replays the log, and gives every lease its grace.
    pub(crate) fn start(&mut self, now: u64) -> Result<(), String> {
        self.run += 1;
        let search = self.replayed(now)?;
        self.live = Some(Live { search, looked: self.clock(now), mailbox: Vec::new(), is_looking: false });
        Ok(())
    }

    fn replayed(&mut self, now: u64) -> Result<Search, String> {
        let mut search =
            Search::replay(SEARCH, self.log.iter().cloned(), LEASE).ok_or("the log has no search")?;
        search.grant_grace(self.clock(now));
        self.listening_since = now;
        if search.summary().counts != self.audit.counts() || search.leases() != self.audit.leases() {
            return Err("the replayed search differs from the audit's account".to_owned());
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
    ) -> Result<Option<Vec<(Caller, Answer)>>, String> {
        let at = self.clock(now);
        let Some(mut live) = self.live.take() else { return Ok(Some(Vec::new())) };
        live.is_looking = false;
        if at.since(live.looked) > LEASE / 2 {
            live.search.grant_grace(at);
            self.listening_since = now;
        }
        live.looked = at;
        let mut events = Vec::new();
        let (mut answers, mut renewals) = (Vec::new(), Vec::new());
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
                    });
                    answers.push((from, Answer::Leased(given), None));
                }
                Call::Report(from, attempt, report) => {
                    let command = Command::Report { attempt, worker: from.worker, report };
                    let answer = match self.decide(&mut live.search, command, now)? {
                        Ok(new) => {
                            self.must_be_its_holder(&new, attempt, from.worker)?;
                            events.extend(new);
                            Answer::Reported(live.search.wants_model(attempt))
                        }
                        Err(rejection) => Answer::Rejected(rejection),
                    };
                    answers.push((from, answer, Some((attempt, Said::Epoch(report.epoch)))));
                }
                Call::Complete(from, attempt, outcome) => {
                    let said = match &outcome {
                        Outcome::Trained { .. } => Said::Trained,
                        Outcome::Evaluated(_) | Outcome::Failed(_) | Outcome::Released => Said::Other,
                    };
                    let command = Command::Complete { attempt, worker: from.worker, outcome };
                    let answer = match self.decide(&mut live.search, command, now)? {
                        Ok(new) => {
                            self.must_be_its_holder(&new, attempt, from.worker)?;
                            events.extend(new);
                            Answer::Completed
                        }
                        Err(rejection) => Answer::Rejected(rejection),
                    };
                    answers.push((from, answer, Some((attempt, said))));
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
        match fortune {
            Fortune::DiesBefore => return Ok(None),
            Fortune::DiesAfter => return self.append(&live.search, events).map(|()| None),
            Fortune::Fails if !events.is_empty() => {
                live.search = self.replayed(now)?;
                for (_, answer, said) in &mut answers {
                    (*answer, *said) = (Answer::Unavailable, None);
                }
            }
            Fortune::Fails | Fortune::Durable => self.append(&live.search, events)?,
        }
        for (from, answer, said) in &answers {
            self.check_answer(*from, answer, *said)?;
        }
        let mut answers: Vec<_> = answers.into_iter().map(|(from, answer, _)| (from, answer)).collect();
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
        Ok(Some(answers))
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

    /// A worker is lost only if nothing was heard of it for a whole lease in which somebody listened.
    fn must_have_been_silent(&self, attempt: Attempt, failure: &Failure, now: u64) -> Result<(), String> {
        let heard = self.heard.get(&attempt).copied().unwrap_or(0).max(self.listening_since);
        if failure.reason == FailureReason::WorkerLost && now - heard < LEASE_MS {
            return Err(format!("attempt {attempt} is lost {} ms after it was heard of", now - heard));
        }
        Ok(())
    }

    fn must_be_its_holder(&self, new: &[Event], attempt: Attempt, worker: WorkerId) -> Result<(), String> {
        let holder = self.given.get(&attempt).map(|(worker, _)| *worker);
        if !new.is_empty() && holder != Some(worker) {
            return Err(format!(
                "a call of {worker} about attempt {attempt} is accepted, which {holder:?} holds"
            ));
        }
        Ok(())
    }

    /// Makes events durable, and holds the log and the state against each other.
    fn append(&mut self, search: &Search, events: Vec<Event>) -> Result<(), String> {
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            self.audit.take(self.log.len() as u64 + 1, &event);
            self.log.push(event);
        }
        if let Some(finding) = self.audit.findings().first() {
            return Err(format!("the log breaks a rule: {finding}"));
        }
        let summary = search.summary();
        let said = (search.version(), summary.counts, search.leases(), Some(summary.state));
        let audited = (self.log.len() as u64, self.audit.counts(), self.audit.leases(), self.audit.state());
        if said != audited {
            return Err(format!("the state says {said:?}, the log {audited:?}"));
        }
        let best = search.best().map(|best| best.row.trial);
        if best != self.audit.best() {
            return Err(format!("the best is {best:?}, by the log {:?}", self.audit.best()));
        }
        Ok(())
    }

    /// What is acknowledged is in the log; what is refused is not.
    fn check_answer(
        &self,
        from: Caller,
        answer: &Answer,
        said: Option<(Attempt, Said)>,
    ) -> Result<(), String> {
        let is_logged = |wish: &dyn Fn(&Fact) -> bool| self.log.iter().rev().any(|event| wish(&event.fact));
        if let (Answer::Rejected(rejection), Some((attempt, _))) = (answer, said) {
            let holds = self.audit.holder(attempt).is_some_and(|(worker, _)| worker == from.worker);
            if holds || !matches!(rejection, Rejection::Superseded { .. }) {
                return Err(format!("{from:?} is refused: {rejection}"));
            }
        }
        match (answer, said) {
            (Answer::Leased(Some(given)), _) => {
                let wish = |fact: &Fact| match fact {
                    Fact::AttemptStarted { attempt, holder }
                    | Fact::EvaluationStarted { attempt, holder } => {
                        *attempt == given.attempt
                            && holder.worker == from.worker
                            && usize::try_from(holder.slot.get()) == Ok(from.slot)
                    }
                    _ => false,
                };
                if !is_logged(&wish) {
                    return Err(format!("{given:?} is given to {from:?}, and not in the log"));
                }
            }
            (Answer::Reported(_), Some((attempt, Said::Epoch(epoch)))) => {
                let wish = |fact: &Fact| matches!(fact, Fact::EpochReported { attempt: it, report } if *it == attempt && report.epoch == epoch);
                if !is_logged(&wish) {
                    return Err(format!(
                        "epoch {epoch} of attempt {attempt} is acknowledged and not in the log"
                    ));
                }
            }
            (Answer::Completed | Answer::Rejected(_), Some((attempt, Said::Trained))) => {
                let wish =
                    |fact: &Fact| matches!(fact, Fact::TrialCompleted { attempt: it, .. } if *it == attempt);
                if is_logged(&wish) != matches!(answer, Answer::Completed) {
                    return Err(format!(
                        "the completion of attempt {attempt} is answered {answer:?}, and the log says otherwise"
                    ));
                }
            }
            _ => {}
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

/// What a worker said about an attempt, as far as the answer is checked against the log.
#[derive(Clone, Copy, Debug)]
enum Said {
    Epoch(u32),
    Trained,
    Other,
}

fn tell(fact: &Fact) -> String {
    match fact {
        Fact::TrialPlanned { trial, .. } => format!("trial {trial} planned"),
        Fact::AttemptStarted { attempt, holder } => {
            format!("attempt {attempt} started on {:x}/{}", holder.worker.bits(), holder.slot)
        }
        Fact::EpochReported { attempt, report } => format!("attempt {attempt} epoch {}", report.epoch),
        Fact::EvaluationStarted { attempt, holder } => {
            format!("evaluation {attempt} started on {:x}/{}", holder.worker.bits(), holder.slot)
        }
        other => format!("{other:?}"),
    }
}
