//! The agent against a coordinator on loopback, with a trainer that is a few lines of shell; in
//! [`program`], with the real trainer.
#![cfg(unix)]

mod absence;
mod checkpoints;
mod coordinator;
mod datasets;
mod gpus;
mod program;

use std::net::SocketAddr;
use std::time::Duration;

use coordinator::{Coordinator, Heard, Reports};
use fittingroom_common::access::Access;
use fittingroom_common::checkpoint::CheckpointRule;
use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::hyperparameter::{Hyperparameters, Parameter, Value};
use fittingroom_common::id::{ArtifactHash, Attempt, AttemptNumber, Name, SearchId, TrialId};
use fittingroom_common::process::ServiceManager;
use fittingroom_common::trial::{FailureReason, Seeds};
use fittingroom_common::work::{Assignment, Outcome, SearchAttempt, Work};
use fittingroom_worker::agent::{
    self, AgentError, Config, Device, Devices, GpuWatch, Timing, TrainerProgram,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const EPOCHS: i64 = 3;
const FILES: [&[u8]; 4] = [b"training images", b"training labels", b"test images", b"test labels"];
const MODEL: &str = "weights";

/// Trains as it should: three epochs, then a model. The rate of images is the number of trials
/// that this process has been told to train, which shows whether it is the same process.
const GOOD: &str = "epochs; model";

/// What every trainer of these tests has in common; `TRAIN` is what it does when told to train.
const SCRIPT: &str = r#"
say() { printf '%s\n' "$1"; }
epoch() {
    say "{\"event\":\"progress\",\"id\":\"$id\",\"epoch\":$1,\"step\":1,\"steps\":2}"
    say "{\"event\":\"epoch\",\"id\":\"$id\",\"epoch\":$1,\"train_loss\":0.5,\"train_accuracy\":0.8,\"validation_loss\":0.4,\"validation_accuracy\":0.9,\"test_loss\":null,\"test_accuracy\":null,\"seconds\":$1.5,\"images_per_second\":$trials.0}"
}
epochs() { epoch 1; epoch 2; epoch 3; }
checkpoint() {
    printf "state $1.$2" > "$folder/checkpoint-$1-$2"
    say "{\"event\":\"checkpoint\",\"id\":\"$id\",\"file\":\"$folder/checkpoint-$1-$2\",\"epoch\":$1,\"step\":$2}"
}
refuse() { say "{\"event\":\"refused\",\"id\":\"$id\",\"problem\":\"not a state\"}"; }
model() { printf weights > "$file"; say "{\"event\":\"finished\",\"id\":\"$id\",\"model_file\":\"$file\"}"; }
[ "$RAYON_NUM_THREADS$CANDLE_NUM_THREADS$OMP_NUM_THREADS" = 111 ] || { echo 'threads not limited' >&2; exit 3; }
[ "$1 $2 $3" = 'trainer --device cpu' ] || { echo "called with $*" >&2; exit 3; }
trials=0
say '{"event":"ready","protocol":1,"device":"cpu"}'
while read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    file=${line#*\"model_file\":\"}; file=${file%%\"*}
    folder=${line#*\"folder\":\"}; folder=${folder%%\"*}
    state=
    case $line in
    *'"resume_from":{'*) state=${line#*\"resume_from\":\{\"file\":\"}; state=$(cat "${state%%\"*}") ;;
    esac
    case $line in
    *'"command":"train"'*) trials=$((trials + 1)); kept=$folder; TRAIN ;;
    *'"command":"evaluate"'*) say "{\"event\":\"evaluated\",\"id\":\"$id\",\"loss\":0.3,\"accuracy\":0.$(wc -c < "$file" | tr -d ' ')}" ;;
    *'"command":"suspend"'*) folder=$kept; checkpoint 1 7; say "{\"event\":\"stopped\",\"id\":\"$id\"}" ;;
    *'"command":"stop"'*) say "{\"event\":\"stopped\",\"id\":\"$id\"}" ;;
    esac
done
"#;

