//! Augmented training as a whole.

use super::*;

const ALL: Settings<'_> =
    &[("flip", "true"), ("shift", "2"), ("random_erasing", "0.5"), ("mixup", "0.4"), ("cutmix", "1")];

#[test]
fn lanes_share_augmented_batches_and_get_the_bits_that_they_would_get_alone() {
    let dataset = dataset(70, 10);
    for model in ["fcn", "lenet"] {
        let own: [Settings<'_>; 2] = [&[("label_smoothing", "0.2")], &[("dropout", "0.5")]];
        let settings = own.map(|own| merged(&[&[("model", model)], ALL, own].concat()));
        let seeds = |trial: u64| Seeds { trial, ..Seeds::from_one(1) };
        let trials: [(Settings<'_>, Seeds); 2] = [(&settings[0], seeds(1)), (&settings[1], seeds(2))];
        let together = run(&trials, &dataset);
        for (lane, trial) in trials.iter().enumerate() {
            let alone = run(&[*trial], &dataset);
            assert_eq!(alone.reports[0], together.reports[lane], "{model}: reports of lane {lane}");
            assert_eq!(alone.tensors[0], together.tensors[lane], "{model}: weights of lane {lane}");
        }
    }
}

#[test]
fn every_kind_of_augmentation_has_an_effect_and_is_the_same_again() {
    let dataset = dataset(70, 10);
    let run = |settings: Settings<'_>| run(&[(&merged(settings), Seeds::from_one(1))], &dataset);
    let plain = run(&[]);
    for setting in ALL {
        let once = run(&[*setting]);
        assert_ne!(plain, once, "{setting:?}");
        assert_eq!(once, run(&[*setting]), "{setting:?}");
    }
}

/// What is drawn comes from the seed of the order, also where the order is not drawn.
#[test]
fn augmentation_is_drawn_by_the_seed_of_the_order() {
    let dataset = dataset(70, 10);
    let run = |order: u64, settings: Settings<'_>| {
        let mut group = group(&[(&merged(settings), Seeds { order, ..Seeds::from_one(1) })]);
        group.order = Visiting::Ascending;
        run_group(&group, &dataset)
    };
    assert_ne!(run(1, ALL), run(2, ALL));
    assert_eq!(run(1, &[]), run(2, &[]));
}
