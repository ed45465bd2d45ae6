//! What must be true when a search has ended.

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::id::SearchId;
use fittingroom_common::trial::FailureReason;
use fittingroom_common::view::{SearchState, TrialRow, TrialState};
use fittingroom_coordinator::search::{EVALUATION_ATTEMPTS, Search};

use super::World;
use crate::scenario::{LEASE, Template};

impl World<'_> {
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        let log = &self.coordinator.disk.log;
        let search = Search::replay(SearchId::new(1), log.iter().cloned(), LEASE).ok_or("no search")?;
        if let Some(live) = self.coordinator.search()
            && (live.summary() != search.summary() || !live.ranked().eq(search.ranked()))
        {
            return Err("the log tells another story than the state that wrote it".to_owned());
        }
        self.tally.whole += u64::from(is_whole(self.template, &search, log)?);
        // Of a search that is over nothing is kept: what is stored is to be deleted, or the next start does it.
        let forgotten = self.coordinator.store.forgotten();
        if self.coordinator.live.is_some() && !forgotten.is_empty() {
            return Err(format!("the search has ended, and these checkpoints are left: {forgotten:?}"));
        }
        self.tally.restored += self.coordinator.restored;
        self.tally.count(self.coordinator.audit.tally(), log);
        Ok(())
    }
}

/// Whether a search that has ended, with this log, ran to the end that an undisturbed one has. The error
/// says which promise was broken.
pub(crate) fn is_whole(template: &Template, search: &Search, log: &[Event]) -> Result<bool, String> {
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
    let trainer = &template.trainer;
    if let Some(row) = ranked.iter().find(|row| row.report != trainer.last_report(row.trial)) {
        return Err(format!("trial {} has other metrics than undisturbed: {:?}", row.trial, row.report));
    }
    if template.is_steadfast && !is_whole && !was_ended_by_hand(log) {
        return Err("a search that may try for ever gave a trial up".to_owned());
    }
    if is_whole {
        let found: Vec<_> = ranked.iter().map(|row| (row.trial, row.report)).collect();
        let spec = &template.created.spec;
        if found != trainer.leaderboard(spec.metric, spec.trial_count()) || !unranked.is_empty() {
            return Err(format!("the leaderboard is not that of an undisturbed run: {found:?}"));
        }
    }
    if let Some(best) = search.best()
        && search.state() == SearchState::Complete
        && !trainer.tracks_test
        && best.row.test != Some(trainer.test(best.row.trial))
        && evaluation_failures < EVALUATION_ATTEMPTS
    {
        return Err(format!("the best trial was not evaluated: {:?}", best.row.test));
    }
    Ok(is_whole)
}

fn was_ended_by_hand(log: &[Event]) -> bool {
    log.iter().any(|event| matches!(&event.fact, Fact::SearchStopping { .. } | Fact::SearchCancelled))
}
