//! Changes to images in the CPU's memory: whole rows at a time.

use super::{Area, Frame, Mix, Mixture, Placement};
use crate::train::simd;

/// Puts an image into its frame: `out` is black where the image leaves it so, and must be black before.
pub(crate) fn place(image: &[u8], placement: &Placement, frame: Frame, out: &mut [u8]) {
    let Frame { height, width } = frame;
    let (rows, source_rows) = overlap(height, placement.down);
    let (columns, source_columns) = overlap(width, placement.right);
    for (row, source_row) in rows.zip(source_rows) {
        let out = &mut out[row * width..][columns.clone()];
        let image = &image[source_row * width..][..width];
        if placement.flipped {
            out.copy_from_slice(&image[width - source_columns.end..width - source_columns.start]);
            out.reverse();
        } else {
            out.copy_from_slice(&image[source_columns.clone()]);
        }
    }
    let Area { top, left, height, width: erased } = placement.erased;
    for row in top..top + height {
        out[row * width + left..][..erased].fill(0);
    }
}

/// Of a line that is moved by `by`: which places it then takes, and which of its own these were.
pub(super) fn overlap(size: usize, by: isize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let hidden = by.unsigned_abs().min(size);
    let (first, last) = (0..size - hidden, hidden..size);
    if by >= 0 { (last, first) } else { (first, last) }
}

/// Mixes standardised images with one another.
pub(crate) fn mix(images: Vec<f32>, mix: &Mix, frame: Frame) -> Vec<f32> {
    let pixels = frame.height * frame.width;
    let partner = |&place: &u32| &images[place as usize * pixels..][..pixels];
    let partners = mix.partners.iter().map(partner);
    let mut mixed = images.clone();
    let pairs = mixed.chunks_exact_mut(pixels).zip(partners);
    match mix.mixture {
        Mixture::Blend => {
            let (own, others) = (mix.own_share as f32, (1.0 - mix.own_share) as f32);
            simd::dispatch(
                #[inline(always)]
                || {
                    for (image, partner) in pairs {
                        for (value, other) in image.iter_mut().zip(partner) {
                            *value = *value * own + *other * others;
                        }
                    }
                },
            );
        }
        Mixture::Paste(Area { top, left, height, width }) => {
            for (image, partner) in pairs {
                for row in top..top + height {
                    let start = row * frame.width + left;
                    image[start..][..width].copy_from_slice(&partner[start..][..width]);
                }
            }
        }
    }
    mixed
}
