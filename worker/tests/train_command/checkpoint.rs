//! `train --checkpoint` as a process that is killed, told to end, and started again.
#![cfg(unix)]

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{dataset, lines, worker};

/// A training that takes a while: many steps of everything that has a state.
struct Training {
    folder: tempfile::TempDir,
}

impl Training {
    fn new() -> Self {
        Self { folder: dataset() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, model: &str, more: &[&str]) -> Command {
        let mut command = worker();
        command.args(["train", "--device", "cpu", "--json", "--track-test", "--seed", "4", "--epochs", "60"]);
        for setting in ["hidden_sizes=32", "batch_size=5", "normalization=batch", "dropout=0.3"] {
            command.args(["--set", setting]);
        }
        command.arg("--data").arg(self.folder.path()).arg("--save").arg(self.file(model)).args(more);
        command
    }

    fn with_checkpoint(&self, more: &[&str]) -> Command {
        let mut command = self.command("resumed", more);
        command.arg("--checkpoint").arg(self.file("checkpoint"));
        command
    }

    fn start(&self, more: &[&str]) -> Child {
        let mut command = self.with_checkpoint(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    }

    /// Compares what an uninterrupted run leaves with what the last part of an interrupted one left.
    fn assert_same(&self, resumed: &Output) {
        let whole = self.command("whole", &[]).output().expect("it runs");
        assert_eq!(lines(resumed), lines(&whole), "the epochs");
        let model = |name: &str| std::fs::read(self.file(name)).expect("saved");
        assert!(model("resumed") == model("whole"), "the models differ");
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_training_killed_at_random_moments_and_started_again_ends_with_the_same_bits() {
    let seed = RandomState::new().hash_one("moments");
    eprintln!("seed of the moments: {seed}");
    let mut moments = ChaCha8Rng::seed_from_u64(seed);
    let training = Training::new();
    let every = ["--checkpoint-every", "1"];
    // What one leaves that is killed while it saves.
    std::fs::write(training.file(".resumed.part-left"), "half a model").expect("written");
    let (mut kills, mut taken_up) = (0, 0);
    let end = loop {
        let mut child = training.start(&every);
        let is_last = kills == 8;
        if !is_last {
            std::thread::sleep(Duration::from_millis(moments.random_range(20..150)));
            // One that is done already is not hurt.
            child.kill().expect("a child");
        }
        let output = child.wait_with_output().expect("it ends");
        taken_up += u32::from(text(&output).contains("going on from"));
        if output.status.success() {
            break output;
        }
        assert_eq!(output.status.code(), None, "{}", text(&output));
        kills += 1;
    };
    assert!(kills >= 2 && taken_up >= 1, "{kills} kills, {taken_up} times gone on");
    training.assert_same(&end);
    let left = std::fs::read_dir(training.folder.path()).expect("a folder").flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().contains("part")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_training_told_to_end_saves_and_the_same_command_goes_on() {
    for signal in ["-TERM", "-INT"] {
        let training = Training::new();
        let child = training.start(&["--checkpoint-every", "1"]);
        // The first checkpoint says that it trains.
        let is_there = || training.file("checkpoint").exists();
        for _ in 0..500 {
            if is_there() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{signal}: {}", text(&output));
        assert!(text(&output).contains("from which the same command goes on"), "{signal}: {}", text(&output));
        let end = training.with_checkpoint(&[]).output().expect("it runs");
        assert!(text(&end).contains("going on from"), "{signal}: {}", text(&end));
        training.assert_same(&end);
    }
}

#[test]
fn a_checkpoint_that_does_not_belong_here_is_refused() {
    let training = Training::new();
    let done = training.with_checkpoint(&["--checkpoint-every", "100"]).output().expect("it runs");
    assert!(done.status.success(), "{}", text(&done));
    let whole = std::fs::read(training.file("checkpoint")).expect("it stays");
    let model = std::fs::read(training.file("resumed")).expect("saved");
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("bytes") ^= 4;
    for (name, file, more, code, said) in [
        (
            "another learning rate",
            &whole[..],
            &["--set", "learning_rate=0.25"][..],
            1,
            "belongs to another training: learning_rate is 0.001 there and 0.25 here",
        ),
        ("another order", &whole, &["--shuffle", "off"], 1, "shuffle is on there and off here"),
        ("damaged", &damaged, &[], 1, "damaged"),
        ("cut off", &whole[..50], &[], 1, "not a safetensors file"),
        ("a model", &model, &[], 1, "not a checkpoint"),
        (
            "never",
            &whole,
            &["--checkpoint-every", "0"],
            2,
            "a number of steps, as 500, or of seconds, as 30s",
        ),
    ] {
        std::fs::write(training.file("checkpoint"), file).expect("written");
        let output = training.with_checkpoint(more).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output));
        assert!(text(&output).contains(said), "{name}: {}", text(&output));
    }
    let alone = training.command("x", &["--checkpoint-every", "5"]).output().expect("it runs");
    assert_eq!(alone.status.code(), Some(2), "{}", text(&alone));
}
