//! `fittingroom certs`: the certificates with which the coordinator encrypts and is known.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use clap::builder::BoolishValueParser;
use rustls::pki_types::ServerName;

use super::error::CliError;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use crate::access::{CertificateFolder, Existing, Issued, Made, shell_word};
use crate::clock::{Clock, SystemClock};

/// Makes a certificate authority and the coordinator's certificate, in the data folder; what is there stays.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fittingroom certs --data ./fittingroom-data --name node-1.example.org --name 10.0.0.7\n\nA running coordinator takes a renewed certificate for its next connections, without a restart."
)]
pub(crate) struct CertsArgs {
    /// The coordinator's data folder; made if it is not there
    #[arg(long, value_name = "DIR", env = "FITTINGROOM_DATA")]
    data: PathBuf,
    /// A name or address by which others reach the coordinator; may be given more than once
    #[arg(long, value_name = "HOST", env = "FITTINGROOM_NAMES", value_delimiter = ',', value_parser = host)]
    name: Vec<String>,
    /// Issue the coordinator's certificate anew, under the same authority: for other names, or before it ends
    #[arg(long, env = "FITTINGROOM_RENEW", value_parser = BoolishValueParser::new())]
    renew: bool,
    #[command(flatten)]
    json: JsonFlag,
}

fn host(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("it takes a host name such as node-1.example.org, or an address such as 10.0.0.7".to_owned())
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: CertsArgs, output: &mut Output) -> Result<(), CliError> {
    let existing = if args.renew { Existing::Renew } else { Existing::Keep };
    let issued = CertificateFolder::in_data(&args.data).issue(&args.name, existing, SystemTime::now())?;
    match args.json.form() {
        Form::Json => output.json(&json::Certificates {
            fingerprint: issued.fingerprint.to_string(),
            names: &issued.names,
            expires: issued.expires.to_string(),
            made: issued.made != Made::Nothing,
        }),
        Form::Text => output.line(&render(&issued, &shell_word(&args.data))),
    }
}

fn render(issued: &Issued, data: &str) -> String {
    let made = match issued.made {
        Made::Nothing => "were there already",
        Made::Certificate => "renewed under the same authority",
        Made::Authority => "made",
    };
    let soon = issued.expires_soon(SystemClock::start().now());
    let hint = if soon { "; renew it with --renew" } else { "" };
    format!(
        "\
certificates {made}, in {data}/certs
names        {names}
valid until  {expires}{hint}
fingerprint  {fingerprint}

Workers and commands know the coordinator by that fingerprint of its authority: --ca-fingerprint, or
FITTINGROOM_CA_FINGERPRINT. Next:
  fittingroom token create --role operator --data {data}
  fittingroom serve --data {data} --listen 0.0.0.0:7733
",
        names = issued.names.join(", "),
        expires = issued.expires,
        fingerprint = issued.fingerprint,
    )
}
