//! `fittingroom pause`, `resume`, `stop` and `cancel`: changes of a search's state.

use clap::Args;
use fittingroom_common::id::Name;
use fittingroom_common::operator::Action;
use fittingroom_common::view::SearchState;
use serde::Serialize;

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::flags::JsonFlag;
use super::output::{Form, Output};

/// Which search to change.
#[derive(Args, Debug)]
pub(crate) struct ControlArgs {
    /// The search
    name: Name,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct Changed<'a> {
    search: &'a str,
    state: &'static str,
}

/// Runs the command.
pub(crate) async fn run(
    action: Action,
    args: ControlArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let name = &args.name;
    let state = Client::connect(coordinator).await?.control(name, action).await?;
    match args.json.form() {
        Form::Json => output.json(&Changed { search: name.as_str(), state: state.name() }),
        Form::Text => output.line(&format!("{name} is now {state}{}", meaning(state))),
    }
}

/// What the new state means for trials.
const fn meaning(state: SearchState) -> &'static str {
    match state {
        SearchState::Running => ": workers get trials",
        SearchState::Paused => ": no new trials start until it is resumed; running ones go on",
        SearchState::Stopping => ": no new trials start; running ones may finish",
        SearchState::Complete => "",
        SearchState::Cancelled => ": what ran was dropped",
        SearchState::Failed => "",
    }
}
