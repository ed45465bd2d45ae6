//! The datasets that the coordinator holds, and how it obtains those that it knows by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fittingroom_common::dataset::{self, DatasetError, FileRole, KnownDataset, Manifest, Shape};
use fittingroom_common::id::{ArtifactHash, Name};
use tokio::sync::{Mutex, mpsc};

use crate::artifacts::{ArtifactError, ArtifactStore};
use crate::log::{EventLog, LogError};

/// The longest silence of a download.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(30);
/// The largest dataset that is taken, in bytes: its files are held in memory while they are checked.
const MAX_DATASET_BYTES: u64 = 2 << 30;
/// The largest archive that a publisher may send, in bytes.
const MAX_ARCHIVE_BYTES: usize = 256 << 20;

/// Why there is no such dataset.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// Nobody knows where to get it.
    #[error(
        "the coordinator has no dataset {name}{}; upload one with `fittingroom dataset fetch {name} --from DIR`, where DIR holds its four IDX files",
        held_list(held)
    )]
    Unknown {
        /// The name that was asked for.
        name: Name,
        /// The names that the coordinator holds.
        held: Vec<Name>,
    },
    /// It is known where to get it, but it cannot be had from there.
    #[error(
        "{name} cannot be obtained: {}. Install the package {package} on the coordinator's machine, or upload the files with `fittingroom dataset fetch {name} --from DIR`",
        tried.join("; ")
    )]
    Nowhere {
        /// The dataset.
        name: &'static str,
        /// The package that holds it.
        package: &'static str,
        /// Where it was looked for, and what was wrong there.
        tried: Vec<String>,
    },
    /// The files are not a dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An uploaded file is not in the store.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The log did not keep it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The files are larger than is taken.
    #[error("dataset {name} has {total} bytes; {MAX_DATASET_BYTES} are taken at most")]
    TooLarge {
        /// The dataset.
        name: Name,
        /// The size of its files together.
        total: u64,
    },
    /// A task of ours ended early.
    #[error("the coordinator is stopping")]
    Stopping,
}

fn held_list(held: &[Name]) -> String {
    if held.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = held.iter().map(Name::as_str).collect();
    format!(" (it has {})", names.join(", "))
}

/// The datasets that the coordinator holds.
#[derive(Clone)]
pub struct Datasets {
    log: Arc<dyn EventLog>,
    artifacts: ArtifactStore,
    /// One obtains at a time: two that want the same dataset do the work once.
    obtaining: Arc<Mutex<()>>,
    /// Folders that are looked in for a dataset `NAME`, as `FOLDER/NAME`, before its package's.
    folders: Vec<PathBuf>,
}

/// The four unpacked files of a dataset, and the words for where they came from.
struct Found {
    files: [Vec<u8>; 4],
    from: String,
}

impl Datasets {
    /// Datasets whose manifests are in this log and whose files are in this store.
    pub fn new(log: Arc<dyn EventLog>, artifacts: ArtifactStore, folders: Vec<PathBuf>) -> Self {
        Self { log, artifacts, obtaining: Arc::default(), folders }
    }

    /// Every dataset that is held, in the order of names.
    pub async fn list(&self) -> Result<Vec<Manifest>, LogError> {
        self.log.datasets().await
    }

    /// The dataset of this name, if it is held.
    pub async fn find(&self, name: &Name) -> Result<Option<Manifest>, LogError> {
        Ok(self.list().await?.into_iter().find(|manifest| manifest.name == *name))
    }

    /// The dataset of this name. If it is not held, it is taken from a folder, from the
    /// distribution's package or from its publisher, and checked. Says on `progress` how it goes.
    pub async fn obtain(
        &self,
        name: &Name,
        progress: &mpsc::Sender<String>,
    ) -> Result<Manifest, ObtainError> {
        let _one_at_a_time = self.obtaining.lock().await;
        if let Some(manifest) = self.find(name).await? {
            return Ok(manifest);
        }
        // Whoever listens may have gone; the dataset is wanted all the same.
        let say = async |text: String| drop(progress.send(text).await);
        let known = KnownDataset::find(name.as_str());
        let mut tried = Vec::new();
        let mut found = None;
        let package = known.map(|known| PathBuf::from(known.package_folder));
        for folder in self.folders.iter().map(|folder| folder.join(name.as_str())).chain(package) {
            if !folder.is_dir() {
                tried.push(format!("there is no folder {}", folder.display()));
                continue;
            }
            say(format!("dataset {name}: reading {}", folder.display())).await;
            match read_folder(&folder).await? {
                Ok(files) => {
                    found = Some(Found { files, from: folder.display().to_string() });
                    break;
                }
                Err(error) => tried.push(error.to_string()),
            }
        }
        if found.is_none()
            && let Some(known) = known
        {
            say(format!("dataset {name}: downloading from {}", known.url)).await;
            match download(known, progress).await {
                Ok(files) => found = Some(Found { files, from: known.url.to_owned() }),
                Err(problem) => tried.push(problem),
            }
        }
        match (found, known) {
            (Some(Found { files, from }), _) => {
                let (manifest, files) = check(name.clone(), files).await?;
                self.keep(&manifest, files).await?;
                let dataset::Shape { height, width, classes, train_images, test_images } = manifest.shape;
                say(format!(
                    "dataset {name}: {train_images} + {test_images} images of {height}x{width} in {classes} classes, checked, from {from}"
                ))
                .await;
                Ok(manifest)
            }
            (None, Some(known)) => {
                Err(ObtainError::Nowhere { name: known.name, package: known.package, tried })
            }
            (None, None) => {
                let held = self.list().await?.into_iter().map(|manifest| manifest.name).collect();
                Err(ObtainError::Unknown { name: name.clone(), held })
            }
        }
    }

