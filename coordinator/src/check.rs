//! Looks a data folder over while no coordinator runs: SQLite's file, every search's log by the
//! [`audit`](crate::audit), and every artifact that a log names.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};

use fittingroom_common::event::Fact;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::view::SearchState;
use futures_util::TryStreamExt;

use crate::artifacts::{ArtifactError, ArtifactStore};
use crate::audit::{Audit, Tally};
use crate::log::{LogError, StoredDataset, StoredLog, StoredSearch};

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Every search, in the order of launching.
    pub searches: Vec<CheckedSearch>,
    /// How many artifacts the log names.
    pub artifacts: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// A search that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedSearch {
    /// Its name.
    pub name: String,
    /// Where it stands; `None` if its log does not begin with its creation.
    pub state: Option<SearchState>,
    /// How many trials were drawn.
    pub trials: u64,
    /// What was counted.
    pub tally: Tally,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// SQLite finds its file damaged.
    #[error("the log's file is damaged: {line}")]
    Damage {
        /// What SQLite says.
        line: String,
    },
    /// A search breaks a rule.
    #[error("search {search}, {problem}")]
    Search {
        /// The search.
        search: String,
        /// Where, and which.
        problem: String,
    },
    /// A dataset's manifest cannot be read.
    #[error("dataset {name} cannot be read: {problem}")]
    Dataset {
        /// The dataset.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Something that the log names is not as it was stored.
    #[error("artifact {hash} ({role}): {problem}")]
    Artifact {
        /// What it is stored under.
        hash: ArtifactHash,
        /// What it is.
        role: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why a data folder cannot be looked over.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no log.
    #[error("{path:?} holds no log; give the folder that `fittingroom serve --data DIR` was given")]
    NoLog {
        /// The folder.
        path: PathBuf,
    },
    /// A coordinator has the folder.
    #[error("a coordinator runs on {path:?}; stop it first, since a log is checked while nobody writes it")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be used.
    #[error("{path:?} cannot be locked: {source}")]
    Lock {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The log cannot be read at all.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The artifact store cannot be opened.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The task that reads the log ended early.
    #[error("the check was interrupted")]
    Interrupted,
}

/// What the log names.
type Named = BTreeMap<ArtifactHash, Artifact>;

#[derive(Debug)]
struct Artifact {
    /// What it is.
    role: String,
    need: Need,
}

/// Whether an artifact must be there. The order is that of need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// The model of a trial that was not the best: it may have been removed.
    MayBeGone,
    MustBeThere,
}

/// Looks over the data folder `data`, whose artifacts are in it unless `artifacts` says where they are.
pub async fn check(data: &Path, artifacts: Option<&str>) -> Result<Findings, CheckError> {
    let path = data.join("log.sqlite");
    if !path.is_file() {
        return Err(CheckError::NoLog { path: data.to_owned() });
    }
    let _lock = lock(data)?;
    let read = tokio::task::spawn_blocking(move || read_log(&path));
    let (mut findings, named) = read.await.map_err(|_| CheckError::Interrupted)??;
    // Nothing is uploaded here: the folder for that is the system's.
    let store = match artifacts {
        Some(place) => ArtifactStore::at(place, std::env::temp_dir())?,
        None => ArtifactStore::in_folder(&data.join("artifacts"), std::env::temp_dir())?,
    };
    for (hash, Artifact { role, need }) in named {
        let found = hash_of(&store, hash).await;
        if need == Need::MayBeGone && matches!(found, Err(ArtifactError::Missing { .. })) {
            continue;
        }
        findings.artifacts += 1;
        let problem = match found {
            Ok(found) if found == hash => continue,
            Ok(found) => format!("its bytes are others: their hash is {found}"),
            Err(ArtifactError::Missing { .. }) => "it is missing".to_owned(),
            Err(error) => error.to_string(),
        };
        findings.problems.push(Problem::Artifact { hash, role, problem });
    }
    Ok(findings)
}

/// Keeps coordinators out as long as it lives.
fn lock(data: &Path) -> Result<std::fs::File, CheckError> {
    let failed = |source| CheckError::Lock { path: data.to_owned(), source };
    let path = data.join("lock");
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CheckError::InUse { path: data.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn read_log(path: &Path) -> Result<(Findings, Named), LogError> {
    let log = StoredLog::open(path)?;
    let (mut findings, mut named) = (Findings::default(), Named::new());
    findings.problems.extend(log.damage()?.into_iter().map(|line| Problem::Damage { line }));
    for search in log.searches()? {
        check_search(&log, &search, &mut findings, &mut named)?;
    }
    for StoredDataset { name, manifest } in log.datasets()? {
        match manifest {
            Ok(manifest) => name_files(&mut named, &manifest.name.to_string(), manifest.files),
            Err(error) => {
                findings.problems.push(Problem::Dataset { name, problem: error.to_string() });
            }
        }
    }
    Ok((findings, named))
}

fn check_search(
    log: &StoredLog,
    search: &StoredSearch,
    findings: &mut Findings,
    named: &mut Named,
) -> Result<(), LogError> {
    let mut audit = Audit::default();
    let (mut problems, mut newest, mut models) = (Vec::new(), 0, Vec::new());
    log.each_event(search.id, |version, event| {
        newest = version;
        match event {
            Ok(event) => {
                match &event.fact {
                    Fact::SearchCreated(created) => {
                        name_files(named, created.dataset.name.as_str(), created.dataset.files);
                    }
                    Fact::TrialCompleted { attempt, model: Some(hash) } => {
                        models.push((attempt.trial, *hash));
                    }
                    _ => {}
                }
                audit.take(version, &event);
            }
            Err(error) => problems.push(format!("event {version}: it cannot be read: {error}")),
        }
    })?;
    for (trial, hash) in models {
        let need = if audit.best() == Some(trial) { Need::MustBeThere } else { Need::MayBeGone };
        name(named, hash, need, || format!("the model of trial {trial} of {}", search.name));
    }
    problems.extend(audit.findings().iter().map(ToString::to_string));
    if newest != search.version {
        problems.push(format!("its newest event is {newest}, and it must have {}", search.version));
    }
    let problem = |problem| Problem::Search { search: search.name.clone(), problem };
    findings.problems.extend(problems.into_iter().map(problem));
    let counts = audit.counts();
    findings.searches.push(CheckedSearch {
        name: search.name.clone(),
        state: audit.state(),
        trials: counts.waiting + counts.running + counts.ended(),
        tally: audit.tally(),
    });
    Ok(())
}

fn name_files(named: &mut Named, dataset: &str, files: [ArtifactHash; 4]) {
    for hash in files {
        name(named, hash, Need::MustBeThere, || format!("a file of dataset {dataset}"));
    }
}

/// Notes something stored. What several need in different ways must be there.
fn name(named: &mut Named, hash: ArtifactHash, need: Need, role: impl FnOnce() -> String) {
    let known = named.entry(hash).or_insert_with(|| Artifact { role: role(), need });
    known.need = known.need.max(need);
}

/// The hash of what is stored under a hash.
async fn hash_of(store: &ArtifactStore, hash: ArtifactHash) -> Result<ArtifactHash, ArtifactError> {
    let mut chunks = store.get_stream(hash).await?;
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = chunks.try_next().await? {
        hasher.update(&chunk);
    }
    Ok(ArtifactHash::new(*hasher.finalize().as_bytes()))
}
