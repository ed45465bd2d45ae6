//! `fittingroom token`: who may call the coordinator. Works on the data folder, whether or not the
//! coordinator runs: that is how the first operator gets in.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fittingroom_common::access::{Fingerprint, TOKEN_VARIABLE, Token};
use fittingroom_common::id::Name;

use super::client::CoordinatorUrl;
use super::error::CliError;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use super::table;
use crate::access::{CertificateFolder, Entry, Role, TokenFile, shell_word, write_private};
use crate::clock::{Clock, SystemClock};

/// Makes, lists and revokes the tokens with which the coordinator is called.
#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Makes a token and shows it, this once, with the line that uses it. From then on every call needs one.
///
/// A coordinator that runs without tokens asks for them within a second of the first one. Workers that joined it
/// without one end, and their trials wait for others.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fittingroom token create --role worker --name gpu-box --data ./fittingroom-data --out gpu-box.env\n\nRoles: an operator may do everything; a worker takes and reports trials; a viewer looks at searches and gets models.\n--coordinator URL says how others reach the coordinator, for the line that is shown."
)]
struct CreateArgs {
    /// What its bearer may do: operator, worker or viewer
    #[arg(long, value_name = "ROLE", env = "FITTINGROOM_ROLE")]
    role: Role,
    /// What people call it [default: the role and a number]
    #[arg(long, value_name = "NAME", env = "FITTINGROOM_TOKEN_NAME")]
    name: Option<Name>,
    /// Write it into a file of environment variables that only you can read, instead of showing it
    #[arg(long, value_name = "FILE", env = "FITTINGROOM_OUT")]
    out: Option<PathBuf>,
    #[command(flatten)]
    data: DataFlag,
    #[command(flatten)]
    json: JsonFlag,
}

/// Lists the tokens: names, roles and when they were made, never the tokens themselves.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom token list --data ./fittingroom-data")]
struct ListArgs {
    #[command(flatten)]
    data: DataFlag,
    #[command(flatten)]
    json: JsonFlag,
}

/// Takes a token back; a running coordinator ends what was called with it within a second.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom token revoke gpu-box --data ./fittingroom-data")]
struct RevokeArgs {
    /// Its name, or its id
    which: String,
    #[command(flatten)]
    data: DataFlag,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args, Debug)]
struct DataFlag {
    /// The coordinator's data folder
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    data: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: TokenArgs, url: &CoordinatorUrl, output: &mut Output) -> Result<(), CliError> {
    match args.command {
        TokenCommand::Create(args) => create(args, url, output),
        TokenCommand::List(args) => list(&args, output),
        TokenCommand::Revoke(args) => {
            let revoked = TokenFile::in_data(&args.data.data).revoke(&args.which)?;
            match args.json.form() {
                Form::Json => output.json(&json::Token::from(&revoked)),
                Form::Text => output.line(&format!("revoked {} ({})", revoked.name, revoked.role)),
            }
        }
    }
}

fn create(args: CreateArgs, url: &CoordinatorUrl, output: &mut Output) -> Result<(), CliError> {
    let data = &args.data.data;
    let certificates = CertificateFolder::in_data(data).read()?;
    let (entry, token) = TokenFile::in_data(data).create(args.role, args.name, SystemClock::start().now())?;
    let fingerprint = certificates.as_ref().map(|it| it.fingerprint);
    let names = certificates.map(|it| it.names).unwrap_or_default();
    let invitation = Invitation { url: reached_at(url, names.first()), fingerprint, token };
    if let Some(path) = &args.out {
        write_private(path, invitation.lines("\n").as_bytes())
            .map_err(|source| CliError::Write { path: path.clone(), source })?;
    }
    match (args.json.form(), &args.out) {
        (Form::Json, out) => output.json(&json::NewToken {
            token: json::Token::from(&entry),
            secret: out.is_none().then(|| invitation.token.reveal()),
            coordinator: &invitation.url,
            fingerprint: fingerprint.map(|it| it.to_string()),
        }),
        (Form::Text, None) => output.line(&shown(&entry, &invitation)),
        (Form::Text, Some(path)) => {
            // Without a slash a shell looks for it elsewhere.
            let path = if path.components().count() == 1 { Path::new(".").join(path) } else { path.clone() };
            let path = shell_word(&path);
            let command = command_of(entry.role);
            output.line(&format!(
                "token {} ({}, id {}) is in {path}. Carry the file to where it is used, and there:\n  set -a; . {path}; set +a; {command}",
                entry.name,
                entry.role,
                entry.id(),
            ))
        }
    }
}

/// Where others reach the coordinator: as was said, or else by the first name of its certificate.
fn reached_at(url: &CoordinatorUrl, name: Option<&String>) -> String {
    let said = url.to_string();
    match name {
        Some(name) if said == super::DEFAULT_COORDINATOR => {
            let host = if name.contains(':') { format!("[{name}]") } else { name.clone() };
            format!("https://{host}:7733")
        }
        _ => said,
    }
}

