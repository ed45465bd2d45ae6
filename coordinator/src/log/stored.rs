//! The log as it lies in its file, for looking at it while no coordinator runs: what cannot be read
//! is a finding here, and no reason to stop.

use std::path::Path;

use fittingroom_common::convert::DecodeError;
use fittingroom_common::dataset::Manifest;
use fittingroom_common::event::Event;
use fittingroom_common::id::SearchId;
use fittingroom_common::proto as pb;
use prost::Message;
use rusqlite::{Connection, OpenFlags, params};

use super::LogError;
use super::sqlite::{APPLICATION_ID, LAYOUT};

/// The most lines of SQLite's own check that are kept.
const MOST_DAMAGES: u32 = 20;

/// A log file that nobody writes.
#[derive(Debug)]
pub struct StoredLog {
    connection: Connection,
}

/// A search as its row says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSearch {
    /// Its number.
    pub id: SearchId,
    /// Its name.
    pub name: String,
    /// How many events it must have.
    pub version: u64,
}

/// A dataset as its row says it.
#[derive(Debug)]
pub struct StoredDataset {
    /// Its name.
    pub name: String,
    /// What it is, or why that cannot be read.
    pub manifest: Result<Manifest, DecodeError>,
}

impl StoredLog {
    /// Opens a log that is there already. What a crash left in its write-ahead log is taken in, as
    /// the coordinator would.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let (application, layout) = (number("application_id")?, number("user_version")?);
        if (application, layout) != (APPLICATION_ID, LAYOUT) {
            return Err(LogError::Foreign {
                path: path.to_owned(),
                problem: format!(
                    "it is marked {application:#x}, layout {layout}; {APPLICATION_ID:#x}, layout {LAYOUT} is needed"
                ),
            });
        }
        Ok(Self { connection })
    }

    /// What SQLite finds wrong with its file.
    pub fn damage(&self) -> Result<Vec<String>, LogError> {
        let mut check = self.connection.prepare(&format!("PRAGMA integrity_check({MOST_DAMAGES})"))?;
        let lines = check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        let mut damage: Vec<String> = lines.into_iter().filter(|line| line != "ok").collect();
        let strangers: u64 = self
            .connection
            .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get::<_, i64>(0))?
            .cast_unsigned();
        if strangers > 0 {
            damage.push(format!("{strangers} events belong to no search"));
        }
        Ok(damage)
    }

    /// Every search, in the order of launching.
    pub fn searches(&self) -> Result<Vec<StoredSearch>, LogError> {
        let mut rows = self.connection.prepare("SELECT id, name, version FROM searches ORDER BY id")?;
        let rows = rows.query_map([], |row| {
            Ok(StoredSearch {
                id: SearchId::new(row.get::<_, i64>(0)?.cast_unsigned()),
                name: row.get(1)?,
                version: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Gives each event of a search with its version, one after the other, or says that it cannot be read.
    pub fn each_event(
        &self,
        search: SearchId,
        mut take: impl FnMut(u64, Result<Event, DecodeError>),
    ) -> Result<(), LogError> {
        let mut rows = self
            .connection
            .prepare("SELECT version, payload FROM events WHERE search = ?1 ORDER BY version")?;
        let mut rows = rows.query(params![search.get().cast_signed()])?;
        while let Some(row) = rows.next()? {
            let event =
                row.get_ref(1)?.as_blob().map_err(|_| DecodeError::Missing("payload")).and_then(|payload| {
                    pb::Event::decode(payload)
                        .map_err(|error| DecodeError::from(&error))
                        .and_then(Event::try_from)
                });
            take(row.get::<_, i64>(0)?.cast_unsigned(), event);
        }
        Ok(())
    }

    /// Every dataset that is held under a name.
    pub fn datasets(&self) -> Result<Vec<StoredDataset>, LogError> {
        let mut rows = self.connection.prepare("SELECT name, manifest FROM datasets ORDER BY name")?;
        let rows = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let rows = rows.map(|row| {
            let (name, bytes) = row?;
            let manifest = pb::Dataset::decode(&*bytes)
                .map_err(|error| DecodeError::from(&error))
                .and_then(Manifest::try_from);
            Ok(StoredDataset { name, manifest })
        });
        rows.collect()
    }
}
