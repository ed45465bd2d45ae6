//! A program's log: lines on stderr, for people or for programs.
//!
//! A line has fields of its own and those of the spans around it: `worker`, `slot`, `search`, `trial`,
//! `attempt`. In JSON all of them stand side by side, so that a line may have no field that a span
//! around it has too. Spans that carry such names are of the level `error`, so that no filter leaves
//! their lines without them.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How the lines of a log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// A JSON document on each line.
    Json,
}

/// What is no form of a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no form of a log: say text or json")]
pub struct LogFormatError(String);

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(text: &str) -> Result<Self, LogFormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogFormatError(text.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Which lines are shown: a level, or a level for each part of the program, as `tracing` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// What does not say which lines are shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wrong:?} is no level: say error, warn, info, debug, trace or off, or one for each part, such as info,fittingroom_coordinator::log=debug"
)]
pub struct LogFilterError {
    wrong: String,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        // To `tracing` a lone word that is no level is a part of the program: a mistyped level would
        // silence everything.
        let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
        let is_known = |part: &&str| is_level(part.rsplit_once('=').map_or(part, |(_, level)| level));
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let filter = parts.join(",");
        match parts.iter().find(|part| !is_known(part)) {
            None if EnvFilter::builder().parse(&filter).is_ok() => Ok(Self(filter)),
            wrong => Err(LogFilterError { wrong: wrong.unwrap_or(&text).to_string() }),
        }
    }
}

impl LogFilter {
    /// Everything of this level and above, which must be one of `tracing`'s.
    pub fn level(level: tracing::Level) -> Self {
        Self(level.to_string())
    }
}

/// Starts the log of this process. Where one was started before, that one stays.
pub fn start_log(format: LogFormat, filter: &LogFilter) {
    let filter = EnvFilter::builder().parse_lossy(&filter.0);
    let lines = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let is_terminal = std::io::stderr().is_terminal();
            let text = tracing_subscriber::fmt::layer();
            lines.with(text.with_writer(std::io::stderr).with_ansi(is_terminal).with_target(false)).try_init()
        }
        LogFormat::Json => {
            let json = json_subscriber::layer().with_writer(std::io::stderr);
            let json = json.flatten_event(true).with_current_span(false).flatten_span_list_on_top_level(true);
            lines.with(json).try_init()
        }
    };
    // A caller that set up a log of its own has what it wants.
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_levels_of_parts() {
        for text in
            ["info", "WARN", "off", "warn,fittingroom_worker::agent=debug", "info, h2=off", "[x]=info"]
        {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for (text, wrong) in [
            ("inof", "inof"),
            ("", ""),
            ("info,fittingroom_worker", "fittingroom_worker"),
            ("h2=loud", "h2=loud"),
            ("info,=", "="),
        ] {
            let error = text.parse::<LogFilter>().expect_err(text);
            assert_eq!(error, LogFilterError { wrong: wrong.to_owned() }, "{text}");
        }
    }

    #[test]
    fn forms_are_read_as_they_are_shown() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("JSON".parse::<LogFormat>(), Err(LogFormatError("JSON".to_owned())));
    }
}