/// A coordinator with work, and an agent that is about to do it.
struct Stage {
    coordinator: Coordinator,
    folder: TempDir,
    slots: usize,
    device: Device,
    gpus: Option<GpuWatch>,
    timing: Timing,
    shutdown: CancellationToken,
}

impl Stage {
    fn new() -> Self {
        let coordinator = Coordinator::new();
        coordinator.state().artifacts =
            FILES.iter().map(|bytes| (ArtifactHash::of(bytes), bytes.to_vec())).collect();
        Self {
            coordinator,
            folder: tempfile::tempdir().expect("temporary folder"),
            slots: 1,
            device: Device::Cpu,
            gpus: None,
            timing: Timing {
                retry_first: Duration::from_millis(5),
                retry_last: Duration::from_millis(40),
                lease_wait: Duration::from_millis(500),
                trainer_start: Duration::from_secs(10),
                trainer_silence: Duration::from_secs(10),
                trainer_stop: Duration::from_millis(300),
                drain: Duration::ZERO,
                farewell: Duration::from_secs(2),
            },
            shutdown: CancellationToken::new(),
        }
    }

    fn with_trials(self, trials: u64) -> Self {
        self.coordinator.state().work.extend((0..trials).map(|trial| assignment(trial, training())));
        self
    }

    /// Starts the agent with a trainer that does this when it is told to train.
    async fn start(&self, train: &str) -> JoinHandle<Result<(), AgentError>> {
        let address = self.coordinator.serve(([127, 0, 0, 1], 0).into()).await;
        self.start_at(address, train)
    }

    fn start_at(&self, address: SocketAddr, train: &str) -> JoinHandle<Result<(), AgentError>> {
        let script = self.folder.path().join("trainer.sh");
        std::fs::write(&script, SCRIPT.replace("TRAIN", train)).expect("writable");
        let trainer =
            TrainerProgram { program: "/bin/sh".into(), arguments: vec![script.into(), "trainer".into()] };
        self.start_with(address, trainer)
    }

    fn start_with(&self, address: SocketAddr, trainer: TrainerProgram) -> JoinHandle<Result<(), AgentError>> {
        let config = Config {
            coordinator: format!("http://{address}").parse().expect("a URL"),
            access: Access::default(),
            name: Name::sanitised("test-worker"),
            devices: Devices { slots: vec![self.device; self.slots], description: "cpu (test)".to_owned() },
            gpus: self.gpus.clone(),
            cache: self.folder.path().join("cache"),
            trainer,
            timing: self.timing.clone(),
            service_manager: ServiceManager::default(),
        };
        tokio::spawn(agent::run(config, self.shutdown.clone()))
    }

