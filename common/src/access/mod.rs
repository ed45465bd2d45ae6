//! How a program reaches a coordinator that does not trust just anybody: what it shows (a token), and
//! whom it trusts (the coordinator's certificate authority).
//!
//! Both programs get their channels here, so that there is one place that checks certificates and one
//! that sends secrets. Nothing is opened yet: a channel connects when its owner makes it.

mod token;
mod trust;

use std::io;
use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{ClientTlsConfig, Endpoint, Uri};
use tonic::{Request, Status};

pub use token::{Token, TokenDigest, TokenError};
pub use trust::{Fingerprint, FingerprintError, Trust, distrust};

/// The environment variable that holds a token. It is no flag: a command line can be read by everybody
/// on the machine.
pub const TOKEN_VARIABLE: &str = "FITTINGROOM_TOKEN";

/// The longest file of a token or a certificate authority that is read, in bytes.
const MOST_FILE_BYTES: u64 = 1 << 20;

/// What a caller shows and whom it trusts.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What the coordinator asks for, unless it is open to everybody.
    pub token: Option<Token>,
    /// How the coordinator's certificate is checked; needed for `https://`.
    pub trust: Option<Trust>,
}

/// Where [`Access`] comes from, as it was given on the command line or in the environment.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file whose first line is the token.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate authority.
    pub authority: Option<PathBuf>,
    /// The fingerprint of the certificate authority.
    pub fingerprint: Option<Fingerprint>,
}

/// Why a coordinator cannot be called in the way that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("{path:?} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The token file holds no token.
    #[error("the first line of {path:?} is no token: {source}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TokenError,
    },
    /// The environment variable holds no token.
    #[error("{TOKEN_VARIABLE} holds no token: {0}")]
    TokenVariable(#[source] TokenError),
    /// The file of the certificate authority holds no certificate.
    #[error("{path:?} holds no certificate in PEM form: {problem}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It is not said how to know the coordinator.
    #[error(
        "{uri} is encrypted, and nothing says by what to know the coordinator: give --ca-fingerprint (`fittingroom certs` prints it) or --ca FILE (its certs/ca.pem)"
    )]
    Unknown {
        /// The coordinator's address.
        uri: String,
    },
    /// A certificate authority is given for an address without encryption.
    #[error(
        "{uri} is not encrypted, so the coordinator cannot be checked against --ca or --ca-fingerprint: write https://"
    )]
    Unencrypted {
        /// The coordinator's address.
        uri: String,
    },
    /// The connection cannot be set up.
    #[error("the connection to {uri} cannot be set up: {problem}")]
    Setup {
        /// The coordinator's address.
        uri: String,
        /// What is wrong.
        problem: String,
    },
}

/// A channel that shows its token with every call.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Puts the token into the headers of each call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

impl Access {
    /// Reads what was given. A token in the environment counts for more than one in a file.
    pub fn read(sources: &Sources) -> Result<Self, AccessError> {
        let token = match std::env::var(TOKEN_VARIABLE) {
            Ok(text) if !text.is_empty() => Some(text.parse().map_err(AccessError::TokenVariable)?),
            Ok(_) | Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(AccessError::TokenVariable(TokenError));
            }
        };
        let token = match (token, &sources.token_file) {
            (None, Some(path)) => Some(read_token(path)?),
            (token, _) => token,
        };
        let trust = match (&sources.authority, sources.fingerprint) {
            (Some(path), _) => Some(Trust::authority(path, &read_file(path)?)?),
            (None, Some(fingerprint)) => Some(Trust::Fingerprint(fingerprint)),
            (None, None) => None,
        };
        Ok(Self { token, trust })
    }

    /// An endpoint that encrypts and checks the other side wherever the address says so.
    pub fn endpoint(&self, uri: &Uri) -> Result<Endpoint, AccessError> {
        let endpoint = Endpoint::from(uri.clone());
        match (uri.scheme_str(), &self.trust) {
            (Some("https"), Some(trust)) => {
                let setup = |problem: String| AccessError::Setup { uri: shown(uri), problem };
                let verifier = trust.verifier().map_err(|error| setup(error.to_string()))?;
                // An IPv6 address stands in brackets in an address, and without them in a certificate.
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                let tls = ClientTlsConfig::new().domain_name(host);
                endpoint.tls_config_with_verifier(tls, verifier).map_err(|error| {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    setup(cause.unwrap_or_else(|| error.to_string()))
                })
            }
            (Some("https"), None) => Err(AccessError::Unknown { uri: shown(uri) }),
            (_, Some(_)) => Err(AccessError::Unencrypted { uri: shown(uri) }),
            (_, None) => Ok(endpoint),
        }
    }

    /// A channel whose calls show the token.
    pub fn show(&self, channel: tonic::transport::Channel) -> Channel {
        InterceptedService::new(channel, Bearer(self.token.as_ref().and_then(Token::header)))
    }

    /// Whether calls to this address would carry the token through a network for everybody to read.
    pub fn exposes_token(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.token.is_some() && uri.scheme_str() != Some("https") && !is_local
    }
}

