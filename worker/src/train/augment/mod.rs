//! Variation of the training images: mirrored, moved, partly erased, mixed with one another.
//!
//! What is drawn depends on the seed of the order, the epoch, the step and the kind of change
//! alone: it is the same for all lanes, the same where training is taken up in the middle, and the
//! shifts, say, are the same whether or not there is erasing too. The draws are made here; `host`
//! carries them out on bytes in the CPU's memory, `device` in candle's ops, where a GPU holds the
//! dataset.
//!
//! Images are mirrored, then moved, then erased, as grey values; standardised; then mixed.

mod beta;
pub(crate) mod device;
pub(crate) mod host;

use rand::Rng;
use rand::seq::SliceRandom;

use super::hyper::Augmentation;
use super::model::ImageShape;
use super::rng::{self, Moment};
use beta::beta;

/// The share of an image that erasing takes, and the ratio of the rectangle's height to its width:
/// defaults of `torchvision.transforms.RandomErasing`, after Zhong et al. (2020).
const ERASED_SHARE: (f64, f64) = (0.02, 0.33);
const ERASED_RATIO: (f64, f64) = (0.3, 3.3);
/// How often a rectangle that does not fit is drawn again before the image is left as it is.
const ERASING_TRIES: u32 = 10;

/// Images that could be moved out of sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shift = {shift} can move images of {height}x{width} out of sight: it must be below {}", .height.min(.width))]
pub struct ShiftTooLarge {
    /// The shift, in pixels.
    pub shift: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
}

/// Draws what is done to the images of each step.
#[derive(Clone, Copy, Debug)]
pub struct Augmenter {
    settings: Augmentation,
    seed: u64,
    height: usize,
    width: usize,
}

/// What is done to the images of one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// To each image by itself, in order.
    pub placements: Vec<Placement>,
    /// To the images together, afterwards.
    pub mix: Option<Mix>,
}

/// Where an image goes within its frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Mirrored first, left and right.
    pub flipped: bool,
    /// Then moved down by this many rows.
    pub down: isize,
    /// And to the right by this many columns.
    pub right: isize,
    /// Then black in this area.
    pub erased: Area,
}

/// A rectangle of an image, possibly of no size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Its first row.
    pub top: usize,
    /// Its first column.
    pub left: usize,
    /// Its rows.
    pub height: usize,
    /// Its columns.
    pub width: usize,
}

/// How the images of a batch are mixed with one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// For each image the one that it is mixed with, by its place in the batch: a permutation.
    pub partners: Vec<u32>,
    /// The share of the image itself, from 0 to 1; the rest is its partner's.
    pub own_share: f64,
    /// How their pixels are put together.
    pub mixture: Mixture,
}

/// How two images become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixture {
    /// Each pixel is the mean of both, weighted by their shares: mixup, after Zhang et al. (2018).
    Blend,
    /// This area is the partner's: CutMix, after Yun et al. (2019).
    Paste(Area),
}

/// The size of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Augmenter {
    /// For images of this shape.
    pub fn new(settings: Augmentation, seed: u64, images: ImageShape) -> Result<Self, ShiftTooLarge> {
        let ImageShape { height, width, .. } = images;
        if settings.shift > 0 && settings.shift >= height.min(width) {
            return Err(ShiftTooLarge { shift: settings.shift, height, width });
        }
        Ok(Self { settings, seed, height, width })
    }

    /// What is done to the `images` of a step; `None` if nothing ever is.
    pub fn draw(&self, moment: Moment, images: usize) -> Option<Changes> {
        if self.settings == Augmentation::default() {
            return None;
        }
        let mut placements = vec![Placement::default(); images];
        let generator = |part| rng::augmentation(self.seed, moment, part).generator();
        if self.settings.flip {
            let mut generator = generator("flip");
            placements.iter_mut().for_each(|it| it.flipped = generator.random());
        }
        if self.settings.shift > 0 {
            let mut generator = generator("shift");
            let most = self.settings.shift as i64;
            for it in &mut placements {
                it.down = generator.random_range(-most..=most) as isize;
                it.right = generator.random_range(-most..=most) as isize;
            }
        }
        if self.settings.random_erasing > 0.0 {
            let mut generator = generator("erasing");
            for it in &mut placements {
                if generator.random::<f64>() < self.settings.random_erasing {
                    it.erased = self.erased(&mut generator);
                }
            }
        }
        let mix = self.mix(&mut generator("mixing"), images);
        Some(Changes { placements, mix })
    }

    /// The area that `torchvision.transforms.RandomErasing` would draw.
    fn erased(&self, generator: &mut impl Rng) -> Area {
        let pixels = (self.height * self.width) as f64;
        for _ in 0..ERASING_TRIES {
            let area = pixels * generator.random_range(ERASED_SHARE.0..ERASED_SHARE.1);
            let ratio = generator.random_range(ERASED_RATIO.0.ln()..ERASED_RATIO.1.ln()).exp();
            let height = (area * ratio).sqrt().round_ties_even() as usize;
            let width = (area / ratio).sqrt().round_ties_even() as usize;
            if height < self.height && width < self.width {
                let top = generator.random_range(0..=self.height - height);
                let left = generator.random_range(0..=self.width - width);
                return Area { top, left, height, width };
            }
        }
        Area::default()
    }

    /// One share and one permutation for the whole batch, as in both papers' reference code.
    fn mix(&self, generator: &mut impl Rng, images: usize) -> Option<Mix> {
        let paste = match (self.settings.mixup, self.settings.cutmix) {
            (None, None) => return None,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(_), Some(_)) => generator.random(),
        };
        let alpha = if paste { self.settings.cutmix } else { self.settings.mixup };
        let own_share = beta(alpha?, generator);
        let mut partners: Vec<u32> = (0..images as u32).collect();
        partners.shuffle(generator);
        if !paste {
            return Some(Mix { partners, own_share, mixture: Mixture::Blend });
        }
        let area = self.pasted(own_share, generator);
        // What the frame cuts off of the area is the image's own again.
        let own_share = 1.0 - (area.height * area.width) as f64 / (self.height * self.width) as f64;
        Some(Mix { partners, own_share, mixture: Mixture::Paste(area) })
    }

    /// The area of the reference implementation's `rand_bbox`: it has the image's proportions, its
    /// middle is anywhere, and what goes beyond the frame is cut off.
    fn pasted(&self, own_share: f64, generator: &mut impl Rng) -> Area {
        let mut span = |size: usize| {
            let cut = (size as f64 * (1.0 - own_share).sqrt()) as usize;
            let middle = generator.random_range(0..size);
            let (first, end) = (middle.saturating_sub(cut / 2), (middle + cut / 2).min(size));
            (first, end - first)
        };
        let ((top, height), (left, width)) = (span(self.height), span(self.width));
        Area { top, left, height, width }
    }
}

#[cfg(test)]
mod tests;