    /// Gives a name to four uploaded files, if they make a dataset.
    pub async fn add(&self, name: Name, files: [ArtifactHash; 4]) -> Result<Manifest, ObtainError> {
        let mut total = 0_u64;
        for hash in files {
            // Nothing removes it before it has its name.
            self.artifacts.note_upload(hash);
            total = total.saturating_add(self.artifacts.size(hash).await?);
        }
        if total > MAX_DATASET_BYTES {
            return Err(ObtainError::TooLarge { name, total });
        }
        let mut bytes = Vec::with_capacity(4);
        for hash in files {
            bytes.push(self.artifacts.get(hash).await?.to_vec());
        }
        let Ok(bytes) = <[Vec<u8>; 4]>::try_from(bytes) else {
            return Err(ObtainError::Stopping);
        };
        let (manifest, _) = check(name, bytes).await?;
        self.log.put_dataset(manifest.clone()).await?;
        Ok(manifest)
    }

    /// Artifacts first, then the record that names them.
    async fn keep(&self, manifest: &Manifest, files: [Vec<u8>; 4]) -> Result<(), ObtainError> {
        for bytes in files {
            self.artifacts.put(bytes).await?;
        }
        Ok(self.log.put_dataset(manifest.clone()).await?)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ObtainError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ObtainError::Stopping)
}

async fn read_folder(folder: &Path) -> Result<Result<[Vec<u8>; 4], DatasetError>, ObtainError> {
    let folder = folder.to_owned();
    blocking(move || dataset::read_folder(&folder)).await
}

/// Reads the files' sizes and classes, and checks them against what was published if the name is known.
async fn check(name: Name, files: [Vec<u8>; 4]) -> Result<(Manifest, [Vec<u8>; 4]), ObtainError> {
    let checked = blocking(move || {
        let borrowed = || [&*files[0], &*files[1], &*files[2], &*files[3]];
        if let Some(known) = KnownDataset::find(name.as_str()) {
            known.check(borrowed())?;
        }
        let shape = Shape::of_files(borrowed())?;
        let manifest = Manifest { name, shape, files: borrowed().map(ArtifactHash::of) };
        Ok::<_, DatasetError>((manifest, files))
    });
    Ok(checked.await??)
}

/// The four files from their publisher, unpacked; or what went wrong, for people.
async fn download(known: &KnownDataset, progress: &mpsc::Sender<String>) -> Result<[Vec<u8>; 4], String> {
    let client = reqwest::Client::builder()
        .connect_timeout(DOWNLOAD_PATIENCE)
        .read_timeout(DOWNLOAD_PATIENCE)
        .build()
        .map_err(|error| error.to_string())?;
    let mut files = Vec::with_capacity(4);
    for (role, file) in FileRole::ALL.into_iter().zip(&known.files) {
        let most = file.bytes;
        let url = format!("{}{role}.gz", known.url);
        let failed = |error: reqwest::Error| format!("{url} does not answer: {}", root_cause(&error));
        let mut answer =
            client.get(&url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let mut packed = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            packed.extend_from_slice(&chunk);
            if packed.len() > MAX_ARCHIVE_BYTES {
                return Err(format!("{url} sends more than {MAX_ARCHIVE_BYTES} bytes"));
            }
        }
        // Whoever listens may have gone; the dataset is wanted all the same.
        let _ = progress.send(format!("dataset {}: {role}.gz, {} bytes", known.name, packed.len())).await;
        let unpacked = tokio::task::spawn_blocking(move || dataset::unpack(&packed, most)).await;
        let unpacked = unpacked.map_err(|error| error.to_string())?;
        files.push(unpacked.map_err(|error| format!("{url} cannot be unpacked: {error}"))?);
    }
    <[Vec<u8>; 4]>::try_from(files).map_err(|_| "a file is missing".to_owned())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