fn shown(uri: &Uri) -> String {
    uri.to_string().trim_end_matches('/').to_owned()
}

fn read_token(path: &Path) -> Result<Token, AccessError> {
    let bytes = read_file(path)?;
    let wrong = |source| AccessError::TokenFile { path: path.to_owned(), source };
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(TokenError))?;
    text.lines().next().unwrap_or_default().parse().map_err(wrong)
}

fn read_file(path: &Path) -> Result<Vec<u8>, AccessError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|source| AccessError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(trust: Option<Trust>) -> Access {
        Access { token: Some(Token::from_bits([7; 32])), trust }
    }

    #[test]
    fn an_address_and_what_is_trusted_must_fit() {
        let fingerprint = Some(Trust::Fingerprint(Fingerprint::of(b"an authority")));
        for (uri, trust, said) in [
            ("http://127.0.0.1:7733", None, None),
            ("https://node:7733", fingerprint.clone(), None),
            ("https://[::1]:7733", fingerprint.clone(), None),
            ("https://node:7733", None, Some("--ca-fingerprint")),
            ("http://node:7733", fingerprint, Some("write https://")),
        ] {
            let endpoint = access(trust).endpoint(&uri.parse().expect("a URI"));
            match (endpoint, said) {
                (Ok(_), None) => {}
                (Err(error), Some(said)) if error.to_string().contains(said) => {}
                (got, _) => panic!("{uri}: {got:?} instead of {said:?}"),
            }
        }
    }

    #[test]
    fn a_token_that_would_travel_openly_is_noticed() {
        for (uri, exposed) in [
            ("http://127.0.0.1:7733", false),
            ("http://[::1]:7733", false),
            ("http://localhost:7733", false),
            ("https://node:7733", false),
            ("http://node:7733", true),
            ("http://10.0.0.1:7733", true),
        ] {
            assert_eq!(access(None).exposes_token(&uri.parse().expect("a URI")), exposed, "{uri}");
        }
        assert!(!Access::default().exposes_token(&Uri::from_static("http://node:7733")));
    }

    #[test]
    fn a_token_file_is_read_to_the_end_of_its_first_line() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("token");
        let token = Token::from_bits([9; 32]);
        let read = |text: &str| {
            std::fs::write(&path, text).expect("writes");
            read_token(&path)
        };
        for text in [token.reveal(), format!("{}\n", token.reveal()), format!("{}\r\nmore", token.reveal())] {
            assert_eq!(read(&text).expect("a token").digest(), token.digest());
        }
        let wrong = "a-secret-that-is-no-token";
        let message = read(wrong).expect_err("no token").to_string();
        assert!(!message.contains(wrong), "{message} tells the secret");
    }

    #[test]
    fn no_secret_is_shown_by_debug() {
        let access = access(None);
        let shown = format!("{access:?}{:?}", access.token.as_ref().and_then(Token::header));
        assert!(!shown.contains("0707"), "{shown}");
    }
}
