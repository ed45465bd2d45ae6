//! What the engine's tests share: small groups of trials and a small dataset.

use std::sync::LazyLock;

use candle_core::Device;
use fittingroom_common::dataset::{Dataset, Part, Shape};
use fittingroom_common::hyperparameter::{Hyperparameters, Parameter};
use fittingroom_common::rng::Stream;
use rand::Rng;

use super::data::Placed;
use super::device::DeviceChoice;
use super::hyper::Group;
use fittingroom_common::trial::Seeds;

/// Settings by name, as text.
pub(crate) type Settings<'a> = &'a [(&'a str, &'a str)];

/// The defaults with these settings in their place.
pub(crate) fn hyperparameters(settings: Settings<'_>) -> Hyperparameters {
    let mut all = Hyperparameters::defaults();
    for (name, value) in settings {
        let parameter = Parameter::find(name).expect("known");
        all.set(parameter, &parameter.parse(value).expect("good")).expect("fits");
    }
    all
}

/// A group of one lane for each of these trials.
pub(crate) fn group(trials: &[(Settings<'_>, Seeds)]) -> Group {
    let trials: Vec<_> = trials.iter().map(|(settings, seeds)| (hyperparameters(settings), *seeds)).collect();
    Group::of(&trials).expect("a group")
}

/// Where the engine computes: on the CPU, unless `FITTINGROOM_TEST_DEVICE` names another device.
pub(crate) fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| match std::env::var("FITTINGROOM_TEST_DEVICE") {
        Ok(name) => {
            let choice: DeviceChoice = name.parse().expect("a device's name");
            choice.open().expect("a device that can be used").device
        }
        Err(_) => Device::Cpu,
    });
    &DEVICE
}

/// A dataset to train on.
pub(crate) fn placed(dataset: &Dataset) -> Placed {
    Placed::new(dataset.clone(), device()).expect("there is room")
}

/// Noisy images of 3 classes, each with a bright spot in another place: quickly learnt.
pub(crate) fn dataset(train_images: usize, test_images: usize) -> Dataset {
    dataset_of(8, 8, train_images, test_images)
}

/// The same with images of this size.
pub(crate) fn dataset_of(height: usize, width: usize, train_images: usize, test_images: usize) -> Dataset {
    let classes = 3;
    let part = |name: &str, count: usize| {
        let mut generator = Stream::new(1).named(name).generator();
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for image in 0..count {
            let class = image % classes;
            for pixel in 0..height * width {
                let bright = pixel / width / 2 == class && pixel % width / 2 == class;
                pixels.push(generator.random_range(0..100u8) + if bright { 100 } else { 0 });
            }
            labels.push(class as u8);
        }
        Part { pixels: pixels.into(), labels: labels.into() }
    };
    let shape = Shape { height, width, classes, train_images, test_images };
    Dataset { shape, train: part("train", train_images), test: part("test", test_images) }
}
