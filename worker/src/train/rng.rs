//! The streams that training draws from.
//!
//! Streams are named by what they are for, down to epoch, step and layer, so that training can be
//! taken up again in the middle and draw what it would have drawn.

use fittingroom_common::rng::Stream;

/// A place in training: what a step draws is named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// From 1.
    pub epoch: u32,
    /// Within the epoch, from 0.
    pub step: usize,
}

/// Which images of a class go to validation.
pub(crate) fn split(seed: u64, class: u8) -> Stream {
    Stream::new(seed).named("split").numbered(u64::from(class))
}

/// The order of the training images in an epoch.
pub(crate) fn order(seed: u64, epoch: u32) -> Stream {
    Stream::new(seed).named("order").numbered(u64::from(epoch))
}

/// One part of the augmentation in one step: the same for all trials with this order of images.
pub(crate) fn augmentation(seed: u64, moment: Moment, part: &str) -> Stream {
    let Moment { epoch, step } = moment;
    Stream::new(seed).named("augmentation").named(part).numbered(u64::from(epoch)).numbered(step as u64)
}

/// The initial values of a parameter.
pub(crate) fn init(seed: u64, parameter: &str) -> Stream {
    Stream::new(seed).named("init").named(parameter)
}

/// The units that a layer drops in one step.
pub(crate) fn dropout(seed: u64, moment: Moment, layer: usize) -> Stream {
    let Moment { epoch, step } = moment;
    Stream::new(seed).named("dropout").numbered(u64::from(epoch)).numbered(step as u64).numbered(layer as u64)
}

/// The channels that a layer drops in one step.
pub(crate) fn spatial_dropout(seed: u64, moment: Moment, layer: usize) -> Stream {
    let Moment { epoch, step } = moment;
    let purpose = Stream::new(seed).named("spatial_dropout");
    purpose.numbered(u64::from(epoch)).numbered(step as u64).numbered(layer as u64)
}
