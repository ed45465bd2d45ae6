//! Whose files are whose: root may work in the data folder of the account that the coordinator runs as,
//! which must be able to use what root makes there.
//!
//! Where there is nothing to give, or nobody who may give it, nothing is lost by failing, and nothing is said.
//! That account may exchange what lies in its folder for something else meanwhile, such as a link to a folder of
//! root's. So folders are walked by what was opened and not by their paths, no link in that folder is followed, and
//! a file that has a second name is left as it is.

use std::fs::File;
#[cfg(unix)]
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

#[cfg(unix)]
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, openat, statat};
#[cfg(unix)]
use rustix::path::Arg;

/// Gives a file that was just made to the owner of this folder.
#[cfg(unix)]
pub(crate) fn give_file(folder: &Path, made: &File) {
    use std::os::unix::fs::MetadataExt;
    if let (Ok(to), Ok(before)) = (Account::of(folder), made.metadata())
        && to.uid.as_raw() != before.uid()
    {
        let _ = fchown(made, Some(to.uid), Some(to.gid));
    }
}

/// Gives what was just made in this folder or below, with all that is in it, to the folder's owner.
#[cfg(unix)]
pub(crate) fn give_all(folder: &Path, made: &Path) {
    let _ = try_give_all(folder, made);
}

#[cfg(unix)]
fn try_give_all(folder: &Path, made: &Path) -> std::io::Result<()> {
    let to = Account::of(folder)?;
    let mut within = OwnedFd::from(File::open(folder)?);
    let mut names = made.strip_prefix(folder).into_iter().flatten().peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            to.give(&within, name)?;
        } else {
            within = open_folder(&within, name)?;
        }
    }
    Ok(())
}

/// Opens a folder by its name in another, unless that is a link.
#[cfg(unix)]
fn open_folder(within: impl AsFd, name: impl Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(within, name, flags, Mode::empty())
}

/// To whom something is given.
#[cfg(unix)]
#[derive(Clone, Copy)]
struct Account {
    uid: Uid,
    gid: Gid,
}

#[cfg(unix)]
impl Account {
    fn of(folder: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let owned = std::fs::metadata(folder)?;
        Ok(Self { uid: Uid::from_raw(owned.uid()), gid: Gid::from_raw(owned.gid()) })
    }

    /// Gives what has this name in the folder `within`. What is in a folder comes first: as long as the folder
    /// is not given away, nobody else can exchange anything in it.
    fn give(self, within: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<()> {
        let before = statat(&within, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let to_others = before.st_uid != self.uid.as_raw();
        if FileType::from_raw_mode(before.st_mode).is_dir() {
            let opened = open_folder(&within, name)?;
            for entry in Dir::read_from(&opened)? {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    self.give(&opened, entry.file_name())?;
                }
            }
            if to_others {
                fchown(&opened, Some(self.uid), Some(self.gid))?;
            }
        } else if to_others && before.st_nlink == 1 {
            chownat(&within, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
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
        std::fs::write(outside.path().join("file"), "x").expect("writes");
        std::fs::hard_link(outside.path().join("file"), made.join("in/second_name")).expect("links");
        let file = File::create(folder.path().join("file")).expect("makes");
        give_all(folder.path(), &made);
        give_file(folder.path(), &file);
        for name in ["file", "made", "made/in", "made/in/it", "made/in/file", "made/in/link"] {
            let owner = std::fs::symlink_metadata(folder.path().join(name)).expect("there").uid();
            assert_eq!(owner, OWNER, "{name}");
        }
        for kept in [outside.path(), &outside.path().join("file")] {
            assert_ne!(std::fs::metadata(kept).expect("there").uid(), OWNER, "{}", kept.display());
        }

        // The folder was exchanged for a link.
        let link = folder.path().join("exchanged");
        symlink(outside.path(), &link).expect("links");
        std::fs::create_dir(outside.path().join("in")).expect("makes");
        give_all(folder.path(), &link);
        give_all(folder.path(), &link.join("in"));
        assert_ne!(std::fs::metadata(outside.path().join("in")).expect("there").uid(), OWNER);
        assert_ne!(std::fs::metadata(outside.path()).expect("there").uid(), OWNER);
    }
}
