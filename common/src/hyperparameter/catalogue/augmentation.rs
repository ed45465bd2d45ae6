//! How training images are varied. What is drawn for it is the same for all trials of a replicate.

use super::Definition;
use crate::hyperparameter::{Bound, DefaultValue, Domain};

pub(super) static AUGMENTATION: &[Definition] = &[
    Definition {
        name: "flip",
        domain: Domain::Flag,
        default: DefaultValue::Flag(false),
        used_with: None,
        meaning: "mirrors half of the training images, left and right",
    },
    Definition {
        name: "shift",
        domain: Domain::Integer { min: 0, max: 1_000 },
        default: DefaultValue::Integer(0),
        used_with: None,
        meaning: "moves each training image by up to this many pixels each way, black coming in: torchvision's RandomCrop with that padding",
    },
    Definition {
        name: "random_erasing",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "probability with which a rectangle of a training image becomes black (2 to 33 % of it, by torchvision's RandomErasing)",
    },
    Definition {
        name: "mixup",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(100.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "alpha of mixup: blends the images and targets of each batch with one another; 0: off. With cutmix too, each step takes one of the two",
    },
    Definition {
        name: "cutmix",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(100.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "alpha of CutMix: puts a rectangle of another image of the batch into each, and mixes the targets by area; 0: off",
    },
];
