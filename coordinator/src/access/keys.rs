//! The tokens that a running coordinator knows, and what became of a caller's.

use std::sync::{Arc, PoisonError, RwLock};

use fittingroom_common::access::Token;
use fittingroom_common::id::Name;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::methods::{METRICS, Method};
use super::role::Role;
use super::tokens::{Entry, TokenId};
use crate::metrics::RefusedCall;

/// Who makes a call, where calls need a token. Services find it in a request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The id of the caller's token.
    pub token: TokenId,
    /// The name of the caller's token.
    pub name: Name,
    /// What the caller may do.
    pub role: Role,
}

/// A token that is known.
#[derive(Debug)]
pub(super) struct Key {
    entry: Entry,
    /// Cancelled when the token is revoked.
    pub(super) revoked: CancellationToken,
}

impl Key {
    pub(super) fn caller(&self) -> Caller {
        let Entry { name, role, .. } = &self.entry;
        Caller { token: self.entry.id(), name: name.clone(), role: *role }
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Whether calls need a token at all. Once they do, they do until the coordinator is started anew.
    needed: bool,
    keys: Vec<Arc<Key>>,
}

/// The tokens that a running coordinator knows.
#[derive(Debug, Default)]
pub struct Keys {
    known: RwLock<Known>,
}

/// Why a call is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error(
        "this coordinator asks for a token: put one into FITTINGROOM_TOKEN, or its file into --token-file; `fittingroom token create` makes one on the coordinator's machine"
    )]
    NoToken,
    #[error("what was shown as a token is none: {0}")]
    NotAToken(#[from] fittingroom_common::access::TokenError),
    #[error(
        "the token is not known here: it was revoked, or is another coordinator's; `fittingroom token create` makes a new one on the coordinator's machine"
    )]
    UnknownToken,
    #[error("the token {name} is for {role}s, and {call} takes one for {}", list(.roles))]
    WrongRole { name: Name, role: Role, call: &'static str, roles: &'static [Role] },
    #[error("the token {name} may not call {path:?}, which this coordinator does not know")]
    UnknownCall { name: Name, path: String },
}

fn list(roles: &[Role]) -> String {
    let words: Vec<String> = roles.iter().map(|role| format!("{role}s")).collect();
    words.join(" or ")
}

impl Denial {
    /// What it is counted as: whether it is not known who calls, or known that they may not.
    pub(crate) const fn refused(&self) -> RefusedCall {
        match self {
            Self::NoToken | Self::NotAToken(_) | Self::UnknownToken => RefusedCall::Unauthenticated,
            Self::WrongRole { .. } | Self::UnknownCall { .. } => RefusedCall::PermissionDenied,
        }
    }

    pub(super) fn status(&self) -> Status {
        match self.refused() {
            RefusedCall::Unauthenticated => Status::unauthenticated(self.to_string()),
            RefusedCall::PermissionDenied => Status::permission_denied(self.to_string()),
        }
    }
}

/// What a caller is told whose token was revoked during the call.
pub(super) fn revoked() -> Status {
    Status::unauthenticated("the token was revoked")
}

impl Keys {
    /// Calls need a token from now on, whether there is one or not.
    pub fn need(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).needed = true;
    }

    /// Whether calls need a token.
    pub fn are_needed(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).needed
    }

    /// Takes over what is in the file of tokens now. `None`, no file, changes nothing at the start, and
    /// later revokes everything: a lost file must not open the door. Answers who was shut out.
    pub fn replace(&self, entries: Option<Vec<Entry>>) -> Vec<Name> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.needed |= entries.is_some();
        let entries = entries.unwrap_or_default();
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut known.keys).into_iter().partition(|key| entries.contains(&key.entry));
        let new = entries.into_iter().filter(|entry| kept.iter().all(|key| &key.entry != entry));
        let new = new.map(|entry| Arc::new(Key { entry, revoked: CancellationToken::new() }));
        known.keys = kept.iter().cloned().chain(new).collect();
        drop(known);
        gone.iter().for_each(|key| key.revoked.cancel());
        gone.iter().map(|key| key.entry.name.clone()).collect()
    }

    /// Lets somebody look at the metrics, or says why not.
    pub(crate) fn admit_to_metrics(&self, headers: &HeaderMap) -> Result<(), Denial> {
        self.admit(METRICS.path, Some(&METRICS), headers).map(drop)
    }

    /// Lets a call in, or says why not; `None` where it needs no token.
    pub(super) fn admit(
        &self,
        path: &str,
        method: Option<&'static Method>,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<Key>>, Denial> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if !known.needed || method.is_some_and(Method::is_open) {
            return Ok(None);
        }
        let header = headers.get(AUTHORIZATION).ok_or(Denial::NoToken)?;
        let token = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let token: Token = token.parse()?;
        let digest = token.digest();
        // Every key is compared, in a time that tells nothing of where they differ.
        let matches = |key: &Key| bool::from(key.entry.digest.as_bytes().ct_eq(digest.as_bytes()));
        let found = known.keys.iter().fold(None, |found, key| if matches(key) { Some(key) } else { found });
        let key = found.ok_or(Denial::UnknownToken)?;
        let Entry { name, role, .. } = &key.entry;
        let Some(method) = method else {
            return Err(Denial::UnknownCall { name: name.clone(), path: path.chars().take(80).collect() });
        };
        if !method.roles.contains(role) {
            let call = method.path.rsplit('/').next().unwrap_or_default();
            return Err(Denial::WrongRole { name: name.clone(), role: *role, call, roles: method.roles });
        }
        Ok(Some(Arc::clone(key)))
    }
}

