//! What the engine promises as a whole.

use super::hyper::{Normalization, Visiting};
use super::save::Record;
use super::testing::{Settings, dataset, dataset_of, group, hyperparameters, placed};
use super::weights::{Start, Weights};
use super::*;
use crate::train::ops::testing::flat;
use fittingroom_common::dataset::Dataset;
use fittingroom_common::trial::{Score, Seeds};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

mod augmentation;
mod early_stopping;
mod lanes;
mod weights;

const QUICK: Settings<'_> = &[("hidden_sizes", "16"), ("batch_size", "16"), ("epochs", "2")];

/// Everything that a run leaves: for each lane the reports without their times, and all tensors.
#[derive(Debug, PartialEq)]
struct Traces {
    reports: Vec<Vec<(Score, Score, Option<Score>)>>,
    tensors: Vec<Vec<f64>>,
}

fn run(trials: &[(Settings<'_>, Seeds)], dataset: &Dataset) -> Traces {
    run_group(&group(trials), dataset)
}

fn run_group(group: &Group, dataset: &Dataset) -> Traces {
    run_tested(group, dataset, Testing::EveryEpoch)
}

fn run_tested(group: &Group, dataset: &Dataset, testing: Testing) -> Traces {
    let mut reports = vec![Vec::new(); group.lanes.len()];
    let outcome = train(group, &placed(dataset), testing, &mut |progress| {
        if let Progress::Epoch(lanes) = progress {
            for (reports, report) in reports.iter_mut().zip(lanes) {
                match report {
                    Ok(report) => reports.push((report.train, report.validation, report.test)),
                    Err(Ended::Early { .. }) => {}
                    Err(Ended::Diverged(divergence)) => panic!("{divergence}"),
                }
            }
        }
        ControlFlow::Continue(())
    });
    let Ok(Outcome::Finished(trained)) = outcome else { panic!("{outcome:?}") };
    let lane = |lane| {
        let tensors = trained.model.named.iter();
        tensors.flat_map(|named| flat(&named.values.get(lane).expect("there"))).collect()
    };
    Traces { reports, tensors: (0..group.lanes.len()).map(lane).collect() }
}

fn merged<'a>(settings: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [QUICK, settings].concat()
}

#[test]
fn every_model_optimizer_and_normalization_learns() {
    let dataset = dataset(300, 60);
    for (name, settings) in [
        ("defaults", &[][..]),
        ("sgd", &[("optimizer", "sgd"), ("learning_rate", "0.05")]),
        (
            "nesterov",
            &[("optimizer", "sgd"), ("learning_rate", "0.02"), ("momentum", "0.9"), ("nesterov", "true")],
        ),
        ("rmsprop", &[("optimizer", "rmsprop")]),
        ("adamw", &[("optimizer", "adamw"), ("weight_decay", "0.01")]),
        ("rmsprop, centered", &[("optimizer", "rmsprop"), ("centered", "true"), ("learning_rate", "0.003")]),
        ("adagrad", &[("optimizer", "adagrad"), ("learning_rate", "0.05")]),
        ("adadelta", &[("optimizer", "adadelta"), ("learning_rate", "1"), ("epsilon", "1e-4")]),
        ("nadam", &[("optimizer", "nadam")]),
        ("lamb", &[("optimizer", "lamb"), ("learning_rate", "0.03")]),
        ("lion", &[("optimizer", "lion"), ("learning_rate", "0.003"), ("beta2", "0.99")]),
        ("cosine, clipped by norm", &[("schedule", "cosine"), ("warmup_epochs", "0.5"), ("clip_norm", "1")]),
        ("one cycle, clipped by value", &[("schedule", "one_cycle"), ("clip_value", "0.1")]),
        ("averaged, batch norm", &[("ema_decay", "0.9"), ("normalization", "batch")]),
        ("l1", &[("l1", "0.001")]),
        ("batch norm, dropout", &[("normalization", "batch"), ("dropout", "0.2")]),
        ("layer norm, smoothing", &[("normalization", "layer"), ("label_smoothing", "0.1")]),
        ("lenet", &[("model", "lenet"), ("epochs", "3")]),
        ("lenet, batch norm", &[("model", "lenet"), ("normalization", "batch"), ("epochs", "3")]),
        ("group norm, orthogonal", &[("normalization", "group"), ("initialization", "orthogonal")]),
        (
            "lenet, instance norm, spatial dropout",
            &[("model", "lenet"), ("normalization", "instance"), ("spatial_dropout", "0.1"), ("epochs", "3")],
        ),
        ("PyTorch's initialization", &[("initialization", "pytorch_default")]),
        ("inputs from 0 to 1", &[("input_standardization", "unit")]),
        ("inputs by image", &[("input_standardization", "per_image")]),
        ("dnn", &[("model", "dnn"), ("width", "32")]),
        (
            "dnn with shortcuts",
            &[("model", "dnn"), ("width", "32"), ("residual", "true"), ("dropout", "0.1")],
        ),
        ("vgg", &[("model", "vgg"), ("learning_rate", "0.001"), ("epochs", "3")]),
        ("resnet", &[("model", "resnet"), ("channels", "8,16"), ("normalization", "batch"), ("epochs", "4")]),
        (
            "wide_resnet",
            &[
                ("model", "wide_resnet"),
                ("widen_factor", "1"),
                ("blocks", "1"),
                ("normalization", "layer"),
                ("dropout", "0.1"),
                ("epochs", "4"),
            ],
        ),
        ("mixup, erasing", &[("mixup", "0.2"), ("random_erasing", "0.2"), ("epochs", "20")]),
    ] {
        let settings = [merged(&[("epochs", "8"), ("learning_rate", "0.01")]), settings.to_vec()].concat();
        let traces = run(&[(&settings, Seeds::from_one(1))], &dataset);
        let (_, validation, test) = traces.reports[0].last().expect("an epoch");
        let test = test.expect("tested");
        assert!(
            validation.accuracy.get() > 0.9 && test.accuracy.get() > 0.9,
            "{name}: {validation:?} {test:?}"
        );
    }
}

#[test]
fn the_same_seeds_give_the_same_bits_and_others_do_not() {
    let dataset = dataset(100, 10);
    let settings = merged(&[("dropout", "0.3"), ("normalization", "batch")]);
    let seeds = Seeds::from_one(1);
    let once = run(&[(&settings, seeds)], &dataset);
    assert_eq!(once, run(&[(&settings, seeds)], &dataset));
    let channels = [&settings[..], &[("model", "lenet"), ("spatial_dropout", "0.3")]].concat();
    let lenet = run(&[(&channels, seeds)], &dataset);
    assert_eq!(lenet, run(&[(&channels, seeds)], &dataset));
    for (name, other) in [
        ("split", Seeds { split: 9, ..seeds }),
        ("order", Seeds { order: 9, ..seeds }),
        ("trial", Seeds { trial: 9, ..seeds }),
    ] {
        assert_ne!(once, run(&[(&settings, other)], &dataset), "{name}");
    }
}

#[test]
fn averages_are_what_is_evaluated_and_kept() {
    let dataset = dataset(70, 10);
    let seeds = Seeds::from_one(1);
    let plain = merged(&[("normalization", "batch"), ("learning_rate", "0.01")]);
    let averaged = [&plain[..], &[("ema_decay", "0.99")]].concat();
    let (plain, averaged) = (run(&[(&plain, seeds)], &dataset), run(&[(&averaged, seeds)], &dataset));
    for ((train, validation, test), (averaged_train, averaged_validation, averaged_test)) in
        plain.reports[0].iter().zip(&averaged.reports[0])
    {
        assert_eq!(train, averaged_train, "training goes on with the weights themselves");
        assert!(validation.loss != averaged_validation.loss, "validation");
        assert!(test.map(|score| score.loss) != averaged_test.map(|score| score.loss), "test");
    }
    assert_ne!(plain.tensors, averaged.tensors);
}

#[test]
fn weights_that_all_begin_at_zero_learn_nothing_but_how_frequent_classes_are() {
    let settings = merged(&[("initialization", "zeros")]);
    let traces = run(&[(&settings, Seeds::from_one(1))], &dataset(300, 60));
    let (train, validation, _) = traces.reports[0].last().expect("an epoch");
    // The classes are equally frequent: 1/3 of the images, and a loss of ln 3.
    assert!(validation.accuracy.get() < 0.4, "{validation:?}");
    assert!((train.loss.get() - 3f64.ln()).abs() < 0.02, "{train:?}");
    assert!(traces.tensors[0][..64 * 16].iter().all(|weight| *weight == 0.0));
}

#[test]
fn the_deepest_models_of_the_catalogue_do_not_exhaust_the_stack() {
    // A test's thread has a quarter of the main thread's stack.
    let dataset = dataset(20, 3);
    for settings in [
        &[("model", "dnn"), ("depth", "256"), ("width", "4"), ("residual", "true")][..],
        &[("model", "resnet"), ("channels", "2,2,2,2,2,2,2,2"), ("blocks", "32")],
    ] {
        let settings =
            [settings, &[("normalization", "layer"), ("dropout", "0.1"), ("epochs", "1")]].concat();
        assert_eq!(run(&[(&settings, Seeds::from_one(1))], &dataset).reports[0].len(), 1, "{settings:?}");
    }
}

#[test]
fn divergence_ends_a_lane_and_not_the_others() {
    let dataset = dataset(60, 10);
    // Weight decay alone multiplies every weight by -9 in each step.
    let wild =
        merged(&[("optimizer", "sgd"), ("learning_rate", "10"), ("weight_decay", "1"), ("epochs", "19")]);
    let tame = merged(&[("optimizer", "sgd"), ("learning_rate", "0.01"), ("epochs", "19")]);
    let seeds = Seeds::from_one(1);
    let ends = |trials: &[(Settings<'_>, Seeds)]| {
        let mut epochs = 0;
        let outcome = train(&group(trials), &placed(&dataset), Testing::Never, &mut |progress| {
            epochs += u32::from(matches!(progress, Progress::Epoch(_)));
            ControlFlow::Continue(())
        });
        let Ok(Outcome::Finished(trained)) = outcome else { panic!("{outcome:?}") };
        (trained.lanes, epochs)
    };
    let (lanes, epochs) = ends(&[(&wild, seeds)]);
    let Err(Divergence { epoch }) = lanes[0] else { panic!("it did not diverge") };
    assert!(epoch == epochs && epochs < 19, "ended after {epochs}");
    let (lanes, epochs) = ends(&[(&tame, seeds), (&wild, seeds)]);
    assert!(lanes[0].is_ok() && lanes[1].is_err(), "{lanes:?}");
    assert_eq!(epochs, 19);
}

#[test]
fn a_caller_can_stop_in_the_middle_of_an_epoch() {
    let mut steps = 0;
    let group = group(&[(QUICK, Seeds::from_one(1))]);
    let outcome = train(&group, &placed(&dataset(100, 10)), Testing::Never, &mut |_| {
        steps += 1;
        if steps == 3 { ControlFlow::Break(Stop) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(outcome, Ok(Outcome::Stopped)));
    assert_eq!(steps, 3);
}

#[test]
fn the_last_batch_is_kept_unless_batch_norm_is_left_with_one_image() {
    // 36 images leave 33 to train on: with batches of 16 that is 16, 16 and 1.
    let dataset = dataset(36, 3);
    for (normalization, expected) in [("none", 3), ("layer", 3), ("group", 3), ("instance", 3), ("batch", 2)]
    {
        let settings = merged(&[("normalization", normalization)]);
        let group = group(&[(&settings, Seeds::from_one(1))]);
        assert_eq!(group.shape.normalization == Normalization::Batch, expected == 2);
        let mut seen = 0;
        let outcome = train(&group, &placed(&dataset), Testing::Never, &mut |progress| {
            if let Progress::Step { steps, .. } = progress {
                seen = steps;
            }
            ControlFlow::Continue(())
        });
        assert!(outcome.is_ok());
        assert_eq!(seen, expected, "{normalization}");
    }
}

#[test]
fn what_cannot_be_trained_is_an_error_that_says_why() {
    let mut flat = dataset(30, 3);
    flat.shape.height = 1;
    flat.shape.width = 64;
    let run = |settings: Settings<'_>, dataset: &Dataset| {
        let group = group(&[(settings, Seeds::from_one(1))]);
        train(&group, &placed(dataset), Testing::Never, &mut |_| ControlFlow::Continue(()))
            .map(|_| ())
            .expect_err("must fail")
            .to_string()
    };
    let message = run(&[("model", "lenet")], &flat);
    assert!(message.contains("images of 1x64 are too small"), "{message}");
    let message = run(&[("normalization", "group"), ("hidden_sizes", "300,12")], &dataset(30, 3));
    assert!(
        message.contains("norm_groups = 8 cannot part the 300 channels of norm1")
            && message.contains("groups = 6"),
        "{message}"
    );
    let message = run(&[("model", "dnn"), ("depth", "256"), ("width", "65536")], &flat);
    assert!(message.starts_with("the model's") && message.contains("MiB of memory are free"), "{message}");
    let message = run(&[("shift", "8")], &dataset(30, 3));
    assert!(message.contains("shift = 8") && message.contains("below 8"), "{message}");
    let message = run(&[("normalization", "batch")], &dataset(2, 3));
    assert!(message.contains("2 training images"), "{message}");
}

#[test]
fn the_engine_knows_nothing_of_networks_and_async_runtimes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/train");
    let mut folders = vec![folder];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).expect("source");
            for word in ["tonic", "tokio", "proto", "grpc"].map(|word| format!("{word}::")) {
                assert!(!text.contains(&word), "{path:?} uses {word}");
            }
        }
    }
    assert!(files > 20, "only {files} files were looked at");
}
