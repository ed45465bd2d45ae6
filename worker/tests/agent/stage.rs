//! A coordinator with work, an agent that is about to do it, and its trainer.

use std::net::SocketAddr;
use std::time::Duration;

use fittingroom_common::access::Access;
use fittingroom_common::checkpoint::CheckpointRule;
use fittingroom_common::dataset::{Manifest, Shape};
use fittingroom_common::hyperparameter::{Hyperparameters, Parameter, Value};
use fittingroom_common::id::{ArtifactHash, Attempt, AttemptNumber, Name, SearchId, TrialId};
use fittingroom_common::process::ServiceManager;
use fittingroom_common::trial::Seeds;
use fittingroom_common::work::{Assignment, Outcome, SearchAttempt, Work};
use fittingroom_worker::agent::{
    self, AgentError, Config, Device, Devices, GpuWatch, Timing, TrainerProgram,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{Coordinator, Heard};

pub(crate) const EPOCHS: i64 = 3;
pub(crate) const FILES: [&[u8]; 4] = [b"training images", b"training labels", b"test images", b"test labels"];
pub(crate) const MODEL: &str = "weights";

/// Trains as it should: three epochs, then a model. The rate of images is the number of trials
/// that this process has been told to train, which shows whether it is the same process.
pub(crate) const GOOD: &str = "epochs; model";

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
pub(crate) struct Stage {
    pub(crate) coordinator: Coordinator,
    pub(crate) folder: TempDir,
    pub(crate) slots: usize,
    pub(crate) device: Device,
    pub(crate) gpus: Option<GpuWatch>,
    pub(crate) timing: Timing,
    pub(crate) shutdown: CancellationToken,
}

impl Stage {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn with_trials(self, trials: u64) -> Self {
        self.coordinator.state().work.extend((0..trials).map(|trial| assignment(trial, training())));
        self
    }

    /// Starts the agent with a trainer that does this when it is told to train.
    pub(crate) async fn start(&self, train: &str) -> JoinHandle<Result<(), AgentError>> {
        let address = self.coordinator.serve(([127, 0, 0, 1], 0).into()).await;
        self.start_at(address, train)
    }

    pub(crate) fn start_at(&self, address: SocketAddr, train: &str) -> JoinHandle<Result<(), AgentError>> {
        let script = self.folder.path().join("trainer.sh");
        std::fs::write(&script, SCRIPT.replace("TRAIN", train)).expect("writable");
        let trainer =
            TrainerProgram { program: "/bin/sh".into(), arguments: vec![script.into(), "trainer".into()] };
        self.start_with(address, trainer)
    }

    pub(crate) fn start_with(
        &self,
        address: SocketAddr,
        trainer: TrainerProgram,
    ) -> JoinHandle<Result<(), AgentError>> {
        let config = Config {
            coordinator: format!("http://{address}").parse().expect("a URL"),
            access: Access::default(),
            name: Name::sanitised("test-worker"),
            devices: Devices {
                slots: vec![self.device; self.slots],
                description: "cpu (test)".to_owned(),
                notes: Vec::new(),
            },
            gpus: self.gpus.clone(),
            cache: self.folder.path().join("cache"),
            trainer,
            timing: self.timing.clone(),
            service_manager: ServiceManager::default(),
        };
        tokio::spawn(agent::run(config, self.shutdown.clone()))
    }

    /// Ends the agent, which must end well.
    pub(crate) async fn end(&self, agent: JoinHandle<Result<(), AgentError>>) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), agent)
            .await
            .expect("the agent ends in time")
            .expect("the agent does not panic");
        assert!(ended.is_ok(), "{ended:?}");
    }

    /// What was heard of a trial, in words.
    pub(crate) fn story(&self, trial: u64) -> Vec<String> {
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
    pub(crate) fn trials_of_trainer(&self, trial: u64) -> Option<f64> {
        self.coordinator.state().heard.iter().find_map(|heard| match heard {
            Heard::Reported { trial: of, report } if *of == trial => Some(report.images_per_second),
            _ => None,
        })
    }

    pub(crate) fn registrations(&self) -> Vec<fittingroom_common::proto::RegisterRequest> {
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
    pub(crate) async fn progress(&self, trial: u64) {
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

pub(crate) fn training() -> Work {
    training_for(EPOCHS)
}

pub(crate) fn training_for(epochs: i64) -> Work {
    training_with(&[("epochs", Value::Integer(epochs)), ("batch_size", Value::Integer(16))])
}

pub(crate) fn training_with(settings: &[(&str, Value)]) -> Work {
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

pub(crate) fn assignment(trial: u64, work: Work) -> Assignment {
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
