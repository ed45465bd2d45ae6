//! Passes the committed inputs of a package's fuzz targets. Each package includes this file.

/// A fuzz target: its name, which its program and the folder of its inputs have too, and what it does.
pub(super) type Target = (&'static str, fn(&[u8]));

/// Passes every input that lies in a package's `fuzz` folder.
#[cfg(test)]
pub(super) fn pass(package: &str, targets: &[Target]) {
    let fuzz = std::path::Path::new(package).join("fuzz");
    let names = |folder: &str| {
        let entries =
            std::fs::read_dir(fuzz.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let programs: Vec<_> = targets.iter().map(|(name, _)| format!("{name}.rs")).collect();
    assert_eq!(names("fuzz_targets"), programs, "a program for each target");
    for (name, check) in targets {
        let inputs = names(&format!("corpus/{name}"));
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for input in inputs {
            let path = fuzz.join("corpus").join(name).join(&input);
            let bytes = std::fs::read(&path).expect("readable");
            let passed = std::panic::catch_unwind(|| check(&bytes));
            assert!(passed.is_ok(), "{} breaks a promise", path.display());
        }
    }
}
