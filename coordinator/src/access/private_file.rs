//! Files that nobody but their owner may read.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::owner;

/// Writes a file with mode 0600: whole and durable, or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    // A temporary file is its owner's alone from the beginning.
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    owner::give_file(folder, temporary.as_file());
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone_whatever_was_there_before() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "open to all").expect("writes");
        write(&path, b"secret").expect("writes");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode, std::fs::read(&path).expect("reads")), (0o600, b"secret".to_vec()));
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 1, "temporary files are left");
    }
}