    /// Ends the agent, which must end well.
    async fn end(&self, agent: JoinHandle<Result<(), AgentError>>) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), agent)
            .await
            .expect("the agent ends in time")
            .expect("the agent does not panic");
        assert!(ended.is_ok(), "{ended:?}");
    }

    /// What was heard of a trial, in words.
    fn story(&self, trial: u64) -> Vec<String> {
        let heard = self.coordinator.state().heard.clone();
        heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Registered(_) => None,
                Heard::Reported { trial: of, report } => {
                    (*of == trial).then(|| format!("epoch {}", report.epoch))
                }
                Heard::CheckpointUploaded { trial: of, bytes } => {
                    (*of == trial).then(|| format!("stored {}", String::from_utf8_lossy(bytes)))
                }
                Heard::CheckpointKept { trial: of, checkpoint } => (*of == trial)
                    .then(|| format!("kept {}.{}", checkpoint.place.epoch, checkpoint.place.step)),
                Heard::CheckpointLost { trial: of, problem, .. } => {
                    (*of == trial).then(|| format!("lost: {problem}"))
                }
                Heard::Uploaded(bytes) => Some(format!("upload {}", String::from_utf8_lossy(bytes))),
                Heard::Completed { trial: of, outcome } => (*of == trial).then(|| match outcome {
                    Outcome::Trained { model: None } => "trained".to_owned(),
                    Outcome::Trained { model: Some(_) } => "trained, model kept".to_owned(),
                    Outcome::Evaluated(_) => "evaluated".to_owned(),
                    Outcome::Failed(failure) => format!("failed: {}", failure.reason),
                    Outcome::Released => "released".to_owned(),
                }),
            })
            .collect()
    }

    /// How many trials its trainer had been told of when it reported this one.
    fn trials_of_trainer(&self, trial: u64) -> Option<f64> {
        self.coordinator.state().heard.iter().find_map(|heard| match heard {
            Heard::Reported { trial: of, report } if *of == trial => Some(report.images_per_second),
            _ => None,
        })
    }

    fn registrations(&self) -> Vec<fittingroom_common::proto::RegisterRequest> {
        let heard = self.coordinator.state().heard.clone();
        heard
            .into_iter()
            .filter_map(|heard| match heard {
                Heard::Registered(request) => Some(request),
                _ => None,
            })
            .collect()
    }

    /// Waits until a heartbeat tells that the trainer works on the trial.
    async fn progress(&self, trial: u64) {
        let working = |held: &fittingroom_common::proto::Held| {
            held.attempt.is_some_and(|attempt| attempt.trial == trial) && held.epoch > 0
        };
        self.coordinator
            .wait("progress in a heartbeat", |state| {
                state.heartbeats.iter().any(|beat| beat.held.iter().any(working)).then_some(())
            })
            .await;
    }
}

fn training() -> Work {
    training_for(EPOCHS)
}

fn training_for(epochs: i64) -> Work {
    training_with(&[("epochs", Value::Integer(epochs)), ("batch_size", Value::Integer(16))])
}

fn training_with(settings: &[(&str, Value)]) -> Work {
    let mut hyperparameters = Hyperparameters::defaults();
    for (name, value) in settings {
        let parameter = Parameter::find(name).expect("known");
        hyperparameters.set(parameter, value).expect("in range");
    }
    Work::Train {
        hyperparameters,
        seeds: Seeds::derive(1, 0, TrialId::new(0)),
        track_test: false,
        checkpoint: CheckpointRule::NEVER,
        resume_from: Vec::new(),
    }
}

fn assignment(trial: u64, work: Work) -> Assignment {
    Assignment {
        id: SearchAttempt {
            search: SearchId::new(1),
            attempt: Attempt { trial: TrialId::new(trial), number: AttemptNumber::FIRST },
        },
        search_name: Name::sanitised("test"),
        dataset: Manifest {
            name: Name::sanitised("tiny"),
            shape: Shape { height: 2, width: 2, classes: 2, train_images: 4, test_images: 2 },
            files: FILES.map(ArtifactHash::of),
        },
        work,
    }
}

const WELL_TRAINED: [&str; 4] = ["epoch 1", "epoch 2", "epoch 3", "trained"];

#[tokio::test]
async fn trials_are_trained_one_after_the_other_by_the_same_trainer() {
    let stage = Stage::new().with_trials(2);
    let agent = stage.start(GOOD).await;
    stage.coordinator.outcome(0).await;
    stage.coordinator.outcome(1).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
    assert_eq!(stage.story(1), WELL_TRAINED);
    assert_eq!(stage.trials_of_trainer(1), Some(2.0));
    let registration = &stage.registrations()[0];
    assert_eq!((registration.name.as_str(), registration.slots), ("test-worker", 1));
    assert_eq!(stage.coordinator.state().downloads, FILES.map(ArtifactHash::of));
}

#[tokio::test]
async fn a_model_that_is_asked_for_is_uploaded_before_the_trial_is_completed() {
    let stage = Stage::new().with_trials(1);
    stage.coordinator.state().keep_models = true;
    let agent = stage.start(GOOD).await;
    let outcome = stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    let model = Some(ArtifactHash::of(MODEL.as_bytes()));
    assert_eq!(outcome, Outcome::Trained { model });
    assert_eq!(stage.story(0), ["epoch 1", "epoch 2", "epoch 3", "upload weights", "trained, model kept"]);
}

