//! Flags that several commands have.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::output::Form;

/// `--json`.
#[derive(Args, Clone, Copy, Debug)]
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
