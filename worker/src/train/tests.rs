//! What the engine promises as a whole.

use super::hyper::{Normalization, Visiting};
use super::save::Record;
use super::testing::{Settings, dataset, group, hyperparameters};
use super::weights::{Start, Weights};
use super::*;
use crate::train::ops::testing::flat;
use fittingroom_common::trial::{Score, Seeds};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

mod augmentation;
mod early_stopping;

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
    let outcome = train(group, dataset, &Device::Cpu, testing, &mut |progress| {
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
        ("batch norm, dropout", &[("normalization", "batch"), ("dropout", "0.2")]),
        ("layer norm, smoothing", &[("normalization", "layer"), ("label_smoothing", "0.1")]),
        ("lenet", &[("model", "lenet"), ("epochs", "3")]),
        ("lenet, batch norm", &[("model", "lenet"), ("normalization", "batch"), ("epochs", "3")]),
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
    for (name, other) in [
        ("split", Seeds { split: 9, ..seeds }),
        ("order", Seeds { order: 9, ..seeds }),
        ("trial", Seeds { trial: 9, ..seeds }),
    ] {
        assert_ne!(once, run(&[(&settings, other)], &dataset), "{name}");
    }
}

#[test]
fn each_lane_gets_the_bits_that_it_would_get_alone() {
    let dataset = dataset(70, 10);
    for (model, optimizer, normalization) in [
        ("fcn", "sgd", "none"),
        ("fcn", "adam", "batch"),
        ("fcn", "rmsprop", "layer"),
        ("lenet", "adamw", "batch"),
        ("lenet", "sgd", "layer"),
    ] {
        let common =
            [("model", model), ("optimizer", optimizer), ("normalization", normalization), ("epochs", "1")];
        let own = [
            vec![("learning_rate", "0.01"), ("momentum", "0.9"), ("dropout", "0.5")],
            vec![("learning_rate", "0.003"), ("label_smoothing", "0.2"), ("initialization", "xavier_normal")],
            vec![
                ("weight_decay", "0.1"),
                ("beta1", "0.8"),
                ("epsilon", "1e-5"),
                ("nesterov", "true"),
                ("momentum", "0.5"),
            ],
        ];
        let settings: Vec<_> = own.iter().map(|own| [merged(&common), own.clone()].concat()).collect();
        let seeds = |lane: u64| Seeds { trial: lane, ..Seeds::from_one(1) };
        let trials: Vec<(Settings<'_>, Seeds)> =
            settings.iter().zip(0..).map(|(settings, lane)| (&settings[..], seeds(lane))).collect();
        let together = run(&trials, &dataset);
        for (lane, trial) in trials.iter().enumerate() {
            let alone = run(&[*trial], &dataset);
            assert_eq!(
                alone.reports[0], together.reports[lane],
                "{model} {optimizer}: reports of lane {lane}"
            );
            assert_eq!(
                alone.tensors[0], together.tensors[lane],
                "{model} {optimizer}: weights of lane {lane}"
            );
        }
    }
}

#[test]
fn a_run_from_the_weights_that_another_drew_equals_it() {
    let dataset = dataset(70, 10);
    let folder = tempfile::tempdir().expect("temporary folder");
    for (model, normalization) in [("fcn", "none"), ("fcn", "batch"), ("lenet", "batch"), ("lenet", "layer")]
    {
        let settings = merged(&[("model", model), ("normalization", normalization), ("epochs", "1")]);
        let seeds = |trial: u64| Seeds { trial, ..Seeds::from_one(1) };
        let drawn = group(&[(&settings, seeds(1)), (&settings, seeds(2))]);
        // The lanes take up each other's weights, so that a lane's own would be seen.
        let mut given = group(&[(&settings, seeds(2)), (&settings, seeds(1))]);
        let images = ImageShape::of(&dataset.shape);
        let start = Model::new(&drawn.shape, &drawn.lanes, images, &Device::Cpu).expect("fits");
        let record = Record {
            hyperparameters: hyperparameters(&settings),
            seeds: seeds(1),
            images,
            input: Standardization { mean: 0.0, deviation: 1.0 },
        };
        for (index, lane) in given.lanes.iter_mut().enumerate() {
            let path = folder.path().join(index.to_string());
            save::save(&path, &start, index, &record).expect("saved");
            lane.start = Start::From(Weights::read(&path).expect("read"));
        }
        assert_eq!(run_group(&drawn, &dataset), run_group(&given, &dataset), "{model} {normalization}");
    }
}

#[test]
fn running_statistics_are_taken_up_where_they_are_given() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("weights");
    let group = group(&[(&merged(&[("normalization", "batch")]), Seeds::from_one(1))]);
    let images = ImageShape { height: 8, width: 8, classes: 3 };
    let model = || Model::new(&group.shape, &group.lanes, images, &Device::Cpu).expect("fits");
    let statistics = |model: &Model| {
        let mean = model.named.iter().find(|named| named.name == "norm1.running_mean").expect("there");
        flat(&mean.values)
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for named in &model().named {
        let bytes = vec![0; named.shape.iter().product::<usize>() * 4];
        tensors.push((named.name.clone(), named.shape.clone(), bytes));
    }
    for (name, given, expected) in [("given", true, 1.5), ("left out", false, 0.0)] {
        let views = tensors.iter_mut().filter_map(|(name, shape, bytes)| {
            if name.contains("running") {
                *bytes = 1.5f32.to_le_bytes().repeat(shape[0]);
            }
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor");
            (given || !name.contains("running")).then_some((&*name, view))
        });
        safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &path).expect("written");
        let model = model();
        Weights::read(&path).expect("read").put_into(&model, 0).expect("fits");
        assert_eq!(statistics(&model), [expected; 16], "{name}");
        assert_eq!(flat(model.parameters[0].values()), [0.0; 16 * 64], "{name}");
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
        let outcome = train(&group(trials), &dataset, &Device::Cpu, Testing::Never, &mut |progress| {
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
    let outcome = train(&group, &dataset(100, 10), &Device::Cpu, Testing::Never, &mut |_| {
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
    for (normalization, expected) in [("none", 3), ("layer", 3), ("batch", 2)] {
        let settings = merged(&[("normalization", normalization)]);
        let group = group(&[(&settings, Seeds::from_one(1))]);
        assert_eq!(group.shape.normalization == Normalization::Batch, expected == 2);
        let mut seen = 0;
        let outcome = train(&group, &dataset, &Device::Cpu, Testing::Never, &mut |progress| {
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
        train(&group, dataset, &Device::Cpu, Testing::Never, &mut |_| ControlFlow::Continue(()))
            .map(|_| ())
            .expect_err("must fail")
            .to_string()
    };
    let message = run(&[("model", "lenet")], &flat);
    assert!(message.contains("images of 1x64 are too small"), "{message}");
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
