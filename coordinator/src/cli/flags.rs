//! Flags that several commands have.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use fittingroom_common::access::{Access, Fingerprint, Sources};
use fittingroom_common::process::{LogFilter, LogFormat, start_log};
use tracing::Level;

use super::error::CliError;
use super::output::Form;

/// `--json`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct JsonFlag {
    /// Print JSON for programs instead of text for people
    #[arg(long, env = "FITTINGROOM_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

impl JsonFlag {
    /// What it asks for.
    pub(crate) const fn form(self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }
}

/// `--follow`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FollowFlag {
    /// Show the leaderboard as it changes until the search ends; leaving with Ctrl-C lets the search go on
    #[arg(long, env = "FITTINGROOM_FOLLOW", value_parser = BoolishValueParser::new())]
    follow: bool,
}

impl FollowFlag {
    /// Whether it was given.
    pub(crate) const fn is_set(self) -> bool {
        self.follow
    }
}

/// `--log-level`, `--log-format`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogFlags {
    /// What is told on stderr: error, warn, info, debug, trace or off, or a level for each part of the program [default: info for serve, else warn]
    #[arg(long, global = true, value_name = "LEVEL", env = "FITTINGROOM_LOG")]
    log_level: Option<LogFilter>,
    /// How it is told: text, or json with a document on each line
    #[arg(long, global = true, value_name = "FORMAT", env = "FITTINGROOM_LOG_FORMAT", default_value_t)]
    log_format: LogFormat,
}

impl LogFlags {
    /// Starts the log of this process.
    pub(crate) fn start(&self, default: Level) {
        let filter = self.log_level.clone().unwrap_or_else(|| LogFilter::level(default));
        start_log(self.log_format, &filter);
    }
}

/// How a coordinator that does not trust everybody is called.
#[derive(Args, Clone, Debug)]
pub(crate) struct AccessFlags {
    /// A file with the token to show to the coordinator; FITTINGROOM_TOKEN may hold the token itself
    #[arg(long, global = true, value_name = "FILE", env = "FITTINGROOM_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The certificate authority (PEM) by which an https:// coordinator is known
    #[arg(long, global = true, value_name = "FILE", env = "FITTINGROOM_CA")]
    ca: Option<PathBuf>,
    /// The SHA-256 of that authority, instead of its file
    #[arg(
        long,
        global = true,
        value_name = "SHA256",
        env = "FITTINGROOM_CA_FINGERPRINT",
        conflicts_with = "ca"
    )]
    ca_fingerprint: Option<Fingerprint>,
}

impl AccessFlags {
    /// Reads what they name.
    pub(crate) fn read(&self) -> Result<Access, CliError> {
        let Self { token_file, ca, ca_fingerprint } = self.clone();
        Ok(Access::read(&Sources { token_file, authority: ca, fingerprint: ca_fingerprint })?)
    }
}
