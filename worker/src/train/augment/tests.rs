//! What is drawn, and how it looks. Counts may be off by four and a half standard deviations.

use std::collections::BTreeSet;

use super::*;

const IMAGES: ImageShape = ImageShape { height: 28, width: 28, classes: 10 };
const OFF: Augmentation =
    Augmentation { flip: false, shift: 0, random_erasing: 0.0, mixup: None, cutmix: None };

fn augmenter(settings: Augmentation) -> Augmenter {
    Augmenter::new(settings, 7, IMAGES).expect("fits")
}

fn moment(step: usize) -> Moment {
    Moment { epoch: 1, step }
}

/// What is done to 10,000 images, a hundred in each step.
fn placements(settings: Augmentation) -> Vec<Placement> {
    let augmenter = augmenter(settings);
    (0..100).flat_map(|step| augmenter.draw(moment(step), 100).expect("changes").placements).collect()
}

/// Whether an event of this probability may happen this often in 10,000 images.
fn assert_often(what: &str, found: usize, probability: f64) {
    let images = 10_000.0;
    let error = (found as f64 - images * probability).abs();
    let deviation = (images * probability * (1.0 - probability)).sqrt();
    assert!(error <= 4.5 * deviation, "{what}: {found} of {images}, where {probability} is due");
}

#[test]
fn what_is_off_changes_nothing() {
    assert_eq!(augmenter(OFF).draw(moment(0), 5), None);
    let changes = augmenter(Augmentation { flip: true, ..OFF }).draw(moment(0), 50).expect("changes");
    assert!(changes.mix.is_none());
    assert!(changes.placements.iter().all(|it| (it.down, it.right, it.erased) == (0, 0, Area::default())));
}

#[test]
fn half_of_the_images_are_mirrored() {
    let flipped = placements(Augmentation { flip: true, ..OFF }).iter().filter(|it| it.flipped).count();
    assert_often("mirrored", flipped, 0.5);
}

#[test]
fn every_offset_is_as_likely_as_any_other() {
    let placements = placements(Augmentation { shift: 2, ..OFF });
    let count = |down: isize, right: isize| {
        placements.iter().filter(|it| (it.down, it.right) == (down, right)).count()
    };
    let all: Vec<usize> = (-2..=2)
        .flat_map(|down| (-2..=2).map(move |right| (down, right)))
        .map(|(down, right)| count(down, right))
        .collect();
    assert_eq!(all.iter().sum::<usize>(), placements.len(), "an offset is out of bounds");
    for (offset, count) in all.iter().enumerate() {
        assert_often(&format!("offset {offset}"), *count, 1.0 / 25.0);
    }
}

#[test]
fn erased_areas_are_as_likely_and_as_large_as_torchvisions() {
    let placements = placements(Augmentation { random_erasing: 0.4, ..OFF });
    let erased: Vec<Area> =
        placements.iter().map(|it| it.erased).filter(|area| *area != Area::default()).collect();
    assert_often("erased", erased.len(), 0.4);
    let (mut tops, mut lefts) = (BTreeSet::new(), BTreeSet::new());
    for area in &erased {
        // Rounding a side to whole pixels moves it by half a pixel at most.
        let (height, width) = (area.height as f64, area.width as f64);
        let bounds = |sign: f64| (height + sign / 2.0) * (width + sign / 2.0) / 784.0;
        assert!(bounds(1.0) >= 0.02 && bounds(-1.0) <= 0.33, "{area:?}");
        assert!((height + 0.5) / (width - 0.5) >= 0.3 && (height - 0.5) / (width + 0.5) <= 3.3, "{area:?}");
        assert!(area.top + area.height <= 28 && area.left + area.width <= 28, "{area:?}");
        tops.insert(area.top);
        lefts.insert(area.left);
    }
    assert!(tops.len() > 24 && lefts.len() > 24, "areas do not get everywhere: {tops:?} {lefts:?}");
    let shares = erased.iter().map(|area| (area.height * area.width) as f64 / 784.0);
    let mean = shares.sum::<f64>() / erased.len() as f64;
    assert!((mean - MEAN_ERASED).abs() < 0.007, "{mean} of an image is erased on average, not {MEAN_ERASED}");
}

/// Over a million draws by the formulas of torchvision's `RandomErasing.get_params` in NumPy, for 28x28.
const MEAN_ERASED: f64 = 0.1741;

#[test]
fn each_batch_has_one_share_and_one_permutation() {
    let settings = Augmentation { mixup: Some(1.0), ..OFF };
    let augmenter = augmenter(settings);
    let shares: Vec<f64> = (0..2000)
        .map(|step| {
            let mix = augmenter.draw(moment(step), 16).and_then(|changes| changes.mix).expect("a mixture");
            assert_eq!(mix.mixture, Mixture::Blend);
            let mut partners = mix.partners.clone();
            partners.sort_unstable();
            assert_eq!(partners, (0..16).collect::<Vec<u32>>());
            mix.own_share
        })
        .collect();
    // An alpha of 1 makes all shares alike: uniform, with a mean of 1/2.
    for tenth in 0..10 {
        let bounds = f64::from(tenth) / 10.0..f64::from(tenth + 1) / 10.0;
        let count = shares.iter().filter(|share| bounds.contains(share)).count();
        assert!((140..=260).contains(&count), "{count} of 2000 shares are in {bounds:?}");
    }
}

