//! Whose files are whose: root may work in the data folder of the account that the coordinator runs as,
//! which must be able to use what root makes there.
//!
//! Where there is nothing to give, or nobody who may give it, nothing is lost by failing, and nothing is said.
//! A link that lies there is given away itself, not what it leads to. That is no defence against an account
//! that exchanges a folder while root walks it: run such commands where the account's programs are trusted.

use std::fs::File;
use std::path::Path;

/// Gives a file that was just made to the owner of this folder.
#[cfg(unix)]
pub(crate) fn give_file(folder: &Path, made: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if let (Ok(folder), Ok(before)) = (std::fs::metadata(folder), made.metadata())
        && folder.uid() != before.uid()
    {
        let _ = fchown(made, Some(folder.uid()), Some(folder.gid()));
    }
}

/// Gives what was just made, with all that is in it, to the owner of this folder.
#[cfg(unix)]
pub(crate) fn give_all(folder: &Path, made: &Path) {
    use std::os::unix::fs::{MetadataExt, lchown};
    let (Ok(owner), Ok(before)) = (std::fs::metadata(folder), std::fs::symlink_metadata(made)) else {
        return;
    };
    if before.is_dir() {
        let entries = std::fs::read_dir(made).into_iter().flatten().flatten();
        entries.for_each(|entry| give_all(folder, &entry.path()));
    }
    if owner.uid() != before.uid() {
        let _ = lchown(made, Some(owner.uid()), Some(owner.gid()));
    }
}

#[cfg(not(unix))]
pub(crate) fn give_file(_: &Path, _: &File) {}

#[cfg(not(unix))]
pub(crate) fn give_all(_: &Path, _: &Path) {}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    use super::*;

    #[test]
    fn what_root_makes_in_anothers_folder_is_the_others_but_for_what_links_lead_to() {
        const OWNER: u32 = 54_321;
        let outside = tempfile::tempdir().expect("temporary folder");
        let folder = tempfile::tempdir().expect("temporary folder");
        if chown(folder.path(), Some(OWNER), Some(OWNER)).is_err() {
            eprintln!("NOT RUN: nothing can be given away here, which needs root");
            return;
        }
        let made = folder.path().join("made");
        std::fs::create_dir_all(made.join("in/it")).expect("makes");
        std::fs::write(made.join("in/file"), "x").expect("writes");
        symlink(outside.path(), made.join("in/link")).expect("links");
        let file = File::create(folder.path().join("file")).expect("makes");
        give_all(folder.path(), &made);
        give_file(folder.path(), &file);
        for name in ["file", "made", "made/in", "made/in/it", "made/in/file", "made/in/link"] {
            let owner = std::fs::symlink_metadata(folder.path().join(name)).expect("there").uid();
            assert_eq!(owner, OWNER, "{name}");
        }
        assert_ne!(std::fs::metadata(outside.path()).expect("there").uid(), OWNER);
    }
}
