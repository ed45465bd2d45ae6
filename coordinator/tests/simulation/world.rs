//! One simulated cluster: a queue of what is to happen, a network between machines and coordinator,
//! and the blows that befall them, all drawn from one seed. Time is a number.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt::Write;

use fittingroom_common::event::Fact;
use fittingroom_common::id::{Attempt, AttemptNumber, SearchId, TrialId, WorkerId};
use fittingroom_common::trial::FailureReason;
use fittingroom_common::view::{SearchState, TrialRow, TrialState};
use fittingroom_common::work::Outcome;
use fittingroom_coordinator::search::{Command, EVALUATION_ATTEMPTS, Search};

use crate::coordinator::{Coordinator, Fortune};
use crate::machine::{HEARTBEAT, Machine, Next};
use crate::message::{Answer, Call, Caller};
use crate::scenario::{Blow, Chance, LEASE, Scenario, Template};
use crate::tally::Tally;

/// How long after every fault has ended a search may take, in milliseconds. The longest search here
/// trains for less than five minutes on one slot.
const BOUND: u64 = 1_800_000;
/// How long the world goes on when the search has ended, so that late calls arrive.
const AFTERMATH: u64 = 25_000;
/// How often the coordinator looks at its leases.
const TICK: u64 = 1_000;
/// How often an operator looks whether the search is paused, once the faults have ended.
const OPERATOR: u64 = 5_000;

#[derive(Clone, Debug)]
enum Happening {
    /// A call reaches the coordinator.
    Call(Call),
    /// An answer reaches a machine.
    Answer(Caller, Answer),
    /// The coordinator looks into its mailbox. Of this run of its process.
    Look(u64),
    Tick(u64),
    CoordinatorStarts,
    MachineStarts(usize),
    /// Of this run of the agent.
    Heartbeat(usize, u64),
    /// Of this slot and generation.
    Timer(usize, usize, u64),
    Blow,
    Operator,
}

/// When something happens; of two at once, what was arranged first.
struct Arranged {
    at: u64,
    order: u64,
    happening: Happening,
}

impl PartialEq for Arranged {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Arranged {}

impl PartialOrd for Arranged {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arranged {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct World<'a> {
    template: &'a Template,
    scenario: Scenario,
    chance: Chance,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Arranged>>,
    coordinator: Coordinator,
    machines: Vec<Machine>,
    pub(crate) tally: Tally,
    /// What happened, for people; kept only where somebody will read it.
    pub(crate) trace: Option<String>,
}

impl<'a> World<'a> {
    pub(crate) fn new(templates: &'a [Template], seed: u64, trace: Option<String>) -> Self {
        let mut chance = Chance::new(seed);
        let template = &templates[chance.within(0, templates.len() as u64) as usize];
        let scenario = Scenario::draw(&mut chance);
        let machines = (0..scenario.machines as usize).map(|number| Machine::new(number, scenario.slots));
        let mut world = Self {
            template,
            chance,
            now: 0,
            order: 0,
            queue: BinaryHeap::with_capacity(256),
            coordinator: Coordinator::launch(template, 0),
            machines: machines.collect(),
            scenario,
            tally: Tally { searches: 1, ..Tally::default() },
            trace,
        };
        let scenario = world.scenario.clone();
        world.tell(|_| format!("{scenario:?}"));
        world.arrange(0, Happening::CoordinatorStarts);
        for machine in 0..world.machines.len() {
            let start = world.chance.within(0, 3_000);
            world.arrange(start, Happening::MachineStarts(machine));
        }
        let blow = world.chance.within(0, world.scenario.blow_every);
        world.arrange(blow, Happening::Blow);
        world.arrange(world.scenario.healed_at, Happening::Operator);
        world
    }

