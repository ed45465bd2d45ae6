//! The record beside a model.

use super::MOST_WORDS;
use crate::record::Record;

/// A record that is read says the same when it is written and read again.
pub fn record(bytes: &[u8]) {
    match Record::parse(bytes) {
        Ok(record) => {
            let written = serde_json::to_vec_pretty(&record).expect("a record can be written");
            assert_eq!(Record::parse(&written).expect("what was written"), record);
            assert_eq!(record.recipe.differences(&record.recipe), [""; 0]);
        }
        Err(error) => assert!(error.to_string().len() < MOST_WORDS, "{error}"),
    }
}