#[test]
fn cutmix_takes_the_share_of_the_area_that_it_pastes() {
    let augmenter = augmenter(Augmentation { cutmix: Some(1.0), ..OFF });
    let (mut at_the_edge, mut inside) = (0, 0);
    for step in 0..500 {
        let mix = augmenter.draw(moment(step), 4).and_then(|changes| changes.mix).expect("a mixture");
        let Mixture::Paste(area) = mix.mixture else { panic!("{mix:?}") };
        let share = (area.height * area.width) as f64 / 784.0;
        assert!((1.0 - share - mix.own_share).abs() < 1e-12, "{mix:?}");
        let (bottom, right) = (area.top + area.height, area.left + area.width);
        assert!(bottom <= 28 && right <= 28, "{area:?}");
        if area.top > 0 && area.left > 0 && bottom < 28 && right < 28 {
            assert_eq!(area.height, area.width, "an area has the image's proportions");
            inside += 1;
        } else {
            at_the_edge += 1;
        }
    }
    assert!(at_the_edge > 50 && inside > 50, "{at_the_edge} at the edge, {inside} inside");
}

#[test]
fn mixup_and_cutmix_take_turns_by_chance() {
    let augmenter = augmenter(Augmentation { mixup: Some(0.2), cutmix: Some(1.0), ..OFF });
    let blends = (0..10_000)
        .filter(|&step| {
            let mix = augmenter.draw(moment(step), 1).and_then(|changes| changes.mix).expect("a mixture");
            mix.mixture == Mixture::Blend
        })
        .count();
    assert_often("blends", blends, 0.5);
}

#[test]
fn draws_depend_on_seed_epoch_step_and_kind_alone() {
    let settings = Augmentation { shift: 3, ..OFF };
    let draw = |settings, seed, epoch, step| {
        let augmenter = Augmenter::new(settings, seed, IMAGES).expect("fits");
        augmenter.draw(Moment { epoch, step }, 20).expect("changes").placements
    };
    let once = draw(settings, 1, 2, 3);
    assert_eq!(once, draw(settings, 1, 2, 3));
    for (name, other) in [
        ("seed", draw(settings, 2, 2, 3)),
        ("epoch", draw(settings, 1, 3, 3)),
        ("step", draw(settings, 1, 2, 4)),
    ] {
        assert_ne!(once, other, "{name}");
    }
    let more = Augmentation { flip: true, random_erasing: 0.5, mixup: Some(1.0), ..settings };
    let moves =
        |placements: &[Placement]| placements.iter().map(|it| (it.down, it.right)).collect::<Vec<_>>();
    assert_eq!(moves(&once), moves(&draw(more, 1, 2, 3)), "other changes disturb the shifts");
}

#[test]
fn images_cannot_be_moved_out_of_sight() {
    let shifted = |shift, height, width| {
        Augmenter::new(Augmentation { shift, ..OFF }, 1, ImageShape { height, width, classes: 2 }).map(|_| ())
    };
    assert_eq!(shifted(5, 6, 9), Ok(()));
    let error = shifted(6, 6, 9).expect_err("too far");
    assert_eq!(error.to_string(), "shift = 6 can move images of 6x9 out of sight: it must be below 6");
}

#[test]
fn an_image_is_mirrored_then_moved_then_erased() {
    #[rustfmt::skip]
    let image = [
        1, 2, 3, 4,
        5, 6, 7, 8,
        9, 10, 11, 12,
    ];
    let at = Placement::default();
    #[rustfmt::skip]
    let rows: [(&str, Placement, [u8; 12]); 7] = [
        ("as it is", at, image),
        ("mirrored", Placement { flipped: true, ..at }, [
            4, 3, 2, 1,
            8, 7, 6, 5,
            12, 11, 10, 9,
        ]),
        ("down and right", Placement { down: 1, right: 2, ..at }, [
            0, 0, 0, 0,
            0, 0, 1, 2,
            0, 0, 5, 6,
        ]),
        ("up and left", Placement { down: -2, right: -1, ..at }, [
            10, 11, 12, 0,
            0, 0, 0, 0,
            0, 0, 0, 0,
        ]),
        ("mirrored, then right", Placement { flipped: true, right: 1, ..at }, [
            0, 4, 3, 2,
            0, 8, 7, 6,
            0, 12, 11, 10,
        ]),
        ("mirrored, then left", Placement { flipped: true, right: -3, ..at }, [
            1, 0, 0, 0,
            5, 0, 0, 0,
            9, 0, 0, 0,
        ]),
        ("moved, then erased", Placement { down: 1, erased: Area { top: 1, left: 1, height: 2, width: 2 }, ..at }, [
            0, 0, 0, 0,
            1, 0, 0, 4,
            5, 0, 0, 8,
        ]),
    ];
    for (name, placement, expected) in rows {
        let mut out = [0; 12];
        host::place(&image, &placement, Frame { height: 3, width: 4 }, &mut out);
        assert_eq!(out, expected, "{name}");
    }
}

#[test]
fn images_are_blended_and_pasted_by_their_partners() {
    let images: Vec<f32> = vec![1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0];
    let area = Area { top: 0, left: 1, height: 2, width: 1 };
    for (name, mixture, own_share, expected) in [
        ("blended", Mixture::Blend, 0.75, [3.25, 6.5, 9.75, 13.0, 7.75, 15.5, 23.25, 31.0]),
        ("pasted", Mixture::Paste(area), 0.5, [1.0, 20.0, 3.0, 40.0, 10.0, 2.0, 30.0, 4.0]),
    ] {
        let mix = Mix { partners: vec![1, 0], own_share, mixture };
        assert_eq!(host::mix(images.clone(), &mix, Frame { height: 2, width: 2 }), expected, "{name}");
    }
}
