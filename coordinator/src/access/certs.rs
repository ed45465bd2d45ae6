//! The coordinator's own certificate authority, and the server certificate that it signs: made once,
//! renewed under the same authority, so that whoever knows the authority need not learn anything new.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fittingroom_common::access::Fingerprint;
use fittingroom_common::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::private_file;
use super::tls::TlsFiles;
use crate::owner;

/// How long an authority is valid.
const AUTHORITY_LIFE: Duration = days(3650);
/// How long a server certificate is valid.
const SERVER_LIFE: Duration = days(397);
/// How long before its end a certificate should be renewed.
const RENEW_BEFORE: Duration = days(30);
/// Clocks of other machines may be behind by this much.
const CLOCK_SLACK: Duration = days(1);
/// What every certificate is good for: a coordinator that is reached from its own machine.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file cannot be read or written.
    #[error("{path:?} cannot be read or written: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what `certs` wrote.
    #[error(
        "{path:?} is not what `fittingroom certs` wrote: {problem}; restore it, or remove the folder and make new certificates"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate that is there lacks a name.
    #[error("the certificate is not good for {name}, but for {}; issue another with --renew, naming all", have.join(", "))]
    NotCovered {
        /// The name that was asked for.
        name: String,
        /// The names that it has.
        have: Vec<String>,
    },
    /// The authority's key is not there to sign with.
    #[error("{path:?} is not there, and without it nothing can be signed: put it back for the renewal")]
    NoAuthorityKey {
        /// Where it should be.
        path: PathBuf,
    },
    /// The certificates could not be made.
    #[error("the certificates cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// What is done with a certificate that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Keep,
    /// It is issued anew under the same authority.
    Renew,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Everything was there.
    Nothing,
    /// A server certificate under the authority that was there.
    Certificate,
    /// An authority and a server certificate.
    Authority,
}

/// The certificates as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// What was made of them just now.
    pub made: Made,
    /// The authority's fingerprint.
    pub fingerprint: Fingerprint,
    /// What the server certificate is good for.
    pub names: Vec<String>,
    /// When it ends.
    pub expires: Timestamp,
}

impl Issued {
    /// Whether it is time for a renewal.
    pub fn expires_soon(&self, now: Timestamp) -> bool {
        self.expires < now.after(RENEW_BEFORE)
    }
}

/// What is told about the server certificate beside it.
#[derive(Serialize, Deserialize)]
struct Description {
    names: Vec<String>,
    expires_ms: i64,
}

/// The folder `certs` of a data folder.
#[derive(Clone, Debug)]
pub struct CertificateFolder {
    folder: PathBuf,
}

impl CertificateFolder {
    /// The folder in this data folder, whether or not it is there.
    pub fn in_data(data: &Path) -> Self {
        Self { folder: data.join("certs") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What a server needs; `None` if nothing was issued yet.
    pub fn server_files(&self) -> Option<TlsFiles> {
        let files = TlsFiles { certificate: self.path("server.pem"), key: self.path("server.key") };
        files.certificate.exists().then_some(files)
    }

    /// The certificates that are there; `None` if there are none.
    pub fn read(&self) -> Result<Option<Issued>, CertsError> {
        let path = self.path("server.json");
        let Some(text) = self.read_file("server.json")? else { return Ok(None) };
        let (Some(authority), Some(_)) = (self.read_file("ca.pem")?, self.read_file("server.pem")?) else {
            return Ok(None);
        };
        let Description { names, expires_ms } = serde_json::from_str(&text)
            .map_err(|error| CertsError::Damaged { path, problem: error.to_string() })?;
        let authority = CertificateDer::from_pem_slice(authority.as_bytes())
            .map_err(|error| CertsError::Damaged { path: self.path("ca.pem"), problem: error.to_string() })?;
        Ok(Some(Issued {
            made: Made::Nothing,
            fingerprint: Fingerprint::of(&authority),
            names,
            expires: Timestamp::from_millis(expires_ms),
        }))
    }

    /// Makes what is missing. Without names, those that the certificate has stay.
    pub fn issue(&self, names: &[String], existing: Existing, now: SystemTime) -> Result<Issued, CertsError> {
        let before = self.read()?;
        if let (Some(before), Existing::Keep) = (&before, existing) {
            return match names.iter().find(|name| !before.names.contains(name)) {
                None => Ok(before.clone()),
                Some(name) => Err(CertsError::NotCovered { name: name.clone(), have: before.names.clone() }),
            };
        }
        let mut all = match before {
            Some(before) if names.is_empty() => before.names,
            Some(_) | None => names.to_vec(),
        };
        for name in OWN_NAMES {
            if !all.iter().any(|known| known == name) {
                all.push(name.to_owned());
            }
        }
        self.make_folder()?;
        let (authority, key, made) = match (self.read_file("ca.pem")?, self.read_file("ca.key")?) {
            (Some(authority), Some(key)) => (authority, self.key(&key)?, Made::Certificate),
            (Some(_), None) => return Err(CertsError::NoAuthorityKey { path: self.path("ca.key") }),
            (None, _) => {
                let key = KeyPair::generate()?;
                let authority = authority_parameters(now)?.self_signed(&key)?.pem();
                self.write_file("ca.key", &key.serialize_pem())?;
                self.write_file("ca.pem", &authority)?;
                (authority, key, Made::Authority)
            }
        };
        let expires = now + SERVER_LIFE;
        let server_key = KeyPair::generate()?;
        // The name and the key of an authority are all that a signature needs of it.
        let parameters = authority_parameters(now)?;
        let issuer = Issuer::from_params(&parameters, &key);
        let server = server_parameters(all.clone(), now, expires)?.signed_by(&server_key, &issuer)?.pem();
        let since_epoch = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = Timestamp::from_millis(0).after(since_epoch);
        let description = Description { names: all, expires_ms: expires.as_millis() };
        let described = serde_json::to_string(&description)
            .map_err(|error| CertsError::File { path: self.path("server.json"), source: error.into() })?;
        self.write_file("server.key", &server_key.serialize_pem())?;
        self.write_file("server.pem", &format!("{server}{authority}"))?;
        self.write_file("server.json", &described)?;
        let issued = self.read()?.ok_or_else(|| CertsError::Damaged {
            path: self.path("server.json"),
            problem: "it went away".to_owned(),
        })?;
        Ok(Issued { made, ..issued })
    }

    fn key(&self, pem: &str) -> Result<KeyPair, CertsError> {
        KeyPair::from_pem(pem)
            .map_err(|error| CertsError::Damaged { path: self.path("ca.key"), problem: error.to_string() })
    }

    fn make_folder(&self) -> Result<(), CertsError> {
        if self.folder.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)
            .map_err(|source| CertsError::File { path: self.folder.clone(), source })?;
        if let Some(data) = self.folder.parent() {
            owner::give_all(data, &self.folder);
        }
        Ok(())
    }

    fn read_file(&self, name: &str) -> Result<Option<String>, CertsError> {
        let path = self.path(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CertsError::File { path, source }),
        }
    }