#[tokio::test]
async fn a_trial_may_end_early_once_its_patience_can_be_used_up() {
    for (name, train, told) in [
        (
            "patience used up",
            "epoch 1; epoch 2; model",
            &["epoch 1", "epoch 2", "upload weights", "trained, model kept"][..],
        ),
        ("too early", "epoch 1; model", &["epoch 1", "failed: trainer_crashed"]),
    ] {
        let stage = Stage::new();
        let settings = [("epochs", Value::Integer(EPOCHS)), ("early_stopping_patience", Value::Integer(1))];
        {
            let mut state = stage.coordinator.state();
            state.keep_models = true;
            state.work.push_back(assignment(0, training_with(&settings)));
        }
        let agent = stage.start(train).await;
        stage.coordinator.outcome(0).await;
        stage.end(agent).await;
        assert_eq!(stage.story(0), told, "{name}");
    }
}

#[tokio::test]
async fn a_model_is_evaluated_on_the_test_set() {
    let stage = Stage::new();
    let model = ArtifactHash::of(MODEL.as_bytes());
    {
        let mut state = stage.coordinator.state();
        state.artifacts.insert(model, MODEL.into());
        state.work.push_back(assignment(4, Work::Evaluate { model }));
    }
    let agent = stage.start(GOOD).await;
    let Outcome::Evaluated(score) = stage.coordinator.outcome(4).await else {
        panic!("not evaluated: {:?}", stage.story(4));
    };
    stage.end(agent).await;
    // The trainer of these tests tells the model's size as its accuracy.
    assert_eq!((score.loss.get(), score.accuracy.get()), (0.3, 0.7));
}

