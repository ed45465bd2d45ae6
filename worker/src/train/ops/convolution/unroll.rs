//! Images as matrices with one row for every window, and back.

use std::ops::Range;

use crate::train::element::Element;
use crate::train::ops::window::Windows;
use crate::train::simd;

/// Copies every window of some rows of windows into a row of its own; zeros stand beyond the borders.
pub(super) fn unroll<T: Element>(windows: &Windows, rows: Range<usize>, image: &[T], patches: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            each_run(
                windows,
                rows,
                #[inline(always)]
                |run| {
                    let (before, rest) = patches[run.patch..][..run.length].split_at_mut(run.before);
                    let (inside, after) = rest.split_at_mut(run.inside);
                    before.fill(T::zero());
                    inside.copy_from_slice(&image[run.image..][..run.inside]);
                    after.fill(T::zero());
                },
            );
        },
    );
}

/// The transpose of [`unroll`]: adds every window's numbers to the pixels that they came from.
pub(super) fn roll<T: Element>(windows: &Windows, rows: Range<usize>, patches: &[T], image: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            each_run(
                windows,
                rows,
                #[inline(always)]
                |run| {
                    let pixels = &mut image[run.image..][..run.inside];
                    for (pixel, number) in pixels.iter_mut().zip(&patches[run.patch + run.before..]) {
                        *pixel += *number;
                    }
                },
            );
        },
    );
}

/// One row of one window: a run of numbers that lie side by side in the window and in the image.
struct Run {
    /// Where the run starts in the unrolled windows.
    patch: usize,
    /// Its length there.
    length: usize,
    /// How many numbers at its start lie beyond the border.
    before: usize,
    /// How many after those lie inside of the image.
    inside: usize,
    /// Where the first of these lies in the image.
    image: usize,
}

#[inline(always)]
fn each_run(windows: &Windows, rows: Range<usize>, mut act: impl FnMut(Run)) {
    let (size, channels) = (windows.window.size, windows.channels);
    let length = size * channels;
    let mut patch = 0;
    for row in rows {
        for column in 0..windows.columns {
            let (first, last, image_column) = windows.inside(column);
            for inner in 0..size {
                let run = match windows.image_row(row, inner) {
                    Some(image_row) => Run {
                        patch,
                        length,
                        before: first * channels,
                        inside: (last - first) * channels,
                        image: (image_row * windows.width + image_column) * channels,
                    },
                    None => Run { patch, length, before: length, inside: 0, image: 0 },
                };
                act(run);
                patch += length;
            }
        }
    }
}

/// [`unroll`], but one row for every place of the window and channel, one column for every window.
///
/// For images of few channels: their windows are so short that copying them one by one takes longer
/// than multiplying them.
pub(super) fn unroll_transposed<T: Element>(
    windows: &Windows,
    rows: Range<usize>,
    image: &[T],
    first: usize,
    stride: usize,
    patches: &mut [T],
) {
    let (size, channels, moves) = (windows.window.size, windows.channels, windows.window.stride);
    for place in 0..size * size * channels {
        let (inner_row, inner_column, channel) =
            (place / (size * channels), place / channels % size, place % channels);
        // The windows whose place in this column lies inside of the image.
        let before = windows.window.padding.saturating_sub(inner_column).div_ceil(moves).min(windows.columns);
        let last = (windows.width + windows.window.padding).saturating_sub(inner_column).div_ceil(moves);
        let inside = before..last.clamp(before, windows.columns);
        let patches = &mut patches[place * stride + first..][..rows.len() * windows.columns];
        for (row, patches) in rows.clone().zip(patches.chunks_exact_mut(windows.columns)) {
            let Some(image_row) = windows.image_row(row, inner_row) else {
                patches.fill(T::zero());
                continue;
            };
            patches[..inside.start].fill(T::zero());
            patches[inside.end..].fill(T::zero());
            let Some(image_column) = windows.image_column(inside.start, inner_column) else { continue };
            let pixels = &image[(image_row * windows.width + image_column) * channels + channel..];
            let patches = &mut patches[inside.clone()];
            if moves * channels == 1 {
                patches.copy_from_slice(&pixels[..patches.len()]);
            } else {
                for (patch, pixel) in patches.iter_mut().zip(pixels.iter().step_by(moves * channels)) {
                    *patch = *pixel;
                }
            }
        }
    }
}
