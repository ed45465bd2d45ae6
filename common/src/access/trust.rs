//! By what a coordinator is known: its certificate authority, given as a file or by its fingerprint.
//!
//! A coordinator sends its authority's certificate along with its own. With a fingerprint the client
//! looks for the certificate that has it, and then checks the chain, the name and the dates against
//! that one alone, as it would have against a file: nothing needs to be fetched or copied before.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use super::AccessError;

/// The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A text is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a fingerprint is 64 hexadecimal digits, with or without colons; `fittingroom certs` prints the coordinator's"
)]
pub struct FingerprintError;

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let text = text.trim().to_ascii_lowercase();
        let digits = text.strip_prefix("sha256:").unwrap_or(&text).replace(':', "");
        blake3::Hash::from_hex(digits).map(|hash| Self(*hash.as_bytes())).map_err(|_| FingerprintError)
    }
}

/// Why whoever answers at the coordinator's address is not trusted, if that is why a call failed. Waiting does not help then.
pub fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match error.downcast_ref() {
        Some(tls @ (Error::InvalidCertificate(_) | Error::General(_))) => return Some(tls.to_string()),
        Some(Error::InvalidMessage(_)) => return Some("it does not encrypt; is it http://?".to_owned()),
        Some(_) | None => {}
    }
    // What such an error carries is not its source.
    let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    carried.and_then(|carried| distrust(carried)).or_else(|| error.source().and_then(distrust))
}

/// By what a coordinator is known.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By a certificate of these authorities.
    Authorities(Vec<CertificateDer<'static>>),
    /// By a certificate of the authority with this fingerprint, which the coordinator sends along.
    Fingerprint(Fingerprint),
}

impl Trust {
    /// The authorities of a PEM file.
    pub(super) fn authority(path: &Path, pem: &[u8]) -> Result<Self, AccessError> {
        let wrong = |problem: String| AccessError::Authority { path: path.to_owned(), problem };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("there is none".to_owned()));
        }
        Ok(Self::Authorities(certificates))
    }

    /// What checks a coordinator's certificate in the handshake.
    pub(super) fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Ok(match self {
            Self::Authorities(certificates) => against(certificates, provider)?,
            Self::Fingerprint(fingerprint) => Arc::new(Pinned { fingerprint: *fingerprint, provider }),
        })
    }
}

fn against(
    authorities: &[CertificateDer<'static>],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone())?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// Accepts certificates of the one authority that has the fingerprint.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority =
            intermediates.iter().find(|it| Fingerprint::of(it) == self.fingerprint).ok_or_else(|| {
                Error::General(format!(
                    "the coordinator's certificate authority does not have the fingerprint {}: this is another coordinator, or its `certs` were made anew",
                    self.fingerprint
                ))
            })?;
        against(&[authority.clone().into_owned()], Arc::clone(&self.provider))?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_is_not_trusted_is_told_from_one_that_is_away() {
        let expired = Error::InvalidCertificate(rustls::CertificateError::Expired);
        let away = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (error, told) in [
            (io::Error::other(Error::General("another fingerprint".to_owned())), true),
            (io::Error::other(io::Error::other(expired)), true),
            (io::Error::other(Error::HandshakeNotComplete), false),
            (io::Error::other(away), false),
        ] {
            assert_eq!(distrust(&error).is_some(), told, "{error}");
        }
    }

    #[test]
    fn fingerprints_are_taken_as_tools_print_them() {
        let fingerprint = Fingerprint::of(b"");
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(fingerprint.to_string(), hex);
        let pairs: Vec<String> = (0..32).map(|at| hex[2 * at..2 * at + 2].to_uppercase()).collect();
        for text in [hex.to_owned(), format!("sha256:{hex}"), pairs.join(":")] {
            assert_eq!(text.parse(), Ok(fingerprint), "{text}");
        }
        for wrong in ["", "sha256:", &hex[1..], "fr_00"] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong:?} was accepted");
        }
    }
}
