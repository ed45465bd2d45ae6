//! The file of tokens in the data folder: names, roles and hashes, never a token itself.
//!
//! Commands write it, a running coordinator only reads it. It is replaced as a whole, under a lock, so
//! that of two commands at once none undoes what the other did.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fittingroom_common::access::{Token, TokenDigest};
use fittingroom_common::id::Name;
use fittingroom_common::time::Timestamp;
use rand::TryRngCore;
use serde::{Deserialize, Serialize};

use super::private_file;
use super::role::Role;
use crate::owner;

/// The most tokens: each call is compared with all of them.
const MOST_TOKENS: usize = 1000;
/// The version of the file's form.
const VERSION: u32 = 1;

/// The beginning of a token's hash, by which people may name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenId(u32);

impl TokenId {
    /// The id of the token with this hash.
    pub fn of(digest: &TokenDigest) -> Self {
        let [a, b, c, d, ..] = *digest.as_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What people call it.
    pub name: Name,
    /// What its bearer may do.
    pub role: Role,
    /// Its hash.
    pub digest: TokenDigest,
    /// When it was made.
    pub created: Timestamp,
}

impl Entry {
    /// Its id.
    pub fn id(&self) -> TokenId {
        TokenId::of(&self.digest)
    }
}

/// Why the file of tokens is not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read or written.
    #[error("the tokens in {path:?} cannot be read or changed: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what a command wrote.
    #[error("{path:?} is not a file of tokens: {problem}; restore it, or remove it and make new tokens")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another token has the name.
    #[error("there is a token {name} already; give this one another --name, or revoke that one first")]
    NameTaken {
        /// The name.
        name: Name,
    },
    /// There are too many.
    #[error("there are {MOST_TOKENS} tokens already; revoke one first (`fittingroom token list`)")]
    TooMany,
    /// No token is called that.
    #[error("there is no token {which}; `fittingroom token list` shows those there are")]
    Unknown {
        /// What was asked for.
        which: String,
    },
    /// The operating system gives no random bits.
    #[error("the operating system gives no random bits for a token: {0}")]
    Random(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    tokens: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    role: String,
    sha256: String,
    created_ms: i64,
}

impl From<&Entry> for Record {
    fn from(entry: &Entry) -> Self {
        Self {
            name: entry.name.to_string(),
            role: entry.role.to_string(),
            sha256: entry.digest.to_string(),
            created_ms: entry.created.as_millis(),
        }
    }
}

impl TryFrom<Record> for Entry {
    type Error = String;

    fn try_from(record: Record) -> Result<Self, String> {
        Ok(Self {
            name: Name::from_str(&record.name).map_err(|error| error.to_string())?,
            role: record.role.parse().map_err(|error: super::RoleError| error.to_string())?,
            digest: record.sha256.parse().map_err(|_| "a sha256 has not 64 digits".to_owned())?,
            created: Timestamp::from_millis(record.created_ms),
        })
    }
}

/// The file of tokens of a data folder.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The file in this data folder, whether or not it is there.
    pub fn in_data(data: &Path) -> Self {
        Self { path: data.join("tokens.json") }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens; `None` if there never was one.
    pub fn read(&self) -> Result<Option<Vec<Entry>>, TokenFileError> {
        let damaged = |problem: String| TokenFileError::Damaged { path: self.path.clone(), problem };
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| self.failed(source))?,
        };
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if document.version != VERSION {
            return Err(damaged(format!(
                "it is of version {}, and this program knows version {VERSION}",
                document.version
            )));
        }
        let entries: Result<Vec<Entry>, String> = document.tokens.into_iter().map(Entry::try_from).collect();
        entries.map(Some).map_err(damaged)
    }

    /// Makes a token. It is in nobody's hands but the caller's.
    pub fn create(
        &self,
        role: Role,
        name: Option<Name>,
        now: Timestamp,
    ) -> Result<(Entry, Token), TokenFileError> {
        let _lock = self.lock()?;
        let mut entries = self.read()?.unwrap_or_default();
        if entries.len() >= MOST_TOKENS {
            return Err(TokenFileError::TooMany);
        }
        let name = name.unwrap_or_else(|| free_name(&entries, role));
        if entries.iter().any(|entry| entry.name == name) {
            return Err(TokenFileError::NameTaken { name });
        }
        let (token, digest) = loop {
            let mut bits = [0; 32];
            rand::rngs::OsRng
                .try_fill_bytes(&mut bits)
                .map_err(|error| TokenFileError::Random(error.to_string()))?;
            let token = Token::from_bits(bits);
            let digest = token.digest();
            if entries.iter().all(|entry| entry.id() != TokenId::of(&digest)) {
                break (token, digest);
            }
        };
        let entry = Entry { name, role, digest, created: now };
        entries.push(entry.clone());
        self.write(&entries)?;
        Ok((entry, token))
    }

    /// Takes a token back, by its name or its id.
    pub fn revoke(&self, which: &str) -> Result<Entry, TokenFileError> {
        let unknown = || TokenFileError::Unknown { which: which.chars().take(80).collect() };
        let _lock = self.lock()?;
        let mut entries = self.read()?.ok_or_else(unknown)?;
        let by_name = entries.iter().position(|entry| entry.name.as_str() == which);
        let found = by_name.or_else(|| entries.iter().position(|entry| entry.id().to_string() == which));
        let revoked = entries.remove(found.ok_or_else(unknown)?);
        self.write(&entries)?;
        Ok(revoked)
    }

    fn write(&self, entries: &[Entry]) -> Result<(), TokenFileError> {
        let document = Document { version: VERSION, tokens: entries.iter().map(Record::from).collect() };
        let mut bytes = serde_json::to_vec_pretty(&document).map_err(|error| self.failed(error.into()))?;
        bytes.push(b'\n');
        private_file::write(&self.path, &bytes).map_err(|source| self.failed(source))
    }

    /// Keeps other commands out until it is dropped. A file of its own, since the tokens' is replaced.
    fn lock(&self) -> Result<File, TokenFileError> {
        let locked = || {
            let data = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(data)?;
            let mut options = File::options();
            let lock =
                options.create(true).truncate(false).write(true).open(self.path.with_extension("lock"))?;
            owner::give_file(data, &lock);
            lock.lock()?;
            Ok(lock)
        };
        locked().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> TokenFileError {
        TokenFileError::File { path: self.path.clone(), source }
    }
}

