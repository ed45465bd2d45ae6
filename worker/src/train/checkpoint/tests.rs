//! What checkpoints promise: interrupted at any step and resumed, nothing changes but the time.

use std::ops::ControlFlow;

use fittingroom_common::dataset::{Dataset, Manifest};
use fittingroom_common::id::{ArtifactHash, Name};
use fittingroom_common::record::{DatasetRecord, Shuffle};
use fittingroom_common::trial::{Score, Seeds};

use super::*;
use crate::train::data::Placed;
use crate::train::hyper::Group;
use crate::train::testing::{Settings, dataset, group, hyperparameters, placed};
use crate::train::{Divergence, Ended, Outcome, Progress, Stop, Testing, TrainError, resume, train};

/// A lane's epoch: training, validation and test.
type Scores = (Score, Score, Option<Score>);

/// All that a run leaves, without its times.
#[derive(Debug, PartialEq)]
struct Traces {
    epochs: Vec<Vec<Result<Scores, Ended>>>,
    /// The trained model, and which of its lanes hold one.
    model: Vec<(String, Vec<u32>)>,
    lanes: Vec<Result<(), Divergence>>,
}

/// A group of trials, ready to be trained and interrupted.
struct Training {
    group: Group,
    recipes: Vec<Recipe>,
    placed: Placed,
    folder: tempfile::TempDir,
}

/// Steps so large that the validation loss soon rises.
const STOPS_EARLY: Settings<'_> =
    &[("epochs", "6"), ("early_stopping_patience", "1"), ("learning_rate", "3")];

const SEEDS: Seeds = Seeds { split: 1, order: 2, trial: 3 };

