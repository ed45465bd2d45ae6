//! The rules of the final evaluation.

use fittingroom_common::id::{Attempt, AttemptNumber, TrialId};
use fittingroom_common::work::Holder;

use crate::audit::{Audit, Violation};

impl Audit {
    pub(super) fn start_evaluation(&mut self, attempt: Attempt, holder: &Holder) {
        let id = attempt.trial;
        if self.trial(id).is_none() {
            return self.find(Violation::UnknownTrial { trial: id });
        }
        if self.best() != Some(id) {
            self.find(Violation::EvaluatedNotBest { trial: id });
        }
        if !self.open.is_empty() || !self.is_all_drawn() {
            self.find(Violation::EvaluatedEarly { trial: id });
        }
        if self.evaluation.is_done {
            self.find(Violation::EvaluatedTwice { trial: id });
        }
        if let Some((running, _)) = self.evaluation.running {
            self.find(Violation::StillRunning { attempt, running });
        }
        self.number(attempt);
        let slot = self.take_slot(attempt, holder);
        self.evaluation.running = Some((attempt, slot));
    }

    /// Ends an evaluation; answers whether this attempt was one.
    pub(super) fn end_evaluation(&mut self, attempt: Attempt) -> bool {
        match self.evaluation.running {
            Some((evaluating, slot)) if evaluating == attempt => {
                self.slots.remove(&slot);
                self.evaluation.running = None;
                true
            }
            _ => false,
        }
    }

    pub(super) fn evaluated(&mut self, id: TrialId) {
        if self.evaluation.is_done {
            self.find(Violation::EvaluatedTwice { trial: id });
        }
        if self.best() != Some(id) {
            self.find(Violation::EvaluatedNotBest { trial: id });
        }
        match self.evaluation.running {
            Some((attempt, _)) if attempt.trial == id => drop(self.end_evaluation(attempt)),
            _ => {
                let number = self.trial(id).and_then(|trial| trial.newest).unwrap_or(AttemptNumber::FIRST);
                self.find(Violation::NotRunning { attempt: Attempt { trial: id, number } });
            }
        }
        self.evaluation.is_done = true;
    }
}