fn free_name(entries: &[Entry], role: Role) -> Name {
    (1_usize..)
        .map(|number| Name::sanitised(&format!("{role}-{number}")))
        .find(|name| entries.iter().all(|entry| &entry.name != name))
        .unwrap_or_else(|| Name::sanitised(role.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_350_951_999);

    #[test]
    fn tokens_are_made_listed_and_taken_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = TokenFile::in_data(&folder.path().join("data"));
        assert_eq!(file.read().expect("reads"), None);
        let (operator, token) = file.create(Role::Operator, None, NOW).expect("makes");
        assert_eq!((operator.name.as_str(), operator.digest), ("operator-1", token.digest()));
        let box_name = Some(Name::sanitised("gpu-box"));
        let (worker, _) = file.create(Role::Worker, box_name.clone(), NOW).expect("makes");
        let taken = file.create(Role::Viewer, box_name, NOW);
        assert!(matches!(taken, Err(TokenFileError::NameTaken { .. })), "{taken:?}");
        assert_eq!(file.read().expect("reads"), Some(vec![operator.clone(), worker]));

        let stored = std::fs::read_to_string(file.path()).expect("reads");
        assert!(!stored.contains(&token.reveal()[3..]), "a token itself is stored");
        assert!(matches!(file.revoke("nobody"), Err(TokenFileError::Unknown { .. })));
        file.revoke("gpu-box").expect("is there");
        assert_eq!(file.revoke(&operator.id().to_string()).expect("is there"), operator);
        assert_eq!(file.read().expect("reads"), Some(vec![]), "there were tokens once");
    }

    #[test]
    fn of_many_commands_at_once_none_undoes_another() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = TokenFile::in_data(folder.path());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| file.create(Role::Worker, None, NOW).expect("makes"));
            }
        });
        assert_eq!(file.read().expect("reads").map(|entries| entries.len()), Some(8));
    }

    #[test]
    fn a_damaged_file_is_said_and_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = TokenFile::in_data(folder.path());
        for (row, text) in [
            ("nothing", ""),
            ("cut off", r#"{"version": 1, "tok"#),
            ("of a later version", r#"{"version": 2, "tokens": []}"#),
            (
                "with an unknown role",
                r#"{"version": 1, "tokens": [{"name": "a", "role": "king", "sha256": "00", "created_ms": 0}]}"#,
            ),
        ] {
            std::fs::write(file.path(), text).expect("writes");
            assert!(matches!(file.read(), Err(TokenFileError::Damaged { .. })), "{row}");
            assert!(file.create(Role::Worker, None, NOW).is_err(), "{row}: it would be overwritten");
        }
    }
}
