//! Who may call: certificates, tokens with roles, and the limits that hold for everybody.
//!
//! ```text
//! listener ─► connections ─► TLS handshake ─► gate ─► services
//!              how many        tls, certs      token and role, before a body is decoded
//! tokens.json ─► watch ─► keys ──────────────────┘    a revoked key ends the calls that it opened
//! ```
//!
//! The gate knows the calls by name (`methods`) and nothing of what they carry; the services know who
//! calls ([`Caller`]) and nothing of tokens.

mod body;
mod certs;
mod connections;
mod gate;
mod keys;
mod methods;
mod private_file;
mod role;
mod tls;
mod tokens;
mod watch;

use std::path::Path;

pub use certs::{CertificateFolder, CertsError, Existing, Issued, Made};
pub use connections::MOST_CONNECTIONS;
pub(crate) use connections::connections;
pub(crate) use gate::GateLayer;
pub use keys::{Caller, Keys};
pub(crate) use methods::{MOST_CHUNK_BYTES, MOST_LAUNCH_BYTES, MOST_MESSAGE_BYTES, paths};
pub(crate) use private_file::write as write_private;
pub use role::{Role, RoleError};
pub use tls::{Tls, TlsError, TlsFiles};
pub use tokens::{Entry, TokenFile, TokenFileError, TokenId};
pub(crate) use watch::watch;

/// How a coordinator protects itself beyond what lies in its data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// The server's certificate and key; `None` for those that `fittingroom certs` made, if it did.
    pub tls: Option<TlsFiles>,
    /// The most connections at a time.
    pub max_connections: usize,
}

impl Default for Protection {
    fn default() -> Self {
        Self { tls: None, max_connections: MOST_CONNECTIONS }
    }
}

impl Protection {
    /// The certificate and key to serve with; `None` where there are none.
    pub fn tls_files(&self, data: &Path) -> Option<TlsFiles> {
        self.tls.clone().or_else(|| CertificateFolder::in_data(data).server_files())
    }

    /// What has to be run before the coordinator may be reached from other machines: nothing once it
    /// encrypts and has a token to ask for.
    pub fn missing(&self, data: &Path) -> Result<Vec<String>, TokenFileError> {
        let shown = shell_word(data);
        let mut commands = Vec::new();
        if self.tls_files(data).is_none() {
            commands.push(format!("fittingroom certs --data {shown} --name HOST"));
        }
        if TokenFile::in_data(data).read()?.is_none_or(|entries| entries.is_empty()) {
            commands.push(format!("fittingroom token create --role operator --data {shown}"));
        }
        Ok(commands)
    }
}

/// A path as it can be pasted into a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%~".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
