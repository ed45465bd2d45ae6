//! Search files.

use miette::{GraphicalReportHandler, GraphicalTheme};
use prost::Message;

use super::MOST_WORDS;
use crate::proto as pb;
use crate::space::{DatasetChoice, SearchFields, SearchSpec};

/// The largest message that launches a search, in bytes.
const MOST_LAUNCHED: usize = 64 << 20;

/// A search file that is accepted is the same search on the wire and back; what is said about one that is
/// not points into it and can be shown.
pub fn search_file(bytes: &[u8]) {
    let breaks = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let lines = 1..=breaks + 1;
    let parsed = match SearchSpec::parse_bytes("search.yaml", bytes) {
        Ok(parsed) => parsed,
        Err(error) => {
            let place = (error.line(), error.column());
            assert!(lines.contains(&place.0) && place.1 >= 1, "{place:?} in {lines:?}: {error}");
            let words = error.message().len() + error.help().map_or(0, str::len);
            assert!(words < MOST_WORDS, "{words} bytes are said: {error}");
            let mut shown = String::new();
            let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
            handler.render_report(&mut shown, &error).expect("it can be shown");
            return;
        }
    };
    for note in &parsed.notes {
        assert!(lines.contains(&note.line) && note.column >= 1, "{note} is not in {lines:?}");
        assert!(note.message.len() < MOST_WORDS, "{note}");
    }
    let sent = pb::SearchSpec::from(&parsed.spec).encode_to_vec();
    assert!(sent.len() < MOST_LAUNCHED, "{} bytes are sent", sent.len());
    let received = pb::SearchSpec::decode(sent.as_slice()).expect("what was encoded");
    let received = SearchSpec::try_from(received).expect("the wire has the same rules");
    // The name and the dataset travel beside the search.
    let expected = SearchFields { name: None, dataset: DatasetChoice::default(), ..(*parsed.spec).clone() };
    assert_eq!(*received, expected);
    assert_eq!(received.trial_count(), parsed.spec.trial_count());
}