    /// Lets everything happen until the search has ended and every late call has arrived; the error
    /// says which promise was broken.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let mut ended_at = None;
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now = next.at;
            self.tally.steps += 1;
            self.happen(next.happening)?;
            let has_ended = self.coordinator.audit.state().is_some_and(SearchState::has_ended);
            if has_ended && self.now > *ended_at.get_or_insert(self.now) + AFTERMATH {
                break;
            }
            if self.now > self.scenario.healed_at + BOUND {
                let counts = self.coordinator.audit.counts();
                return Err(format!("the search has not ended {BOUND} ms after the last fault: {counts:?}"));
            }
        }
        self.check_end()
    }

    fn arrange(&mut self, after: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Arranged { at: self.now + after, order: self.order, happening }));
    }

    fn tell(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = what(self);
            let now = self.now;
            if let Some(trace) = &mut self.trace {
                let _ = writeln!(trace, "{now:>8} {line}");
            }
        }
    }

    fn is_healed(&self) -> bool {
        self.now >= self.scenario.healed_at
    }

    /// A fault's rate now.
    fn rate(&self, per_mille: u64) -> u64 {
        if self.is_healed() { 0 } else { per_mille }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        // A stopped process does everything later, in the same order.
        let stopped = match &happening {
            Happening::Heartbeat(machine, _) | Happening::Timer(machine, ..) => Some(*machine),
            Happening::Answer(to, _) => Some(to.machine),
            Happening::Call(_)
            | Happening::Look(_)
            | Happening::Tick(_)
            | Happening::CoordinatorStarts
            | Happening::MachineStarts(_)
            | Happening::Blow
            | Happening::Operator => None,
        };
        if let Some(until) = stopped.map(|machine| self.machines[machine].stopped_until)
            && until > self.now
        {
            self.arrange(until - self.now, happening);
            return Ok(());
        }
        match happening {
            Happening::Call(call) => self.receive(call),
            Happening::Answer(to, answer) => self.hear(to, answer),
            Happening::Look(run) if run == self.coordinator.run => return self.look(),
            Happening::Tick(run) if run == self.coordinator.run && self.coordinator.live.is_some() => {
                self.receive(Call::Tick);
                if !self.coordinator.audit.state().is_some_and(SearchState::has_ended) {
                    self.arrange(TICK, Happening::Tick(run));
                }
            }
            Happening::Look(_) | Happening::Tick(_) => {}
            Happening::CoordinatorStarts => self.start_coordinator()?,
            Happening::MachineStarts(machine) => self.start_machine(machine),
            Happening::Heartbeat(machine, run) => {
                if self.machines[machine].run == run && self.machines[machine].is_up {
                    let call = self.machines[machine].heartbeat();
                    self.send(machine, call);
                    self.arrange(HEARTBEAT, Happening::Heartbeat(machine, run));
                }
            }
            Happening::Timer(machine, slot, generation) => {
                let it = &mut self.machines[machine];
                if it.is_up && it.slots[slot].generation == generation {
                    let crash =
                        if self.now < self.scenario.healed_at { self.scenario.trainer_crash } else { 0 };
                    let next = it.wake(slot, &self.template.trainer, &mut self.chance, crash);
                    self.go_on(machine, slot, next);
                }
            }
            Happening::Blow => self.strike(),
            Happening::Operator => {
                // Whoever paused the search resumes it, however late the pause arrives.
                if self.coordinator.audit.state() == Some(SearchState::Paused) {
                    self.receive(Call::Unanswered(Command::Resume));
                }
                self.arrange(OPERATOR, Happening::Operator);
            }
        }
        Ok(())
    }

    fn start_coordinator(&mut self) -> Result<(), String> {
        if self.coordinator.live.is_some() {
            return Ok(());
        }
        if self.coordinator.run > 0 && self.chance.happens(self.scenario.clock_steps) {
            self.coordinator.clock_ahead += self.chance.one_of(&[-3_600_000, 3_600_000, -60_000, 7_000]);
        }
        self.coordinator.start(self.now)?;
        self.tell(|_| "coordinator starts".to_owned());
        self.arrange(TICK, Happening::Tick(self.coordinator.run));
        Ok(())
    }

    fn crash_coordinator(&mut self) {
        self.tell(|_| "coordinator dies".to_owned());
        self.tally.coordinator_crashes += 1;
        self.coordinator.live = None;
        let back = self.chance.one_of(&[100, 2_000, 8_000, 30_000]);
        self.arrange(back, Happening::CoordinatorStarts);
    }

    fn start_machine(&mut self, machine: usize) {
        if self.machines[machine].is_up {
            return;
        }
        self.machines[machine].start();
        self.tell(|_| format!("machine {machine} starts"));
        let run = self.machines[machine].run;
        self.arrange(HEARTBEAT, Happening::Heartbeat(machine, run));
        for slot in 0..self.machines[machine].slots.len() {
            self.call_again(machine, slot);
        }
    }

    fn call_again(&mut self, machine: usize, slot: usize) {
        let next = self.machines[machine].call(slot, &self.template.trainer);
        self.go_on(machine, slot, next);
    }

    fn go_on(&mut self, machine: usize, slot: usize, next: Next) {
        let generation = self.machines[machine].slots[slot].generation;
        self.arrange(next.after, Happening::Timer(machine, slot, generation));
        if let Some(call) = next.call {
            self.send(machine, call);
        }
        if self.machines[machine].has_drained() {
            self.stop_machine(machine);
        }
    }

    /// An agent ends, however; another one comes after a while.
    fn stop_machine(&mut self, machine: usize) {
        self.tell(|_| format!("machine {machine} ends"));
        self.machines[machine].is_up = false;
        let back = self.chance.one_of(&[200, 3_000, 15_000]);
        self.arrange(back, Happening::MachineStarts(machine));
    }

    /// How long a message is on its way; `None` if it is lost.
    fn transit(&mut self) -> Option<u64> {
        if self.chance.happens(self.rate(self.scenario.lost)) {
            self.tally.lost += 1;
            return None;
        }
        let is_late = self.chance.happens(self.rate(self.scenario.late));
        Some(if is_late { self.chance.within(100, 20_000) } else { self.chance.within(1, 30) })
    }

    fn send(&mut self, machine: usize, call: Call) {
        if self.machines[machine].cut_there_until > self.now {
            return;
        }
        let copies = 1 + u64::from(self.chance.happens(self.rate(self.scenario.doubled)));
        self.tally.doubled += copies - 1;
        for _ in 0..copies {
            if let Some(after) = self.transit() {
                self.arrange(after, Happening::Call(call.clone()));
            }
        }
    }

    fn answer(&mut self, to: Caller, answer: Answer) {
        if to.call == 0 || self.machines[to.machine].cut_back_until > self.now {
            return;
        }
        if let Some(after) = self.transit() {
            self.arrange(after, Happening::Answer(to, answer));
        }
    }

    /// A call reaches the coordinator, if it runs.
    fn receive(&mut self, call: Call) {
        let is_stalled = self.chance.happens(self.rate(self.scenario.stall));
        let run = self.coordinator.run;
        let Some(live) = &mut self.coordinator.live else { return };
        live.mailbox.push(call);
        if !std::mem::replace(&mut live.is_looking, true) {
            // Stopped, or waiting for the disk.
            let after = if is_stalled { self.chance.within(500, 25_000) } else { self.chance.within(0, 10) };
            self.tally.stalls += u64::from(is_stalled);
            self.arrange(after, Happening::Look(run));
        }
    }

    fn look(&mut self) -> Result<(), String> {
        let (fails, dies) = (self.rate(self.scenario.append_fails), self.rate(self.scenario.crash_at_append));
        let fortune = if self.chance.happens(fails) {
            Fortune::Fails
        } else if self.chance.happens(dies) {
            self.chance.one_of(&[Fortune::DiesBefore, Fortune::DiesAfter])
        } else {
            Fortune::Durable
        };
        self.tally.failed_appends += u64::from(fortune == Fortune::Fails);
        let Some(answers) = self.coordinator.take(self.now, fortune, &mut self.trace)? else {
            self.crash_coordinator();
            return Ok(());
        };
        for (to, answer) in answers {
            self.tally.refused += u64::from(matches!(answer, Answer::Rejected(_)));
            self.answer(to, answer);
        }
        // What a draining worker gives back is done at the next look.
        let run = self.coordinator.run;
        if let Some(live) = &mut self.coordinator.live
            && !live.mailbox.is_empty()
            && !std::mem::replace(&mut live.is_looking, true)
        {
            self.arrange(1, Happening::Look(run));
        }
        Ok(())
    }

    fn hear(&mut self, to: Caller, answer: Answer) {
        let machine = &mut self.machines[to.machine];
        if !machine.is_up || machine.worker() != to.worker {
            return;
        }
        if let Answer::Renewed(renewed) = &answer {
            for slot in machine.obey(renewed) {
                self.call_again(to.machine, slot);
            }
            return;
        }
        let slowest = self.scenario.slowest_epoch;
        let next = machine.hear(to, answer, &self.template.trainer, &mut self.chance, slowest);
        if let Some(next) = next {
            self.go_on(to.machine, to.slot, next);
        }
    }

    /// One of the scenario's blows befalls something.
    fn strike(&mut self) {
        if self.is_healed() || self.scenario.blows.is_empty() {
            return;
        }
        let blow = self.chance.one_of(&self.scenario.blows.clone());
        let machine = self.chance.within(0, self.machines.len() as u64) as usize;
        let until = self.now + self.chance.one_of(&[500, 4_000, 12_000, 30_000]);
        self.tell(|_| format!("{blow:?} (machine {machine}, until {until})"));
        self.tally.blow(blow);
        match blow {
            Blow::AgentCrash if self.machines[machine].is_up => self.stop_machine(machine),
            Blow::AgentDrain if self.machines[machine].is_up && !self.machines[machine].drains => {
                let slots = self.machines[machine].drain();
                slots.into_iter().for_each(|slot| self.call_again(machine, slot));
                if self.machines[machine].is_up && self.machines[machine].has_drained() {
                    self.stop_machine(machine);
                }
            }
            Blow::AgentCrash | Blow::AgentDrain => {}
            Blow::AgentPause => self.machines[machine].stopped_until = until,
            Blow::CoordinatorCrash if self.coordinator.live.is_some() => self.crash_coordinator(),
            Blow::CoordinatorCrash => {}
            Blow::PartitionBothWays => {
                self.machines[machine].cut_there_until = until;
                self.machines[machine].cut_back_until = until;
            }
            Blow::PartitionOneWay if self.chance.happens(500) => {
                self.machines[machine].cut_there_until = until;
            }
            Blow::PartitionOneWay => self.machines[machine].cut_back_until = until,
            Blow::Impostor => {
                let call = self.impostor();
                self.receive(call);
            }
            Blow::Confusion => {
                if let Some(command) = self.confusion() {
                    self.receive(Call::Unanswered(command));
                }
            }
            Blow::OperatorPause => self.operate(Command::Pause),
            Blow::OperatorResume => self.operate(Command::Resume),
            Blow::OperatorStop => self.operate(Command::Stop),
            Blow::OperatorCancel => self.operate(Command::Cancel),
        }
        let next = self.chance.within(1, self.scenario.blow_every);
        self.arrange(next, Happening::Blow);
    }

    fn operate(&mut self, command: Command) {
        if let Some(after) = self.transit() {
            self.arrange(after, Happening::Call(Call::Unanswered(command)));
        }
    }

    /// Somebody says that they hold an attempt that was given to another, or to nobody.
    fn impostor(&mut self) -> Call {
        let mut known: Vec<Attempt> = self.coordinator.given().iter().map(|(attempt, _)| *attempt).collect();
        known.push(Attempt { trial: TrialId::new(self.chance.within(0, 12)), number: AttemptNumber::FIRST });
        let attempt = self.chance.one_of(&known);
        let worker = WorkerId::new(7);
        let trainer = &self.template.trainer;
        Call::Impostor(match self.chance.within(0, 4) {
            0 => {
                let epoch = self.chance.within(1, 6) as u32;
                Command::Report { attempt, worker, report: trainer.report(attempt.trial, epoch) }
            }
            1 => Command::Complete { attempt, worker, outcome: Outcome::Trained { model: None } },
            2 => Command::Complete { attempt, worker, outcome: Outcome::Released },
            _ => {
                let outcome = Outcome::Evaluated(trainer.test(attempt.trial));
                Command::Complete { attempt, worker, outcome }
            }
        })
    }

    /// A worker says what it may not say of an attempt that it was given: epochs that do not come
    /// next, the end without the model that was asked for, or an ending of the other kind.
    fn confusion(&mut self) -> Option<Command> {
        let given = self.coordinator.given();
        // Where trials may stop early, when they do is a worker's word, confused or not.
        if given.is_empty() || self.template.trainer.length.patience > 0 {
            return None;
        }
        let (attempt, worker) = self.chance.one_of(&given);
        let trainer = &self.template.trainer;
        Some(match self.chance.within(0, 3) {
            0 => Command::Report { attempt, worker, report: trainer.report(attempt.trial, 7) },
            1 => Command::Complete { attempt, worker, outcome: Outcome::Trained { model: None } },
            _ => {
                let outcome = Outcome::Evaluated(trainer.test(attempt.trial));
                Command::Complete { attempt, worker, outcome }
            }
        })
    }

    /// What must be true when a search has ended.
    fn check_end(&mut self) -> Result<(), String> {
        let log = &self.coordinator.log;
        let search = Search::replay(SearchId::new(1), log.iter().cloned(), LEASE).ok_or("no search")?;
        if let Some(live) = self.coordinator.search()
            && (live.summary() != search.summary() || !live.ranked().eq(search.ranked()))
        {
            return Err("the log tells another story than the state that wrote it".to_owned());
        }
        let (mut is_whole, mut evaluation_failures) = (true, 0);
        for event in log {
            match &event.fact {
                Fact::SearchStopping { .. } | Fact::SearchCancelled | Fact::SearchFailed { .. } => {
                    is_whole = false;
                }
                Fact::TrialFailed { failure, .. } => is_whole &= failure.reason == FailureReason::Diverged,
                Fact::EvaluationFailed { .. } => evaluation_failures += 1,
                _ => {}
            }
        }
        let (ranked, unranked): (Vec<TrialRow>, Vec<TrialRow>) =
            (search.ranked().collect(), search.unranked().collect());
        let open = unranked.iter().find(|row| matches!(row.state, TrialState::Waiting | TrialState::Running));
        if let Some(row) = open {
            return Err(format!("the search has ended, and trial {} is {}", row.trial, row.state));
        }
        let trainer = &self.template.trainer;
        if let Some(row) = ranked.iter().find(|row| row.report != trainer.last_report(row.trial)) {
            return Err(format!("trial {} has other metrics than undisturbed: {:?}", row.trial, row.report));
        }
        if self.template.is_steadfast && !is_whole && !self.was_ended_by_hand() {
            return Err("a search that may try for ever gave a trial up".to_owned());
        }
        if is_whole {
            let found: Vec<_> = ranked.iter().map(|row| (row.trial, row.report)).collect();
            let spec = &self.template.created.spec;
            if found != trainer.leaderboard(spec.metric, spec.trial_count()) || !unranked.is_empty() {
                return Err(format!("the leaderboard is not that of an undisturbed run: {found:?}"));
            }
            self.tally.whole += 1;
        }
        if let Some(best) = search.best()
            && search.state() == SearchState::Complete
            && !trainer.tracks_test
            && best.row.test != Some(trainer.test(best.row.trial))
            && evaluation_failures < EVALUATION_ATTEMPTS
        {
            return Err(format!("the best trial was not evaluated: {:?}", best.row.test));
        }
        self.tally.count(self.coordinator.audit.tally(), log);
        Ok(())
    }

    fn was_ended_by_hand(&self) -> bool {
        let by_hand = |fact: &Fact| matches!(fact, Fact::SearchStopping { .. } | Fact::SearchCancelled);
        self.coordinator.log.iter().any(|event| by_hand(&event.fact))
    }
}
