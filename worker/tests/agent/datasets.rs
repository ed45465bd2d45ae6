//! Datasets: downloaded once, and checked.

use super::*;

#[tokio::test]
async fn slots_that_want_the_same_dataset_download_it_once() {
    let mut stage = Stage::new().with_trials(4);
    stage.slots = 4;
    let agent = stage.start(GOOD).await;
    for trial in 0..4 {
        stage.coordinator.outcome(trial).await;
    }
    stage.end(agent).await;
    let mut downloads = stage.coordinator.state().downloads.clone();
    let mut files = FILES.map(ArtifactHash::of);
    downloads.sort();
    files.sort();
    assert_eq!(downloads, files);
}

#[tokio::test]
async fn a_cached_file_is_used_again_unless_it_is_damaged() {
    let stage = Stage::new().with_trials(1);
    let artifacts = stage.folder.path().join("cache/artifacts");
    std::fs::create_dir_all(&artifacts).expect("writable");
    let [good, damaged, ..] = FILES.map(ArtifactHash::of);
    std::fs::write(artifacts.join(good.to_string()), FILES[0]).expect("writable");
    std::fs::write(artifacts.join(damaged.to_string()), "something else").expect("writable");
    let agent = stage.start(GOOD).await;
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    let downloads = stage.coordinator.state().downloads.clone();
    assert!(!downloads.contains(&good));
    assert!(downloads.contains(&damaged));
    let repaired = std::fs::read(artifacts.join(damaged.to_string())).expect("there");
    assert_eq!(repaired, FILES[1]);
}

#[tokio::test]
async fn a_dataset_that_cannot_be_had_fails_the_trial() {
    let hash = ArtifactHash::of(FILES[2]);
    for (how, change, said) in
        [("missing", None, "no such artifact"), ("altered", Some(b"other bytes".to_vec()), "came as")]
    {
        let stage = Stage::new().with_trials(1);
        match change {
            None => stage.coordinator.state().artifacts.remove(&hash),
            Some(bytes) => stage.coordinator.state().artifacts.insert(hash, bytes),
        };
        let agent = stage.start(GOOD).await;
        let Outcome::Failed(failure) = stage.coordinator.outcome(0).await else {
            panic!("{how}: {:?}", stage.story(0));
        };
        stage.end(agent).await;
        assert_eq!(failure.reason, FailureReason::BadData, "{how}");
        assert!(failure.detail.contains(said), "{how}: {}", failure.detail);
        let cached = stage.folder.path().join("cache/artifacts").join(hash.to_string());
        assert!(!cached.exists(), "{how}: kept all the same");
    }
}