    fn write_file(&self, name: &str, text: &str) -> Result<(), CertsError> {
        let path = self.path(name);
        private_file::write(&path, text.as_bytes()).map_err(|source| CertsError::File { path, source })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn authority_parameters(now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new([])?;
    parameters.distinguished_name = named("Fitting Room certificate authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = (now - CLOCK_SLACK).into();
    parameters.not_after = (now + AUTHORITY_LIFE).into();
    Ok(parameters)
}

fn server_parameters(
    names: Vec<String>,
    now: SystemTime,
    expires: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = named("Fitting Room coordinator");
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = (now - CLOCK_SLACK).into();
    parameters.not_after = expires.into();
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::super::tls::Tls;
    use super::*;

    #[test]
    fn certificates_are_made_once_and_renewed_under_the_same_authority() {
        let data = tempfile::tempdir().expect("temporary folder");
        let folder = CertificateFolder::in_data(data.path());
        let now = SystemTime::now();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(folder.server_files(), None);

        let first = folder.issue(&names(&["node-1", "10.0.0.7"]), Existing::Keep, now).expect("makes");
        assert_eq!(first.made, Made::Authority);
        assert_eq!(first.names, ["node-1", "10.0.0.7", "localhost", "127.0.0.1", "::1"]);
        let tls = Tls::load(folder.server_files().expect("there now")).expect("certificate and key fit");
        let certificate = std::fs::read(&tls.files().certificate).expect("reads");

        let again = folder.issue(&names(&["node-1"]), Existing::Keep, now).expect("is there");
        assert_eq!(again, Issued { made: Made::Nothing, ..first.clone() });
        let lacking = folder.issue(&names(&["node-2"]), Existing::Keep, now);
        assert!(matches!(lacking, Err(CertsError::NotCovered { .. })), "{lacking:?}");
        assert_eq!(std::fs::read(&tls.files().certificate).expect("reads"), certificate);

        let later = now + days(380);
        let moment = |time: SystemTime| {
            Timestamp::from_millis(0).after(time.duration_since(UNIX_EPOCH).expect("after 1970"))
        };
        assert!(first.expires_soon(moment(later)) && !first.expires_soon(moment(now)));
        let renewed = folder.issue(&[], Existing::Renew, later).expect("renews");
        assert_eq!((renewed.made, renewed.fingerprint), (Made::Certificate, first.fingerprint));
        assert_eq!(renewed.names, first.names);
        assert!(!renewed.expires_soon(moment(later)));
        tls.reload().expect("certificate and key fit");
        assert_ne!(std::fs::read(&tls.files().certificate).expect("reads"), certificate);

        std::fs::remove_file(folder.path("ca.key")).expect("was there");
        let unsigned = folder.issue(&[], Existing::Renew, later);
        assert!(matches!(unsigned, Err(CertsError::NoAuthorityKey { .. })), "{unsigned:?}");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_of_it_is_readable_for_others() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().expect("temporary folder");
        CertificateFolder::in_data(data.path()).issue(&[], Existing::Keep, SystemTime::now()).expect("makes");
        for entry in std::fs::read_dir(data.path().join("certs")).expect("lists") {
            let entry = entry.expect("lists");
            let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
    }
}
