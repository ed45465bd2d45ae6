//! Backups: taken while a search goes on, restored elsewhere, and refused if they are not what they were.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use fittingroom_common::id::ArtifactHash;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{Coordinator, pretend_to_work, pretend_to_work_on, run, write_search};

/// Everything that is the same wherever and whenever a search is run.
fn results(coordinator: &Coordinator) -> Value {
    let mut board = coordinator.json(&["leaderboard", "tiny", "--json"]);
    for trial in board["trials"].as_array_mut().expect("a list") {
        trial.as_object_mut().expect("an object").remove("attempts").expect("is there");
    }
    board
}

fn work(coordinator: &Coordinator, most: usize) {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(pretend_to_work_on(coordinator.url.clone(), most)).expect("works");
}

/// A search, a backup from the middle of it, and what the search came to.
fn backed_up(folder: &Path, flags: &[&str]) -> (PathBuf, Value) {
    let file = write_search(folder);
    let coordinator = Coordinator::start(&folder.join("data"));
    coordinator.text(&["launch", &file]);
    work(&coordinator, 2);
    let backup = folder.join("backup.tar");
    let arguments = [&["backup", backup.to_str().expect("UTF-8"), "--json"], flags].concat();
    let said = coordinator.json(&arguments);
    assert_eq!(said["bytes"], std::fs::metadata(&backup).expect("is there").len());
    work(&coordinator, usize::MAX);
    let found = results(&coordinator);
    assert_eq!(found["state"], "COMPLETE");
    (backup, found)
}

fn restore(backup: &Path, data: &Path) -> std::process::Output {
    let [backup, data] = [backup, data].map(|path| path.to_str().expect("UTF-8"));
    run(&["restore", backup, "--data", data, "--json"])
}

fn is_sound(data: &Path) -> bool {
    run(&["check", "--data", data.to_str().expect("UTF-8")]).status.success()
}

#[test]
fn a_search_that_was_backed_up_in_the_middle_comes_to_the_same_after_it_is_restored() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (backup, found) = backed_up(folder.path(), &[]);
    let mode = std::fs::metadata(&backup).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let mut archive = tar::Archive::new(std::fs::File::open(&backup).expect("opens"));
    let names: Vec<String> = archive
        .entries()
        .expect("a tar archive")
        .map(|entry| entry.expect("whole").path().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(names[..2], ["backup.json", "log.sqlite"]);
    assert_eq!(names.len(), 2 + 4 + 1, "a dataset's files and the best model: {names:?}");

    let data = folder.path().join("restored");
    std::fs::create_dir(&data).expect("made");
    std::fs::create_dir(data.join("certs")).expect("what was made for it beforehand may be there");
    let restored = restore(&backup, &data);
    let said: Value = serde_json::from_slice(&restored.stdout).expect("one JSON document");
    assert_eq!(
        (&said["searches"], &said["artifacts"], &said["complete"]),
        (&1.into(), &5.into(), &true.into())
    );
    assert!(is_sound(&data));
    let coordinator = Coordinator::start(&data);
    assert_eq!(coordinator.json(&["list", "--json"])["searches"][0]["complete"], 2);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(pretend_to_work(coordinator.url.clone())).expect("works");
    assert_eq!(results(&coordinator), found);
    drop(coordinator);
    assert!(is_sound(&data));

    let again = restore(&backup, &data);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("already"), "{said}");
    assert!(is_sound(&data), "nothing was touched");
}

#[test]
fn a_backup_that_was_cut_off_altered_or_made_up_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (backup, _) = backed_up(folder.path(), &[]);
    let whole = std::fs::read(&backup).expect("reads");
    let bad = folder.path().join("bad.tar");
    let data = folder.path().join("restored");
    let place =
        |name: &str| whole.windows(name.len()).rposition(|it| it == name.as_bytes()).expect("is there");
    let log = place("log.sqlite") + 512;
    let last = place("artifacts/") + 512;
    let with = |at: usize, bytes: &[u8]| {
        let mut altered = whole.clone();
        altered[at..at + bytes.len()].copy_from_slice(bytes);
        altered
    };
    let rows: [(&str, Vec<u8>, &str); 9] = [
        ("nothing", Vec::new(), "no backup"),
        ("no archive", b"a letter".repeat(100), "no backup"),
        ("cut in its list", whole[..600].to_vec(), "cut off"),
        ("cut in the log", whole[..log + 5000].to_vec(), "cut off"),
        ("cut in an artifact", whole[..last + 3].to_vec(), "cut off"),
        ("cut before an artifact", whole[..last - 512].to_vec(), "cut off"),
        ("another log", with(log + 5000, b"?"), "damaged"),
        ("another artifact", with(last, b"?"), "damaged"),
        ("a later form", with(place("\"form\": 1") + 8, b"2"), "has the form 2"),
    ];
    for (row, bytes, message) in rows {
        std::fs::write(&bad, bytes).expect("writes");
        let refused = restore(&bad, &data);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{row}: {said}");
        assert!(said.contains(message), "{row}: {said}");
        let left: Vec<_> =
            std::fs::read_dir(&data).expect("lists").map(|it| it.expect("lists").file_name()).collect();
        assert_eq!(left, ["lock"], "{row}");
    }
    assert!(restore(&backup, &data).status.success(), "the whole one");
    assert!(is_sound(&data));
}

