//! Logs that keep every rule.

use super::*;

#[test]
fn a_good_log_has_no_findings_and_is_counted() {
    let audit = audit(&good());
    assert_eq!(audit.findings(), []);
    assert_eq!(audit.tally(), Tally { events: 21, attempts: 4, epochs: 5, repeated_epochs: 1 });
    assert_eq!(audit.state(), Some(SearchState::Complete));
    assert_eq!(audit.counts(), TrialCounts { complete: 2, failed: 1, ..TrialCounts::default() });
    assert_eq!((audit.best(), audit.leases()), (Some(TrialId::new(0)), 0));
}

#[test]
fn the_audit_and_the_state_machine_tell_the_same_of_a_good_log() {
    let at = Timestamp::from_millis(0);
    let events = good().into_iter().map(|fact| Event { at, fact });
    for length in 1..=good().len() {
        let lease = Duration::from_secs(30);
        let search = Search::replay(SearchId::new(1), events.clone().take(length), lease).expect("created");
        let audit = audit(&good()[..length]);
        assert_eq!(audit.findings(), [], "the first {length}");
        assert_eq!(audit.counts(), search.summary().counts, "the first {length}");
        assert_eq!(audit.leases(), search.leases(), "the first {length}");
        assert_eq!(audit.best(), search.best().map(|best| best.row.trial), "the first {length}");
    }
}

#[test]
fn a_stopped_a_paused_and_a_cancelled_search_are_good_too() {
    let start = &good()[..5];
    let stopped = [stopping(), failed(0, 1, FailureReason::TrainerCrashed), cancelled(0)];
    let rest = [failed(1, 1, FailureReason::Diverged), given_up(1), Fact::SearchCompleted];
    let paused = [Fact::SearchPaused, reported(0, 1, 1, 0.1), Fact::SearchResumed, planned(2)];
    let released = [Fact::AttemptReleased { attempt: attempt(0, 1) }, started(0, 2, 3)];
    for (name, rest) in [
        ("stopped", [&stopped[..], &rest].concat()),
        ("paused", paused.to_vec()),
        ("cancelled", vec![Fact::SearchCancelled]),
        ("released", released.to_vec()),
    ] {
        assert_eq!(audit(&[start, &rest].concat()).findings(), [], "{name}");
    }
}

#[test]
fn an_attempt_goes_on_after_the_newest_checkpoint_that_is_not_lost() {
    let mut goes_on = good();
    goes_on.insert(6, kept(1, 1, 1));
    let mut falls_back = goes_on.clone();
    falls_back.insert(9, lost(1, 2, b"checkpoint"));
    assert_eq!(audit(&falls_back).findings(), []);
    assert_eq!(audit(&falls_back).tally().repeated_epochs, 1);
    goes_on.retain(|fact| *fact != reported(1, 2, 1, 0.3));
    assert_eq!(audit(&goes_on).findings(), []);
    assert_eq!(audit(&goes_on).tally().repeated_epochs, 0);
}