#[cfg(test)]
mod tests {
    use fittingroom_common::time::Timestamp;
    use http::HeaderValue;
    use tonic::Code;

    use super::super::methods;
    use super::*;

    const LEASE: &str = "/fittingroom.v1.WorkerService/Lease";
    const LIST: &str = "/fittingroom.v1.OperatorService/ListSearches";
    const PAUSE: &str = "/fittingroom.v1.OperatorService/Control";
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    const WATCH: &str = "/grpc.health.v1.Health/Watch";

    fn token(role: Role) -> Token {
        Token::from_bits([role as u8 + 1; 32])
    }

    fn entry(role: Role) -> Entry {
        let digest = token(role).digest();
        Entry { name: Name::sanitised(role.name()), role, digest, created: Timestamp::from_millis(0) }
    }

    fn code(keys: &Keys, path: &str, header: Option<&str>) -> Code {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(header).expect("a header"));
        }
        keys.admit(path, methods::find(path), &headers)
            .map_or_else(|denial| denial.status().code(), |_| Code::Ok)
    }

    #[test]
    fn each_caller_gets_what_its_role_allows() {
        let keys = Keys::default();
        assert_eq!(code(&keys, LEASE, None), Code::Ok, "nothing is asked for yet");
        keys.replace(Some(Role::ALL.map(entry).to_vec()));
        let bearer = |role| format!("Bearer {}", token(role).reveal());
        let (operator, worker, viewer) = (bearer(Role::Operator), bearer(Role::Worker), bearer(Role::Viewer));
        let stranger = format!("Bearer {}", Token::from_bits([99; 32]).reveal());
        let cut = &operator[..operator.len() - 1];
        for (row, path, header, expected) in [
            ("an operator pauses", PAUSE, Some(operator.as_str()), Code::Ok),
            ("an operator leases", LEASE, Some(&operator), Code::Ok),
            ("a worker leases", LEASE, Some(&worker), Code::Ok),
            ("a worker lists", LIST, Some(&worker), Code::PermissionDenied),
            ("a worker pauses", PAUSE, Some(&worker), Code::PermissionDenied),
            ("a viewer lists", LIST, Some(&viewer), Code::Ok),
            ("a viewer pauses", PAUSE, Some(&viewer), Code::PermissionDenied),
            ("a viewer leases", LEASE, Some(&viewer), Code::PermissionDenied),
            ("an operator calls what is not there", "/x.Y/Z", Some(&operator), Code::PermissionDenied),
            ("nobody lists", LIST, None, Code::Unauthenticated),
            ("nobody calls what is not there", "/x.Y/Z", None, Code::Unauthenticated),
            ("a stranger lists", LIST, Some(&stranger), Code::Unauthenticated),
            ("a token is cut", LIST, Some(cut), Code::Unauthenticated),
            ("no bearer", LIST, Some(&operator["Bearer ".len()..]), Code::Unauthenticated),
            ("another scheme", LIST, Some("Basic b3BlcmF0b3I="), Code::Unauthenticated),
            ("an empty one", LIST, Some("Bearer "), Code::Unauthenticated),
            ("nobody asks how it is", CHECK, None, Code::Ok),
            ("nobody wants to be told how it is", WATCH, None, Code::Unauthenticated),
            ("a worker wants to be told how it is", WATCH, Some(&worker), Code::Ok),
        ] {
            assert_eq!(code(&keys, path, header), expected, "{row}");
        }
    }

    #[test]
    fn a_key_that_stays_is_not_disturbed_when_another_is_revoked() {
        let keys = Keys::default();
        let (worker, viewer) = (entry(Role::Worker), entry(Role::Viewer));
        keys.replace(Some(vec![worker.clone(), viewer]));
        let held: Vec<Arc<Key>> = keys.known.read().expect("not poisoned").keys.clone();
        assert_eq!(keys.replace(Some(vec![worker])), [Name::sanitised("viewer")]);
        assert_eq!(held.iter().map(|key| key.revoked.is_cancelled()).collect::<Vec<_>>(), [false, true]);
        assert_eq!(keys.replace(None), [Name::sanitised("worker")], "a file that is gone revokes all");
        assert_eq!(code(&keys, LIST, None), Code::Unauthenticated, "and opens nothing");
    }
}