/// All that a caller needs to know of a coordinator.
struct Invitation {
    url: String,
    fingerprint: Option<Fingerprint>,
    token: Token,
}

impl Invitation {
    /// The environment variables, each followed by `end`.
    fn lines(&self, end: &str) -> String {
        let fingerprint =
            self.fingerprint.map(|it| format!("FITTINGROOM_CA_FINGERPRINT={it}{end}")).unwrap_or_default();
        let (url, token) = (&self.url, self.token.reveal());
        format!("FITTINGROOM_COORDINATOR={url}{end}{fingerprint}{TOKEN_VARIABLE}={token}{end}")
    }
}

fn command_of(role: Role) -> &'static str {
    match role {
        Role::Worker => "fittingroom-worker run",
        Role::Operator | Role::Viewer => "fittingroom list",
    }
}

fn shown(entry: &Entry, invitation: &Invitation) -> String {
    let Entry { name, role, .. } = entry;
    format!(
        "\
token {name} ({role}, id {id}), shown this once:
  {secret}

Where it is used:
  {variables}{command}
",
        id = entry.id(),
        secret = invitation.token.reveal(),
        variables = invitation.lines(" "),
        command = command_of(*role),
    )
}

fn list(args: &ListArgs, output: &mut Output) -> Result<(), CliError> {
    let entries = TokenFile::in_data(&args.data.data).read()?.unwrap_or_default();
    match args.json.form() {
        Form::Json => output.json(&json::Tokens { tokens: entries.iter().map(json::Token::from).collect() }),
        Form::Text => output.line(&render(&entries, output.width())),
    }
}

fn render(entries: &[Entry], width: Option<u16>) -> String {
    if entries.is_empty() {
        return "no tokens; `fittingroom token create --role operator` makes one".to_owned();
    }
    let columns = [table::words("token"), table::words("role"), table::words("id"), table::words("made")];
    let rows = entries.iter().map(|entry| {
        vec![
            entry.name.to_string(),
            entry.role.to_string(),
            entry.id().to_string(),
            entry.created.to_string(),
        ]
    });
    table::lay_out(&columns, rows.collect(), width)
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Kept;
    use super::*;

    fn url(text: &str) -> CoordinatorUrl {
        text.parse().expect("good")
    }

    #[test]
    fn a_line_says_where_the_coordinator_is_and_how_it_is_known() {
        for (said, name, expected) in [
            (super::super::DEFAULT_COORDINATOR, None, "http://127.0.0.1:7733"),
            (super::super::DEFAULT_COORDINATOR, Some("node-1"), "https://node-1:7733"),
            (super::super::DEFAULT_COORDINATOR, Some("fd00::1"), "https://[fd00::1]:7733"),
            ("https://public:443", Some("node-1"), "https://public:443"),
        ] {
            assert_eq!(reached_at(&url(said), name.map(str::to_owned).as_ref()), expected);
        }
        let token = Token::from_bits([7; 32]);
        let invitation = Invitation {
            url: "https://node-1:7733".to_owned(),
            fingerprint: Some(Fingerprint::of(b"")),
            token: token.clone(),
        };
        assert_eq!(
            invitation.lines(" "),
            format!(
                "FITTINGROOM_COORDINATOR=https://node-1:7733 FITTINGROOM_CA_FINGERPRINT={} FITTINGROOM_TOKEN={} ",
                Fingerprint::of(b""),
                token.reveal()
            )
        );
    }

    #[test]
    fn a_token_is_shown_once_and_listed_without_itself() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let data = || DataFlag { data: folder.path().to_owned() };
        let output = Kept::default();
        let here = url("http://127.0.0.1:7733");
        let run = |command| run(TokenArgs { command }, &here, &mut output.output()).expect("works");
        let json = JsonFlag::default();
        let (role, name, out) = (Role::Worker, Some(Name::sanitised("gpu-box")), None);
        run(TokenCommand::Create(CreateArgs { role, name, out, data: data(), json }));
        let made = output.text();
        let secret =
            made.split("FITTINGROOM_TOKEN=").nth(1).expect("said").split(' ').next().expect("a word");
        assert!(secret.parse::<Token>().is_ok() && made.contains("fittingroom-worker run"), "{made}");
        run(TokenCommand::List(ListArgs { data: data(), json }));
        let listed = output.text()[made.len()..].to_owned();
        assert!(listed.contains("gpu-box") && !listed.contains(&secret[3..11]), "{listed}");
        run(TokenCommand::Revoke(RevokeArgs { which: "gpu-box".to_owned(), data: data(), json }));
        assert_eq!(TokenFile::in_data(folder.path()).read().expect("reads"), Some(vec![]));
    }
}
