//! Everything that can go wrong in a command: one message each, and the exit code it means.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use fittingroom_common::access::AccessError;
use fittingroom_common::convert::DecodeError;
use fittingroom_common::dataset::DatasetError;
use fittingroom_common::id::Name;
use fittingroom_common::space::SpaceError;
use fittingroom_common::view::SearchState;
use miette::{GraphicalReportHandler, GraphicalTheme};

use super::safetensors::HeaderError;
use super::text::clean;
use crate::access::{CertsError, TokenFileError};
use crate::backup::RestoreError;
use crate::check::CheckError;
use crate::serve::ServeError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Nothing answers at the coordinator's address.
    #[error(
        "no coordinator answers at {url}: {why}; start one with `fittingroom serve --data DIR`, or name another with --coordinator"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The connection was there, and broke.
    #[error("the connection to the coordinator at {url} broke: {why}{}", encrypted_help(url, why))]
    Broken {
        /// The address.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The coordinator took too long.
    #[error("the coordinator at {url} did not answer in time; try again, or look at its log")]
    Slow {
        /// The address.
        url: String,
    },
    /// The coordinator said no, and why.
    #[error("{}", clean(message))]
    Refused {
        /// What the coordinator said.
        message: String,
    },
    /// The coordinator cannot answer now, and says why; it may later.
    #[error("the coordinator cannot do that now: {}", clean(message))]
    Busy {
        /// What the coordinator said.
        message: String,
    },
    /// The coordinator does not know the call.
    #[error(
        "the coordinator at {url} does not know this command: it is of another version than this program ({})",
        env!("CARGO_PKG_VERSION")
    )]
    OtherVersion {
        /// The address.
        url: String,
    },
    /// The coordinator's answer is not what this version expects.
    #[error(
        "the coordinator's answer cannot be read: {source}; is it of the same version as this program ({})?",
        env!("CARGO_PKG_VERSION")
    )]
    Undecodable {
        /// What is wrong with it.
        #[from]
        source: DecodeError,
    },
    /// An answer ended before it was complete.
    #[error("the coordinator's answer ended early; try again, or look at its log")]
    EndedEarly,
    /// No search has the name.
    #[error("there is no search {name}{}", suggest(nearest))]
    UnknownSearch {
        /// The name as it was typed.
        name: Name,
        /// The names that are most like it.
        nearest: Vec<Name>,
    },
    /// The search file is not a search file.
    #[error("{}", .0.located())]
    SearchFile(Box<SpaceError>),
    /// The search file cannot be read.
    #[error("the search file {path:?} cannot be read: {source}")]
    NoSearchFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("{path:?} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{path:?} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A dataset is not usable.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The dataset that a search file names by its folder is not usable.
    #[error("the search file's dataset {folder:?} is not usable: {source}")]
    DatasetFolder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: DatasetError,
    },
    /// What was downloaded is not what was asked for.
    #[error(
        "the model was altered on its way: its BLAKE3 is {found}, not {expected}; try again, and check the coordinator's artifacts"
    )]
    Altered {
        /// The hash of what came.
        found: String,
        /// The hash that was asked for.
        expected: String,
    },
    /// An uploaded file arrived as something else.
    #[error("an uploaded file arrived altered: the coordinator stored {found}, not {expected}; try again")]
    UploadAltered {
        /// The hash of what was stored.
        found: String,
        /// The hash of what was sent.
        expected: String,
    },
    /// The model is not a safetensors file.
    #[error("the model is not a usable safetensors file: {0}")]
    Model(#[from] HeaderError),
    /// The search that was followed from its launch failed.
    #[error("the search {name} ended {state}{}", reason_for_people(reason))]
    SearchFailed {
        /// The search.
        name: Name,
        /// How it ended.
        state: SearchState,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// The coordinator cannot be called in the way that was asked for.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There are no certificates.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// The tokens cannot be read or changed.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The server ended with an error.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A data folder cannot be looked over.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A data folder was looked over, and something is wrong.
    #[error("{data:?} is not sound: {problems} problem{}; keep a copy before anything else", if *problems == 1 { "" } else { "s" })]
    Unsound {
        /// The folder.
        data: PathBuf,
        /// How many problems there are.
        problems: u64,
    },
    /// A backup was not restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Results cannot be printed.
    #[error("results cannot be printed: {0}")]
    Output(#[source] io::Error),
    /// The terminal cannot be drawn on or read from.
    #[error("the terminal cannot be used: {0}; `fittingroom leaderboard NAME --follow | cat` needs none")]
    Terminal(#[source] io::Error),
    /// Ctrl-C cannot be heard.
    #[error("signals cannot be heard: {0}")]
    Signals(#[source] io::Error),
    /// The operator pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// The exit code: 1 for a failed operation, 2 for a bad search file.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::SearchFile(_)
            | Self::NoSearchFile { .. }
            | Self::Access(_)
            | Self::Serve(ServeError::Exposed { .. }) => 2,
            // As a shell reports a process that SIGINT ended.
            Self::Interrupted => 130,
            // Whoever read the output has what they wanted: `fittingroom list | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// What is told on stderr: the message, and of a search file the place too.
    pub(crate) fn for_people(&self) -> String {
        match self {
            Self::SearchFile(error) => format!("{self}\n{}", excerpt(error)),
            _ => format!("error: {self}"),
        }
    }
}

/// The lines of a search file that an error is about, marked, and what to do about it.
fn excerpt(error: &SpaceError) -> String {
    let theme = if io::stderr().is_terminal() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let mut excerpt = String::new();
    let width = crossterm::terminal::size().map_or(100, |(columns, _)| usize::from(columns).clamp(40, 120));
    let handler = GraphicalReportHandler::new_themed(theme).with_context_lines(2).with_width(width);
    if handler.render_report(&mut excerpt, error).is_err() {
        return String::new();
    }
    // The first lines repeat the message, which stands above already, in a form that editors read.
    match excerpt.find('╭') {
        Some(at) => {
            let line = excerpt[..at].rfind('\n').map_or(0, |end| end + 1);
            excerpt[line..].trim_end().to_owned()
        }
        None => error.help().map(|help| format!("  help: {help}")).unwrap_or_default(),
    }
}

/// What HTTP/2 makes of a server that answers in TLS.
fn encrypted_help(url: &str, why: &str) -> &'static str {
    if url.starts_with("http://") && why.contains("frame with invalid size") {
        "; does it encrypt? Then its address begins with https://"
    } else {
        ""
    }
}

fn suggest(nearest: &[Name]) -> String {
    if nearest.is_empty() {
        return "; `fittingroom list` shows those there are".to_owned();
    }
    let names: Vec<&str> = nearest.iter().map(Name::as_str).collect();
    format!("; did you mean {}?", names.join(" or "))
}

fn reason_for_people(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", clean(reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let closed = CliError::Output(io::ErrorKind::BrokenPipe.into());
        let full = CliError::Output(io::ErrorKind::StorageFull.into());
        assert_eq!((closed.exit_code(), full.exit_code()), (0, 1));
    }

    #[test]
    fn an_unknown_search_is_answered_with_the_nearest_names() {
        let message = |nearest: &[&str]| {
            let nearest = nearest.iter().map(|name| Name::sanitised(name)).collect();
            let name = Name::sanitised("quikstart");
            CliError::UnknownSearch { name, nearest }.to_string()
        };
        assert_eq!(
            message(&["quickstart", "quickstart-2"]),
            "there is no search quikstart; did you mean quickstart or quickstart-2?"
        );
        assert_eq!(message(&[]), "there is no search quikstart; `fittingroom list` shows those there are");
    }

    #[test]
    fn what_the_coordinator_says_cannot_steer_the_terminal() {
        let message = "\u{1b}[2Jno\r\nsuch\tthing\u{202e}".to_owned();
        assert_eq!(CliError::Refused { message }.to_string(), "[2Jno such thing");
    }
}
