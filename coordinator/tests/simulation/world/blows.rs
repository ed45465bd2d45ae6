//! The blows that befall a cluster.

use fittingroom_common::checkpoint::{Checkpoint, CheckpointPlace};
use fittingroom_common::id::{ArtifactHash, Attempt, AttemptNumber, TrialId, WorkerId};
use fittingroom_common::work::Outcome;
use fittingroom_coordinator::search::Command;

use super::{Happening, World};
use crate::message::Call;
use crate::scenario::Blow;
use crate::store::Blob;

impl World<'_> {
    /// One of the scenario's blows befalls something.
    pub(super) fn strike(&mut self) {
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
            Blow::StoreLoses => self.harm(None),
            Blow::StoreDamages => self.harm(Some(Blob::Damaged)),
            Blow::SnapshotDamaged => {
                let drawn = self.chance.within(0, u64::MAX);
                self.tally.damaged_snapshots += u64::from(self.coordinator.disk.damage(drawn));
            }
            Blow::OperatorPause => self.operate(Command::Pause),
            Blow::OperatorResume => self.operate(Command::Resume),
            Blow::OperatorStop => self.operate(Command::Stop),
            Blow::OperatorCancel => self.operate(Command::Cancel),
        }
        let next = self.chance.within(1, self.scenario.blow_every);
        self.arrange(next, Happening::Blow);
    }

    fn harm(&mut self, harm: Option<Blob>) {
        let drawn = self.chance.within(0, u64::MAX);
        self.tally.harmed_checkpoints += u64::from(self.coordinator.store.harm(drawn, harm));
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
        let place = CheckpointPlace { epoch: self.chance.within(0, 3) as u32, step: 1 };
        let hash = ArtifactHash::of(b"an impostor's");
        Call::Impostor(match self.chance.within(0, 6) {
            0 => {
                let epoch = self.chance.within(1, 6) as u32;
                Command::Report { attempt, worker, report: trainer.report(attempt.trial, epoch) }
            }
            1 => Command::Complete { attempt, worker, outcome: Outcome::Trained { model: None } },
            2 => Command::Complete { attempt, worker, outcome: Outcome::Released },
            3 => Command::KeepCheckpoint { attempt, worker, checkpoint: Checkpoint { place, hash } },
            4 => {
                let newest = self.coordinator.search().and_then(|search| search.checkpoints().last());
                let hash = newest.map_or(hash, |(_, hash)| hash);
                Command::LoseCheckpoint { attempt, worker, hash, problem: String::new() }
            }
            _ => {
                let outcome = Outcome::Evaluated(trainer.test(attempt.trial));
                Command::Complete { attempt, worker, outcome }
            }
        })
    }

    /// A worker says what it may not say of an attempt that it was given: epochs that do not come
    /// next, a checkpoint of such, the end without the model that was asked for, or an ending of the other kind.
    fn confusion(&mut self) -> Option<Command> {
        let given = self.coordinator.given();
        // Where trials may stop early, when they do is a worker's word, confused or not.
        if given.is_empty() || self.template.trainer.length.patience > 0 {
            return None;
        }
        let (attempt, worker) = self.chance.one_of(&given);
        let trainer = &self.template.trainer;
        let hash = ArtifactHash::of(b"of nothing");
        let checkpoint = Checkpoint { place: CheckpointPlace { epoch: 9, step: 1 }, hash };
        Some(match self.chance.within(0, 5) {
            0 => Command::Report { attempt, worker, report: trainer.report(attempt.trial, 7) },
            1 => Command::Complete { attempt, worker, outcome: Outcome::Trained { model: None } },
            2 => Command::KeepCheckpoint { attempt, worker, checkpoint },
            3 => Command::LoseCheckpoint { attempt, worker, hash, problem: String::new() },
            _ => {
                let outcome = Outcome::Evaluated(trainer.test(attempt.trial));
                Command::Complete { attempt, worker, outcome }
            }
        })
    }
}