/// Everything in a folder, and the folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let within = |entry: PathBuf| if entry.is_dir() { entries(&entry) } else { vec![entry] };
    let listed = std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("lists").path());
    listed.flat_map(within).chain([folder.to_owned()]).collect()
}

#[test]
fn what_root_makes_in_the_data_folder_of_an_account_is_the_accounts() {
    const ACCOUNT: u32 = 54_321;
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = folder.path().join("of-the-account");
    std::fs::create_dir(&data).expect("makes");
    if chown(&data, Some(ACCOUNT), Some(ACCOUNT)).is_err() {
        eprintln!("NOT RUN: nothing can be given away here, which needs root");
        return;
    }
    let (backup, _) = backed_up(folder.path(), &[]);
    let named = data.to_str().expect("UTF-8");
    for command in [
        &["certs", "--name", "node-1"][..],
        &["certs", "--name", "node-2", "--renew"],
        &["token", "create", "--role", "worker"],
        &["token", "revoke", "worker-1"],
    ] {
        assert!(run(&[command, &["--data", named]].concat()).status.success(), "{command:?}");
    }
    let restored = restore(&backup, &data);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(is_sound(&data));
    let made = entries(&data);
    assert!(made.iter().any(|it| it.ends_with("certs/server.key")), "{made:?}");
    assert!(made.iter().any(|it| it.ends_with("log.sqlite")), "{made:?}");
    for entry in made {
        let owner = std::fs::metadata(&entry).expect("is there").uid();
        assert_eq!(owner, ACCOUNT, "{}", entry.display());
    }
}

#[test]
fn a_backup_without_artifacts_is_whole_where_they_are() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (backup, _) = backed_up(folder.path(), &["--no-artifacts"]);
    let data = folder.path().join("restored");
    let restored = restore(&backup, &data);
    let said: Value = serde_json::from_slice(&restored.stdout).expect("one JSON document");
    assert_eq!((&said["artifacts"], &said["complete"]), (&0.into(), &false.into()));
    assert!(!is_sound(&data), "its artifacts are missing");
    let [data, kept] = [data, folder.path().join("data/artifacts")];
    let [data, kept] = [&data, &kept].map(|path| path.to_str().expect("UTF-8"));
    assert!(run(&["check", "--data", data, "--artifacts", kept]).status.success());
}

#[test]
fn a_backup_of_what_is_damaged_or_gone_is_refused_and_names_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = write_search(folder.path());
    let data = folder.path().join("data");
    let coordinator = Coordinator::start(&data);
    coordinator.text(&["launch", &file]);
    work(&coordinator, 1);
    let hash = ArtifactHash::of(&crate::model()).to_string();
    let model = data.join("artifacts").join(&hash[..2]).join(&hash);
    let path = folder.path().join("backup.tar");
    let path = path.to_str().expect("UTF-8");
    for (row, change) in [("altered", Some(b"?".as_slice())), ("gone", None)] {
        match change {
            Some(bytes) => std::fs::write(&model, bytes).expect("writes"),
            None => std::fs::remove_file(&model).expect("removes"),
        }
        let refused = coordinator.run(&["backup", path]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{row}: {said}");
        assert!(said.contains(&hash) && said.contains("--no-artifacts"), "{row}: {said}");
        assert!(!Path::new(path).exists(), "{row}");
    }
    coordinator.text(&["backup", path, "--no-artifacts"]);
}

/// Passes on what goes to an address, and so many bytes of each connection that come from it.
fn cut_after(address: &str, most: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let address = address.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(&address) else { return };
            let (mut asks, mut is_asked) =
                (near.try_clone().expect("clones"), far.try_clone().expect("clones"));
            std::thread::spawn(move || std::io::copy(&mut asks, &mut is_asked));
            std::thread::spawn(move || {
                let mut near = near;
                // Either end may have gone.
                let _ = std::io::copy(&mut far.take(most), &mut near);
                let _ = near.flush();
                let _ = near.shutdown(Shutdown::Both);
            });
        }
    });
    url
}

#[test]
fn a_backup_that_breaks_off_leaves_no_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = write_search(folder.path());
    let coordinator = Coordinator::start(&folder.path().join("data"));
    coordinator.text(&["launch", &file]);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).expect("made");
    let path = out.join("backup.tar").to_string_lossy().into_owned();
    let url = cut_after(&coordinator.url, 30_000);
    let broken = run(&["backup", &path, "--coordinator", &url]);
    let said = String::from_utf8_lossy(&broken.stderr);
    assert_eq!(broken.status.code(), Some(1), "{said}");
    assert_eq!(std::fs::read_dir(&out).expect("lists").count(), 0, "{said}");
    coordinator.text(&["backup", &path]);
    let incoming = folder.path().join("data/incoming");
    assert_eq!(std::fs::read_dir(incoming).expect("lists").count(), 0, "the copies of the log are gone");
}