impl Training {
    fn new(trials: &[Settings<'_>]) -> Self {
        let quick: Settings<'_> = &[("hidden_sizes", "6,5"), ("batch_size", "16"), ("epochs", "2")];
        let trials: Vec<_> = trials.iter().map(|settings| [quick, settings].concat()).collect();
        let trials: Vec<(Settings<'_>, Seeds)> = trials
            .iter()
            .zip(3..)
            .map(|(settings, trial)| (&settings[..], Seeds { trial, ..SEEDS }))
            .collect();
        let dataset = dataset(60, 10);
        let recipe = |(settings, seeds): &(Settings<'_>, Seeds)| Recipe {
            hyperparameters: hyperparameters(settings),
            seeds: *seeds,
            shuffle: Shuffle::On,
            initial_weights: None,
            dataset: described(&dataset),
        };
        let recipes = trials.iter().map(recipe).collect();
        let folder = tempfile::tempdir().expect("temporary folder");
        Self { group: group(&trials), recipes, placed: placed(&dataset), folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("checkpoint")
    }

    fn read(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::read(&self.path(), &self.recipes)
    }

    /// Trains from the beginning or from the checkpoint, until so many steps are done in this part;
    /// the last of them leaves a checkpoint. `None` if it was not the end.
    fn run(&self, from: Option<&Checkpoint>, steps: usize) -> Option<Traces> {
        let (mut epochs, mut done) = (Vec::new(), 0);
        let mut listen = |progress: Progress<'_>| match progress {
            Progress::Epoch(reports) => {
                let without_times = |it: &Result<_, _>| {
                    it.map(|it: fittingroom_common::trial::Report| (it.train, it.validation, it.test))
                };
                epochs.push(reports.iter().map(without_times).collect());
                ControlFlow::Continue(())
            }
            Progress::Step { state, .. } => {
                done += 1;
                if done < steps {
                    return ControlFlow::Continue(());
                }
                save(&self.path(), state, &self.recipes).expect("saved");
                ControlFlow::Break(Stop)
            }
        };
        let outcome = match from {
            None => train(&self.group, &self.placed, Testing::EveryEpoch, &mut listen),
            Some(checkpoint) => {
                resume(checkpoint, &self.group, &self.placed, Testing::EveryEpoch, &mut listen)
            }
        };
        match outcome.expect("trains") {
            Outcome::Stopped => None,
            Outcome::Finished(trained) => {
                let bits = |tensor: &Tensor| {
                    let values = tensor.flatten_all().and_then(|it| it.to_vec1::<f32>()).expect("f32");
                    values.into_iter().map(f32::to_bits).collect()
                };
                let named = trained.model.named.iter();
                let model = named.map(|named| (named.name.clone(), bits(&named.values))).collect();
                Some(Traces { epochs, model, lanes: trained.lanes })
            }
        }
    }
}

fn described(dataset: &Dataset) -> DatasetRecord {
    let parts = [&dataset.train.pixels, &dataset.train.labels, &dataset.test.pixels, &dataset.test.labels];
    DatasetRecord::from(&Manifest {
        name: Name::sanitised("spots"),
        shape: dataset.shape,
        files: parts.map(|bytes| ArtifactHash::of(bytes)),
    })
}

#[test]
fn a_training_interrupted_at_any_step_and_resumed_has_the_same_bits() {
    let wild: Settings<'_> =
        &[("optimizer", "sgd"), ("learning_rate", "10"), ("weight_decay", "1"), ("epochs", "12")];
    let rows: &[(&str, &[Settings<'_>])] = &[
        ("sgd", &[&[("optimizer", "sgd")]]),
        ("momentum", &[&[("optimizer", "sgd"), ("momentum", "0.9")]]),
        ("nesterov", &[&[("optimizer", "sgd"), ("momentum", "0.9"), ("nesterov", "true")]]),
        ("rmsprop", &[&[("optimizer", "rmsprop")]]),
        ("rmsprop with momentum", &[&[("optimizer", "rmsprop"), ("momentum", "0.9")]]),
        ("adam", &[&[("optimizer", "adam"), ("label_smoothing", "0.1")]]),
        ("adamw", &[&[("optimizer", "adamw"), ("weight_decay", "0.1")]]),
        ("rmsprop, centered", &[&[("optimizer", "rmsprop"), ("centered", "true")]]),
        ("adagrad", &[&[("optimizer", "adagrad"), ("learning_rate_decay", "0.1")]]),
        ("adadelta", &[&[("optimizer", "adadelta")]]),
        ("nadam", &[&[("optimizer", "nadam")]]),
        ("lamb", &[&[("optimizer", "lamb")]]),
        ("lion", &[&[("optimizer", "lion")]]),
        ("one cycle", &[&[("schedule", "one_cycle"), ("clip_norm", "0.1")]]),
        (
            "reduce on plateau",
            &[&[
                ("schedule", "reduce_on_plateau"),
                ("schedule_patience", "0"),
                ("learning_rate", "0.3"),
                ("epochs", "4"),
            ]],
        ),
        ("averaged weights", &[&[("ema_decay", "0.9"), ("normalization", "batch")]]),
        (
            "augmentation",
            &[&[
                ("flip", "true"),
                ("shift", "1"),
                ("random_erasing", "0.5"),
                ("mixup", "0.3"),
                ("cutmix", "1"),
            ]],
        ),
        (
            "group norm and spatial dropout",
            &[&[
                ("model", "lenet"),
                ("normalization", "group"),
                ("spatial_dropout", "0.4"),
                ("batch_size", "27"),
            ]],
        ),
        ("early stopping", &[STOPS_EARLY]),
        ("early stopping of a lane", &[&[("epochs", "6")], STOPS_EARLY]),
        (
            "early stopping of a lane of averaged weights",
            &[&[("epochs", "6"), ("ema_decay", "0.5")], STOPS_EARLY],
        ),
        ("batch norm and dropout", &[&[("normalization", "batch"), ("dropout", "0.4")]]),
        ("lenet", &[&[("model", "lenet"), ("normalization", "layer"), ("batch_size", "27")]]),
        (
            "lanes",
            &[
                &[("normalization", "batch"), ("dropout", "0.4")],
                &[("normalization", "batch"), ("learning_rate", "0.01")],
                &[("normalization", "batch"), ("beta1", "0.5"), ("dropout", "0.1")],
            ],
        ),
        ("divergence", &[wild]),
        ("divergence of a lane", &[&[("optimizer", "sgd"), ("epochs", "12")], wild]),
    ];
    for (name, trials) in rows {
        let training = Training::new(trials);
        let whole = training.run(None, usize::MAX).expect("the end");
        let mut steps = 1;
        while training.run(None, steps).is_none() {
            let checkpoint = training.read().expect("good");
            let resumed = training.run(Some(&checkpoint), usize::MAX);
            let Some(Traces { epochs, model, lanes }) = resumed else { panic!("{name}: not the end") };
            assert_eq!(epochs, whole.epochs, "{name}: metrics after an interruption at step {steps}");
            assert_eq!(lanes, whole.lanes, "{name}: lanes after an interruption at step {steps}");
            assert!(model == whole.model, "{name}: the model after an interruption at step {steps}");
            steps += 1;
        }
        assert!(steps > 4, "{name} was interrupted only at {steps} steps");
    }
}

#[test]
fn what_is_to_stop_early_does() {
    let Traces { epochs, lanes, .. } =
        Training::new(&[&[("epochs", "6")], STOPS_EARLY]).run(None, usize::MAX).expect("the end");
    assert!(matches!(epochs[5][..], [Ok(_), Err(Ended::Early { epoch: 1..=5 })]), "{:?}", epochs[5]);
    assert_eq!(lanes, [Ok(()), Ok(())]);
}

#[test]
fn a_training_that_is_interrupted_again_and_again_has_the_same_bits() {
    let training = Training::new(&[&[("normalization", "batch"), ("dropout", "0.4")]]);
    let whole = training.run(None, usize::MAX).expect("the end");
    let mut parts = 1;
    let mut resumed = training.run(None, 1);
    while resumed.is_none() {
        let checkpoint = training.read().expect("good");
        assert!(parts < 99, "it comes no further than {}/{}", checkpoint.epoch(), checkpoint.step());
        resumed = training.run(Some(&checkpoint), 1);
        parts += 1;
    }
    assert_eq!(parts, 9, "4 steps in each of 2 epochs, and the end");
    assert_eq!(resumed.map(|resumed| resumed.epochs), Some(whole.epochs));
}

#[test]
fn a_checkpoint_of_another_training_is_refused_by_what_differs() {
    let training = Training::new(&[&[]]);
    training.run(None, 2);
    for (said, other) in [
        ("hidden_sizes is 6-5 there and 7 here", Training::new(&[&[("hidden_sizes", "7")]])),
        (
            "learning_rate is 0.001 there and 0.5 here; epochs is 2 there and 3 here",
            Training::new(&[&[("epochs", "3"), ("learning_rate", "0.5")]]),
        ),
        ("it has 1 lanes there and 2 here", Training::new(&[&[], &[]])),
    ] {
        let error = Checkpoint::read(&training.path(), &other.recipes).expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    }
    let mut recipes = training.recipes.clone();
    recipes[0].dataset.hash = ArtifactHash::of(b"other images");
    recipes[0].seeds.trial = 8;
    let error = Checkpoint::read(&training.path(), &recipes).expect_err("other data").to_string();
    assert!(error.contains("the trial's seed is 3 there and 8 here; the dataset is"), "{error}");
}

/// A checkpoint's file with other metadata in it, hashed as if it had been written so.
fn forged(file: &[u8], change: impl FnOnce(&mut Content)) -> Vec<u8> {
    let mut content = open(file).expect("good");
    change(&mut content);
    let content = serde_json::to_string(&content).expect("serialises");
    let tensors = SafeTensors::deserialize(file).expect("safetensors");
    let entries: Entries = tensors
        .iter()
        .map(|(name, view)| {
            let entry = Entry { dtype: "F32", shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            (name.to_owned(), entry)
        })
        .collect();
    let parts = entries.iter().map(|(name, entry)| (name.as_str(), &entry.shape[..], &entry.bytes[..]));
    let hash = hash(&content, parts);
    let metadata = serde_json::json!({
        "format": FORMAT, "checkpoint_version": "1", "blake3": hash, "content": content,
    });
    to_bytes(&metadata, &entries)
}

#[test]
fn a_damaged_checkpoint_is_refused_and_never_a_panic() {
    let training = Training::new(&[&[]]);
    training.run(None, 2);
    let whole = std::fs::read(training.path()).expect("there");
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().expect("8 bytes")) as usize;
    let refused = |name: &str, bytes: &[u8]| {
        std::fs::write(training.path(), bytes).expect("written");
        training.read().map(|_| ()).expect_err(name).to_string()
    };
    for (name, at, said) in [
        ("a tensor", header + 5, "damaged"),
        ("the last byte", whole.len() - 1, "damaged"),
        ("the header's length", 2, "not a safetensors file"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let message = refused(name, &bytes);
        assert!(message.contains(said), "{name}: {message}");
    }
    for (name, bytes, said) in [
        ("empty", &[][..], "not a safetensors file"),
        ("cut off", &whole[..whole.len() - 1], "not a safetensors file"),
        ("a claim of many bytes", &u64::MAX.to_le_bytes(), "not a safetensors file"),
        ("a model", b"\x02\0\0\0\0\0\0\0{}", "not a checkpoint"),
    ] {
        let message = refused(name, bytes);
        assert!(message.contains(said), "{name}: {message}");
    }
    // No byte of the header can be another, but for the blanks behind it.
    let text = whole[..header].trim_ascii_end().len();
    for at in 0..text {
        let mut bytes = whole.clone();
        bytes[at] = bytes[at].wrapping_add(1);
        refused(&format!("byte {at} of the header"), &bytes);
    }
    let version = br#""checkpoint_version":"1""#;
    let at = whole.windows(version.len()).position(|window| window == version).expect("there");
    let mut newer = whole.clone();
    newer[at + version.len() - 2] = b'2';
    let message = refused("newer", &newer);
    assert!(message.contains("checkpoint_version 2, but this program reads version 1"), "{message}");
}

#[test]
fn a_forged_checkpoint_is_refused_before_it_trains() {
    let training = Training::new(&[&[]]);
    training.run(None, 2);
    let whole = std::fs::read(training.path()).expect("there");
    for (name, said, change) in [
        ("past the end", "epoch 9", &(|it: &mut Content| it.numbers.epoch = 9) as &dyn Fn(&mut Content)),
        ("before the beginning", "epoch 0", &|it| it.numbers.epoch = 0),
        ("reports of no epoch", "1 epochs reported", &|it| {
            it.numbers.history = vec![vec![Err(Ended::Diverged(Divergence { epoch: 1 }))]];
        }),
        ("endless steps", "epoch 1, step 2", &|it| it.numbers.optimizer_steps = u64::MAX),
        ("another lane's reports", "epoch 2, step 2, with 1 epochs", &|it| {
            it.numbers.epoch = 2;
            it.numbers.history = vec![vec![]];
        }),
    ] {
        std::fs::write(training.path(), forged(&whole, change)).expect("written");
        let checkpoint = training.read().expect("it is of this training");
        let outcome = resume(&checkpoint, &training.group, &training.placed, Testing::Never, &mut |_| {
            ControlFlow::Continue(())
        });
        let Err(error @ TrainError::Checkpoint(_)) = outcome else { panic!("{name}: {outcome:?}") };
        assert!(error.to_string().contains(said), "{name}: {error}");
    }
}
