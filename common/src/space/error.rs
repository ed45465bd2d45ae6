//! What is wrong with a search file: a message, where it points, and what to do.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::tree::Place;

/// What is wrong with a search file. Printing it gives the message alone; [`SpaceError::located`]
/// puts the place before it, and miette shows the line.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SpaceError {
    message: Box<str>,
    help: Option<Box<str>>,
    line: usize,
    column: usize,
    marked: SourceSpan,
    text: Box<NamedSource<String>>,
}

/// Something to be said of an accepted search file: a part that means nothing here or was hardly meant so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is, and what to do.
    pub message: String,
    /// The line that it is about, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// What is wrong and where, before the text and its name are added.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Complaint {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl SpaceError {
    pub(super) fn new(file_name: &str, text: &str, complaint: Complaint) -> Self {
        let Place { line, column, length } = complaint.place;
        Self {
            message: complaint.message.into(),
            help: complaint.help.map(Into::into),
            line,
            column,
            marked: marked(text, complaint.place, length),
            text: Box::new(NamedSource::new(file_name, text.to_owned()).with_language("yaml")),
        }
    }

    /// The line that is wrong, from 1.
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The column that is wrong, in characters from 1.
    pub const fn column(&self) -> usize {
        self.column
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, where the message does not say it already.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The message with its place before it, `file.yaml:3:7: message`, as editors understand it.
    pub fn located(&self) -> String {
        format!("{}:{}:{}: {}", self.text.name(), self.line, self.column, self.message)
    }
}

/// The bytes of the text to mark.
fn marked(text: &str, place: Place, length: usize) -> SourceSpan {
    let line_start: usize = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    let rest = text.get(line_start..).unwrap_or_default();
    let line = rest.lines().next().unwrap_or_default();
    let bytes = |characters: usize| line.char_indices().nth(characters).map_or(line.len(), |(at, _)| at);
    let (start, end) = (bytes(place.column - 1), bytes((place.column - 1).saturating_add(length)));
    (line_start + start, end - start).into()
}

impl Diagnostic for SpaceError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.text.as_ref())
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(
            Some("here".to_owned()),
            self.marked,
        ))))
    }
}
