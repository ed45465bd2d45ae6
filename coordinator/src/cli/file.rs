//! Files that are either whole or not there: written beside their place, then moved into it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::CliError;

/// A file on its way. Dropped before [`finish`](Self::finish), it leaves nothing behind.
pub(crate) struct AtomicFile {
    target: PathBuf,
    folder: PathBuf,
    temporary: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// A file that will be at `target`. Its folder must be there.
    pub(crate) fn create(target: &Path) -> Result<Self, CliError> {
        // Others may read it as far as the umask lets them, like any other result.
        Self::create_with_mode(target, 0o666)
    }

    /// A file that will be at `target`, and that only its owner may read.
    pub(crate) fn create_private(target: &Path) -> Result<Self, CliError> {
        Self::create_with_mode(target, 0o600)
    }

    fn create_with_mode(target: &Path, mode: u32) -> Result<Self, CliError> {
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        let begin = || {
            if target.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            temporary(folder, mode)
        };
        match begin() {
            Ok(temporary) => Ok(Self {
                target: target.to_owned(),
                folder: folder.to_owned(),
                temporary: BufWriter::new(temporary),
            }),
            Err(source) => Err(unwritable(target, source)),
        }
    }

    /// The same error for whatever fails while this file is written.
    pub(crate) fn unwritable(&self, source: io::Error) -> CliError {
        unwritable(&self.target, source)
    }

    /// Where what was written so far can be read.
    pub(crate) fn so_far(&mut self) -> Result<&Path, CliError> {
        match self.temporary.flush() {
            Ok(()) => Ok(self.temporary.get_ref().path()),
            Err(source) => Err(unwritable(&self.target, source)),
        }
    }

    /// Makes the file durable and moves it to its place.
    pub(crate) fn finish(self) -> Result<(), CliError> {
        let Self { target, folder, temporary } = self;
        let finish = || {
            let temporary = temporary.into_inner().map_err(io::IntoInnerError::into_error)?;
            temporary.as_file().sync_all()?;
            temporary.persist(&target).map_err(|error| error.error)?;
            File::open(&folder)?.sync_all()
        };
        finish().map_err(|source| unwritable(&target, source))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

fn unwritable(target: &Path, source: io::Error) -> CliError {
    CliError::Write { path: target.to_owned(), source }
}

/// A temporary file with this mode, as far as the umask lets it.
#[cfg_attr(not(unix), expect(unused_variables, reason = "modes are Unix's"))]
fn temporary(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fittingroom-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = folder.path().join("model.json");

        let mut dropped = AtomicFile::create(&target).expect("writable");
        dropped.write_all(b"half").expect("writes");
        drop(dropped);
        assert!(names(folder.path()).is_empty());

        let mut finished = AtomicFile::create(&target).expect("writable");
        finished.write_all(b"whole").expect("writes");
        finished.finish().expect("moves");
        assert_eq!(names(folder.path()), ["model.json"]);
        assert_eq!(std::fs::read(&target).expect("reads"), b"whole");
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for target in [folder.path().join("missing/file"), folder.path().to_owned()] {
            let message = AtomicFile::create(&target).err().expect("must fail").to_string();
            assert!(message.contains(&format!("{target:?}")), "{message}");
        }
    }
}
