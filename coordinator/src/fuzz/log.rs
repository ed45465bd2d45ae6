//! The events of a log, whatever they say.

use fittingroom_common::event::{Event, Fact};
use fittingroom_common::proto as pb;
use prost::Message;

use super::kept::{Kept, shown, use_up};
use super::{LEASE, SEARCH, must_agree};
use crate::audit::{Audit, MOST_FINDINGS};
use crate::history;
use crate::search::Search;

/// How many events are read.
const MOST_EVENTS: usize = 200;

/// Events, each with its length before it. They are facts: none can be refused. Where the audit finds
/// nothing wrong, the state is what it says, and a snapshot of it comes back the same.
pub fn log(bytes: &[u8]) {
    let (mut rest, mut events) = (bytes, Vec::<Event>::new());
    while !rest.is_empty() && events.len() < MOST_EVENTS {
        let Ok(event) = pb::Event::decode_length_delimited(&mut rest) else { break };
        events.extend(Event::try_from(event));
    }
    let audit = Audit::of(&events);
    assert!(audit.findings().len() <= MOST_FINDINGS);
    for finding in audit.findings() {
        assert!(finding.to_string().len() < 4_096, "{finding}");
    }
    let _ = history::attempts(&events);
    let Some(mut search) = Search::replay(SEARCH, events.iter().cloned(), LEASE) else { return };
    assert_eq!(search.version(), events.len() as u64);
    if audit.findings().is_empty() {
        must_agree(&search, &audit);
        let mut kept = Kept::default();
        kept.keep(search.take_snapshot(usize::MAX));
        let Some(Event { at, fact: Fact::SearchCreated(created) }) = events.first() else { return };
        let restored =
            kept.restored(Search::new(SEARCH, (**created).clone(), *at, LEASE)).expect("just kept");
        assert_eq!(shown(&restored), shown(&search));
    }
    use_up(search);
}
