//! One simulated cluster: a queue of what is to happen, a network between machines and coordinator,
//! and the blows that befall them, all drawn from one seed. Time is a number.

mod blows;
pub(crate) mod ending;
mod network;

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt::Write;

use fittingroom_common::checkpoint::Checkpoint;
use fittingroom_common::id::Attempt;
use fittingroom_common::view::SearchState;
use fittingroom_coordinator::search::Command;

use crate::coordinator::Coordinator;
use crate::machine::{HEARTBEAT, Machine, Next, Rates};
use crate::message::{Answer, Call, Caller};
use crate::scenario::{Chance, Scenario, Template};
use crate::store::Key;
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
    /// A checkpoint has come whole, in this run of the coordinator.
    Uploaded(u64, Caller, Attempt, Checkpoint),
    /// Checkpoints of no more use are looked for, and one is deleted.
    Deletes(u64),
    Deleted(u64, Key),
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
            coordinator: Coordinator::launch(template, &scenario, 0),
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

    /// What befalls trainers now. Checkpoints are no fault.
    fn rates(&self) -> Rates {
        Rates {
            crash: self.rate(self.scenario.trainer_crash),
            checkpoints: self.scenario.checkpoints,
            refused: self.rate(self.scenario.refused),
            slowest_epoch: self.scenario.slowest_epoch,
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        // A stopped process does everything later, in the same order.
        let stopped = match &happening {
            Happening::Heartbeat(machine, _) | Happening::Timer(machine, ..) => Some(*machine),
            Happening::Answer(to, _) => Some(to.machine),
            Happening::Call(_)
            | Happening::Look(_)
            | Happening::Tick(_)
            | Happening::Uploaded(..)
            | Happening::Deletes(_)
            | Happening::Deleted(..)
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
            Happening::Uploaded(run, from, attempt, checkpoint) if run == self.coordinator.run => {
                if self.coordinator.live.is_some() {
                    let answer = self.coordinator.store(from, attempt, checkpoint);
                    self.answer(from, answer);
                    self.arrange(1, Happening::Deletes(run));
                }
            }
            Happening::Deletes(run) if run == self.coordinator.run => {
                if self.coordinator.live.is_some() {
                    for key in self.coordinator.store.useless() {
                        let after = self.chance.within(1, 500);
                        self.arrange(after, Happening::Deleted(run, key));
                    }
                }
            }
            Happening::Deleted(run, key) if run == self.coordinator.run => {
                if self.coordinator.live.is_some() {
                    return self.coordinator.delete(key);
                }
            }
            Happening::Look(_)
            | Happening::Tick(_)
            | Happening::Uploaded(..)
            | Happening::Deletes(_)
            | Happening::Deleted(..) => {}
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
                let rates = self.rates();
                let it = &mut self.machines[machine];
                if it.is_up && it.slots[slot].generation == generation {
                    let next = it.wake(slot, &self.template.trainer, &mut self.chance, rates);
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
        self.arrange(1, Happening::Deletes(self.coordinator.run));
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
        for call in next.calls {
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
}
