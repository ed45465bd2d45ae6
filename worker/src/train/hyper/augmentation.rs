//! What is done to the training images.

use super::SettingsError;
use super::read::Reader;

/// How training images are varied.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Augmentation {
    /// Whether half of the images are mirrored, left and right.
    pub flip: bool,
    /// By how many pixels an image is moved at most, each way.
    pub shift: usize,
    /// Probability with which a rectangle of an image becomes black.
    pub random_erasing: f64,
    /// The alpha of mixup, above 0, if it is used.
    pub mixup: Option<f64>,
    /// The alpha of CutMix, above 0, if it is used. With both, each step takes one of them.
    pub cutmix: Option<f64>,
}

impl Augmentation {
    pub(super) fn of(read: &Reader<'_>) -> Result<Self, SettingsError> {
        let alpha = |name| Ok::<_, SettingsError>(Some(read.number(name)?).filter(|alpha| *alpha > 0.0));
        Ok(Self {
            flip: read.flag("flip")?,
            shift: read.integer("shift")? as usize,
            random_erasing: read.number("random_erasing")?,
            mixup: alpha("mixup")?,
            cutmix: alpha("cutmix")?,
        })
    }
}