#[tokio::test]
async fn reports_are_repeated_in_order_until_they_are_answered() {
    let stage = Stage::new().with_trials(1);
    stage.coordinator.state().reports = Reports::Fail(4);
    let agent = stage.start(GOOD).await;
    stage.coordinator.outcome(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
}

#[tokio::test]
async fn a_trial_that_is_no_longer_ours_is_dropped_and_the_trainer_kept() {
    for (how, reports, told) in
        [("superseded", Reports::Supersede, vec![]), ("told to drop it", Reports::Drop, vec!["epoch 1"])]
    {
        let stage = Stage::new().with_trials(2);
        stage.coordinator.state().reports = reports;
        let train = "if [ $trials = 1 ]; then epoch 1; else epochs; model; fi";
        let agent = stage.start(train).await;
        stage.coordinator.outcome(1).await;
        stage.end(agent).await;
        assert_eq!(stage.story(0), told, "{how}");
        assert_eq!(stage.story(1), WELL_TRAINED, "{how}");
        assert_eq!(stage.trials_of_trainer(1), Some(2.0), "{how}: another trainer");
    }
}

#[tokio::test]
async fn a_heartbeat_answered_with_drop_ends_the_run() {
    for (how, first_trial, trials_of_trainer) in [
        ("a trainer that stops when told", "epoch 1", 2.0),
        ("a trainer that must be killed", "epoch 1; while :; do sleep 0.1; done", 1.0),
    ] {
        let stage = Stage::new().with_trials(1);
        let train = format!("case $id in 1/0*) {first_trial} ;; *) epochs; model ;; esac");
        let agent = stage.start(&train).await;
        stage.progress(0).await;
        {
            let mut state = stage.coordinator.state();
            state.drop_trials.insert(0);
            state.work.push_back(assignment(1, training()));
        }
        stage.coordinator.outcome(1).await;
        stage.end(agent).await;
        assert_eq!(stage.story(0), ["epoch 1"], "{how}");
        assert_eq!(stage.story(1), WELL_TRAINED, "{how}");
        assert_eq!(stage.trials_of_trainer(1), Some(trials_of_trainer), "{how}");
    }
}

#[tokio::test]
async fn what_goes_wrong_in_a_trainer_fails_its_trial_alone() {
    let failed =
        r#"say "{\"event\":\"failed\",\"id\":\"$id\",\"reason\":\"diverged\",\"detail\":\"loss is NaN\"}""#;
    for (how, first_trial, reason, said) in [
        ("killed", "echo last words >&2; kill -9 $$", FailureReason::TrainerCrashed, "SIGKILL"),
        (
            "exits",
            "echo last words >&2; exit 4",
            FailureReason::TrainerCrashed,
            "status 4; its last lines were:\nlast words",
        ),
        (
            "no memory",
            "echo 'memory allocation of 9 bytes failed' >&2; kill -6 $$",
            FailureReason::OutOfMemory,
            "signal 6",
        ),
        ("diverges", failed, FailureReason::Diverged, "loss is NaN"),
        ("talks nonsense", "say hello", FailureReason::TrainerCrashed, "\"hello\""),
        ("ends too early", "model", FailureReason::TrainerCrashed, "does not belong here"),
        ("never ends", "epochs; epoch 4", FailureReason::TrainerCrashed, "does not belong here"),
        ("falls silent", ":", FailureReason::Timeout, "no sign of progress"),
    ] {
        let mut stage = Stage::new().with_trials(2);
        stage.timing.trainer_silence = Duration::from_secs(1);
        let train = format!("case $id in 1/0*) epoch 1; {first_trial} ;; *) epochs; model ;; esac");
        let agent = stage.start(&train).await;
        let outcome = stage.coordinator.outcome(0).await;
        stage.coordinator.outcome(1).await;
        stage.end(agent).await;
        let Outcome::Failed(failure) = outcome else {
            panic!("{how}: {outcome:?}");
        };
        assert_eq!(failure.reason, reason, "{how}");
        assert!(failure.detail.contains(said), "{how}: {}", failure.detail);
        assert_eq!(stage.story(0)[0], "epoch 1", "{how}: the epoch before was lost");
        assert_eq!(stage.story(1), WELL_TRAINED, "{how}: the next trial");
    }
}

#[tokio::test]
async fn a_model_that_the_disk_does_not_take_is_no_fault_of_its_trial() {
    let stage = Stage::new().with_trials(2);
    let full =
        r#"say "{\"event\":\"unwritten\",\"id\":\"$id\",\"problem\":\"the disk is full\",\"bytes\":10}""#;
    let train = format!("case $id in 1/0*) epochs; {full} ;; *) epochs; model ;; esac");
    let agent = stage.start(&train).await;
    stage.coordinator.outcome(1).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), ["epoch 1", "epoch 2", "epoch 3", "released"]);
    assert_eq!(stage.story(1), WELL_TRAINED);
}

#[tokio::test]
async fn an_agent_that_ends_gives_its_trial_back() {
    let stage = Stage::new().with_trials(1);
    let agent = stage.start("epoch 1").await;
    stage.progress(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), ["epoch 1", "released"]);
    let state = stage.coordinator.state();
    let last = state.heartbeats.last().expect("heartbeats");
    assert!(last.draining && last.held.is_empty(), "{last:?}");
}

#[tokio::test]
async fn an_agent_that_ends_lets_its_trial_finish_if_there_is_time_for_it() {
    let mut stage = Stage::new().with_trials(2);
    stage.timing.drain = Duration::from_secs(10);
    let agent = stage.start("epoch 1; sleep 0.4; epoch 2; epoch 3; model").await;
    stage.progress(0).await;
    stage.end(agent).await;
    assert_eq!(stage.story(0), WELL_TRAINED);
    assert_eq!(stage.story(1), [""; 0]);
}

#[tokio::test]
async fn a_slot_without_a_trainer_takes_no_work() {
    let mut stage = Stage::new().with_trials(1);
    // The trainer of these tests starts on the processor only.
    stage.device = Device::Cuda(0);
    let agent = stage.start(GOOD).await;
    stage.coordinator.wait("a heartbeat", |state| (state.heartbeats.len() > 3).then_some(())).await;
    stage.end(agent).await;
    assert_eq!(stage.coordinator.state().work.len(), 1);
}
