//! Fixed trials and searches for the tests of what is shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fittingroom_common::dataset::{FileRole, Manifest, Shape};
use fittingroom_common::hyperparameter::{Hyperparameters, Parameter};
use fittingroom_common::id::{ArtifactHash, Name, SlotNumber, TrialId};
use fittingroom_common::space::Method;
use fittingroom_common::time::Timestamp;
use fittingroom_common::trial::{Failure, FailureReason, Finite, Metric, Report, Score};
use fittingroom_common::view::{
    LeaderboardView, Progress, SearchState, SearchSummary, TrialCounts, TrialRow, TrialState,
};

pub(crate) fn score(loss: f64, accuracy: f64) -> Score {
    Score { loss: Finite::new(loss).expect("finite"), accuracy: Finite::new(accuracy).expect("finite") }
}

pub(crate) fn hyperparameters(pairs: &[(&str, &str)]) -> Hyperparameters {
    let mut all = Hyperparameters::new();
    for (name, value) in pairs {
        let parameter = Parameter::find(name).expect("known");
        let value = parameter.parse(value).expect("fits");
        all.set(parameter, &value).expect("fits");
    }
    all
}

pub(crate) fn report(epoch: u32, accuracy: f64) -> Report {
    Report {
        epoch,
        train: score(0.25, 0.95),
        validation: score(0.3456, accuracy),
        test: None,
        seconds: 7.25 * f64::from(epoch),
        images_per_second: 9_000.0,
    }
}

fn row(trial: u64, state: TrialState) -> TrialRow {
    TrialRow {
        trial: TrialId::new(trial),
        rank: None,
        state,
        attempts: 1,
        place: Some((Name::sanitised("node-1"), SlotNumber::new(0))),
        hyperparameters: hyperparameters(&[
            ("optimizer", if trial.is_multiple_of(2) { "sgd" } else { "adam" }),
            ("learning_rate", ["0.1", "0.01", "0.001", "1e-4"][(trial % 4) as usize]),
            ("batch_size", "64"),
        ]),
        report: None,
        failure: None,
        test: None,
        epochs: 10,
        progress: None,
    }
}

pub(crate) fn complete(trial: u64, rank: u64, accuracy: f64) -> TrialRow {
    TrialRow { rank: Some(rank), report: Some(report(10, accuracy)), ..row(trial, TrialState::Complete) }
}

pub(crate) fn diverged(trial: u64) -> TrialRow {
    TrialRow {
        rank: Some(3),
        failure: Some(Failure::new(FailureReason::Diverged, "the loss became NaN")),
        ..row(trial, TrialState::Failed)
    }
}

pub(crate) fn running(trial: u64) -> TrialRow {
    TrialRow {
        report: Some(report(3, 0.85)),
        progress: Some(Progress { epoch: 4, step: 211, steps: 422 }),
        ..row(trial, TrialState::Running)
    }
}

pub(crate) fn waiting(trial: u64) -> TrialRow {
    TrialRow { attempts: 0, place: None, ..row(trial, TrialState::Waiting) }
}

pub(crate) fn summary() -> SearchSummary {
    SearchSummary {
        name: Name::sanitised("quickstart"),
        state: SearchState::Running,
        metric: Metric::ValidationAccuracy,
        method: Method::Random,
        dataset: Name::sanitised("fashion-mnist"),
        trial_count: 40,
        counts: TrialCounts { waiting: 1, running: 1, complete: 2, failed: 1, ..TrialCounts::default() },
        created: Timestamp::from_millis(1_795_350_951_000),
        ended: None,
        best: Some(complete(3, 1, 0.9123)),
        reason: String::new(),
        attempt_time: Duration::from_secs(180),
        attempts_ended: 3,
    }
}

pub(crate) fn view() -> LeaderboardView {
    LeaderboardView {
        search: summary(),
        ranked: vec![complete(3, 1, 0.9123), complete(0, 2, 0.9), diverged(1)],
        running: vec![running(2)],
        workers: 1,
        slots: 2,
    }
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        name: Name::sanitised("fashion-mnist"),
        shape: Shape { height: 28, width: 28, classes: 10, train_images: 60_000, test_images: 10_000 },
        files: [b"a", b"b", b"c", b"d"].map(|bytes| ArtifactHash::of(bytes)),
    }
}

/// A folder with the smallest dataset there is, in which only this grey value differs.
pub(crate) fn dataset_folder(folder: &Path, grey: u8) -> PathBuf {
    let idx = |dimensions: &[u32], data: &[u8]| {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
        bytes.extend(data);
        bytes
    };
    std::fs::create_dir_all(folder).expect("a folder");
    let files =
        [idx(&[2, 2, 2], &[grey; 8]), idx(&[2], &[0, 1]), idx(&[1, 2, 2], &[grey; 4]), idx(&[1], &[1])];
    for (role, bytes) in FileRole::ALL.into_iter().zip(files) {
        std::fs::write(folder.join(role.file_name()), bytes).expect("writes");
    }
    folder.to_owned()
}
