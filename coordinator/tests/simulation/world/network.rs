//! The network between machines and coordinator, and what each of them does with what arrives.

use super::{Happening, World};
use crate::coordinator::Fortune;
use crate::message::{Answer, Call, Caller, Line};

impl World<'_> {
    /// How long a message is on its way; `None` if it is lost.
    pub(super) fn transit(&mut self) -> Option<u64> {
        if self.chance.happens(self.rate(self.scenario.lost)) {
            self.tally.lost += 1;
            return None;
        }
        let is_late = self.chance.happens(self.rate(self.scenario.late));
        Some(if is_late { self.chance.within(100, 20_000) } else { self.chance.within(1, 30) })
    }

    pub(super) fn send(&mut self, machine: usize, call: Call) {
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

    pub(super) fn answer(&mut self, to: Caller, answer: Answer) {
        if to.call == 0 || self.machines[to.machine].cut_back_until > self.now {
            return;
        }
        if let Some(after) = self.transit() {
            self.arrange(after, Happening::Answer(to, answer));
        }
    }

    /// A call reaches the coordinator, if it runs.
    pub(super) fn receive(&mut self, call: Call) {
        let is_stalled = self.chance.happens(self.rate(self.scenario.stall));
        let run = self.coordinator.run;
        let Some(live) = &mut self.coordinator.live else { return };
        // Looked for before the call is put into the mailbox, and then safe from being deleted.
        if let Call::Keep(from, attempt, checkpoint) = &call
            && live.search.is_held(*attempt, from.worker)
            && !self.coordinator.store.claim((attempt.trial, checkpoint.hash))
        {
            let from = *from;
            return self.answer(from, Answer::NotStored);
        }
        live.mailbox.push(call);
        if !std::mem::replace(&mut live.is_looking, true) {
            // Stopped, or waiting for the disk.
            let after = if is_stalled { self.chance.within(500, 25_000) } else { self.chance.within(0, 10) };
            self.tally.stalls += u64::from(is_stalled);
            self.arrange(after, Happening::Look(run));
        }
    }

    pub(super) fn look(&mut self) -> Result<(), String> {
        let (fails, dies) = (self.rate(self.scenario.append_fails), self.rate(self.scenario.crash_at_append));
        let fortune = if self.chance.happens(fails) {
            Fortune::Fails
        } else if self.chance.happens(dies) {
            self.chance.one_of(&[Fortune::DiesBefore, Fortune::DiesAfter])
        } else {
            Fortune::Durable
        };
        self.tally.failed_appends += u64::from(fortune == Fortune::Fails);
        let Some(taken) = self.coordinator.take(self.now, fortune, &mut self.trace)? else {
            self.crash_coordinator();
            return Ok(());
        };
        for (to, answer) in taken.answers {
            self.tally.refused += u64::from(matches!(answer, Answer::Rejected(_)));
            self.answer(to, answer);
        }
        let run = self.coordinator.run;
        for (from, attempt, checkpoint) in taken.uploads {
            let after = self.chance.within(1, 3_000);
            self.arrange(after, Happening::Uploaded(run, from, attempt, checkpoint));
        }
        if taken.deletes {
            self.arrange(1, Happening::Deletes(run));
        }
        // What a draining worker gives back is done at the next look.
        if let Some(live) = &mut self.coordinator.live
            && !live.mailbox.is_empty()
            && !std::mem::replace(&mut live.is_looking, true)
        {
            self.arrange(1, Happening::Look(run));
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, to: Caller, answer: Answer) {
        let rates = self.rates();
        let machine = &mut self.machines[to.machine];
        if !machine.is_up || machine.worker() != to.worker {
            return;
        }
        if to.line == Line::Checkpoints {
            if let Some(call) = machine.hear_of_checkpoint(to, &answer) {
                self.send(to.machine, call);
            }
            return;
        }
        if let Answer::Renewed(renewed) = &answer {
            for slot in machine.obey(renewed) {
                self.call_again(to.machine, slot);
            }
            return;
        }
        let next = machine.hear(to, answer, &self.template.trainer, &mut self.chance, rates);
        if let Some(next) = next {
            self.go_on(to.machine, to.slot, next);
        }
    }
}
