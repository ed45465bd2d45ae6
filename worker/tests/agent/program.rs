//! The real trainer, and the real program with its signals.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fittingroom_common::dataset::Shape;
use fittingroom_common::hyperparameter::Parameter;
use fittingroom_common::id::ArtifactHash;
use fittingroom_common::trial::FailureReason;
use fittingroom_common::work::{Assignment, Outcome, Work};
use fittingroom_worker::agent::TrainerProgram;

use crate::{Stage, assignment, training, training_for};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fittingroom-worker");

/// A dataset that is easily learnt: the images of one class are dark, those of the other light.
fn dataset() -> [Vec<u8>; 4] {
    let part = |count: u8| {
        let labels: Vec<u8> = (0..count).map(|image| image % 2).collect();
        let pixels: Vec<u8> =
            labels.iter().flat_map(|label| [if *label == 0 { 20 } else { 220 }; 16]).collect();
        let header = |dimensions: &[u8]| {
            let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
            bytes.extend(dimensions.iter().flat_map(|size| [0, 0, 0, *size]));
            bytes
        };
        [[header(&[count, 4, 4]), pixels].concat(), [header(&[count]), labels].concat()]
    };
    let ([train_images, train_labels], [test_images, test_labels]) = (part(200), part(40));
    [train_images, train_labels, test_images, test_labels]
}

/// A stage whose coordinator has that dataset.
fn stage() -> Stage {
    let stage = Stage::new();
    let artifacts = dataset().map(|bytes| (ArtifactHash::of(&bytes), bytes));
    stage.coordinator.state().artifacts.extend(artifacts);
    stage
}

fn of_dataset(trial: u64, work: Work) -> Assignment {
    let files = dataset();
    let mut assignment = assignment(trial, work);
    assignment.dataset.shape = Shape::of_files(files.each_ref().map(Vec::as_slice)).expect("a good dataset");
    assignment.dataset.files = files.map(|bytes| ArtifactHash::of(&bytes));
    assignment
}

#[tokio::test]
async fn the_real_trainer_trains_a_model_that_it_can_evaluate() {
    let stage = stage();
    {
        let mut state = stage.coordinator.state();
        state.keep_models = true;
        state.work.push_back(of_dataset(0, training()));
    }
    let address = stage.coordinator.serve(([127, 0, 0, 1], 0).into()).await;
    let trainer = TrainerProgram { program: PROGRAM.into(), arguments: vec!["trainer".into()] };
    let agent = stage.start_with(address, trainer);
    let Outcome::Trained { model: Some(model) } = stage.coordinator.outcome(0).await else {
        panic!("no model: {:?}", stage.story(0));
    };
    {
        let mut state = stage.coordinator.state();
        let uploaded = state.uploaded().expect("an upload");
        assert_eq!(ArtifactHash::of(&uploaded), model);
        state.artifacts.insert(model, uploaded);
        state.work.push_back(of_dataset(1, Work::Evaluate { model }));
    }
    let outcome = stage.coordinator.outcome(1).await;
    stage.end(agent).await;
    let Outcome::Evaluated(score) = outcome else {
        panic!("not evaluated: {outcome:?}");
    };
    assert_eq!(score.accuracy.get(), 1.0);
}

/// The hyperparameters of a model that is too large for a trainer with little memory.
fn training_with(sizes: &[u32]) -> Work {
    let mut work = training();
    let Work::Train { hyperparameters, .. } = &mut work else {
        panic!("it trains");
    };
    let parameter = Parameter::find("hidden_sizes").expect("known");
    let sizes = parameter.sizes(sizes).expect("in range");
    hyperparameters.set(parameter, &sizes).expect("in range");
    work
}

#[tokio::test]
async fn a_trial_that_runs_out_of_memory_fails_and_the_next_is_trained() {
    let stage = stage();
    {
        let mut state = stage.coordinator.state();
        // 17 GB of weights are refused before they are drawn; 196 MB fit once, but not again for Adam's moments.
        state.work.push_back(of_dataset(0, training_with(&[65_536, 65_536])));
        state.work.push_back(of_dataset(1, training_with(&[7_000, 7_000])));
        state.work.push_back(of_dataset(2, training()));
    }
    let address = stage.coordinator.serve(([127, 0, 0, 1], 0).into()).await;
    let limited = format!("ulimit -v 600000 && exec {PROGRAM} trainer \"$@\"");
    let arguments = vec!["-c".into(), limited.into(), "trainer".into()];
    let agent = stage.start_with(address, TrainerProgram { program: "/bin/sh".into(), arguments });
    let mut outcomes = Vec::new();
    for trial in 0..3 {
        outcomes.push(stage.coordinator.outcome(trial).await);
    }
    stage.end(agent).await;
    for (outcome, said) in outcomes.iter().zip(["MiB of memory are free", "memory allocation of"]) {
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!(failure.reason, FailureReason::OutOfMemory, "{failure}");
        assert!(failure.detail.contains(said), "{failure}");
    }
    assert!(matches!(outcomes[2], Outcome::Trained { .. }), "{outcomes:?}");
}

/// The program, running; killed with the test.
struct Running(Child);

impl Running {
    async fn start(stage: &Stage) -> Self {
        let address = stage.coordinator.serve(([127, 0, 0, 1], 0).into()).await;
        let child = Command::new(PROGRAM)
            .args(["run", "--device", "cpu", "--slots", "1", "--name", "program"])
            .args(["--coordinator", &format!("http://{address}")])
            .arg("--cache")
            .arg(stage.folder.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self(child)
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill is there").success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(15) {
            if let Some(status) = self.0.try_wait().expect("waited for") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the program does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_gives_its_trial_back_on_sigterm_and_ends_well() {
    let stage = stage();
    stage.coordinator.state().work.push_back(of_dataset(0, training_for(100_000)));
    let mut program = Running::start(&stage).await;
    stage.progress(0).await;
    program.signal("-TERM");
    assert_eq!(stage.coordinator.outcome(0).await, Outcome::Released);
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_program_with_another_version_ends_with_exit_code_1() {
    let stage = stage();
    stage.coordinator.state().other_version = true;
    let mut program = Running::start(&stage).await;
    assert_eq!(program.ended().await.code(), Some(1));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_trainer_outlives_its_agent() {
    let stage = stage();
    stage.coordinator.state().work.push_back(of_dataset(0, training_for(100_000)));
    let mut program = Running::start(&stage).await;
    stage.progress(0).await;
    let trainers = children(program.0.id());
    assert_eq!(trainers.len(), 1);
    program.signal("-KILL");
    program.ended().await;
    let begin = Instant::now();
    while trainers.iter().any(|&pid| runs(pid)) {
        assert!(begin.elapsed() < Duration::from_secs(10), "a trainer goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The processes that a process started.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| state_and_parent(pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// Whether a process is there, and more than an entry that nobody has fetched yet.
#[cfg(target_os = "linux")]
fn runs(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != "Z")
}

#[cfg(target_os = "linux")]
fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
