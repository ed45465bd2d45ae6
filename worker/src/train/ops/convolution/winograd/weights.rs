//! `G g Gᵀ` for all windows of weights, and its transpose.

use super::scheme::{Scheme, transform};
use super::{Places, no_places};
use crate::train::element::Element;
use crate::train::matrix::Write;
use crate::train::simd;

/// `[outputs, R * R * channels]` to `[outputs, channels]` for each place.
pub(super) fn transform_weights<T: Element, W: Scheme<R, S>, const R: usize, const S: usize>(
    weight: &[T],
    outputs: usize,
    channels: usize,
) -> Places<T, S> {
    let mut out: Places<T, S> = no_places();
    for out in out.iter_mut().flatten() {
        out.resize(outputs * channels, T::zero());
    }
    let mut half = halves::<T, R, S>(channels);
    for (output, weight) in weight.chunks_exact(R * R * channels).enumerate() {
        let at = output * channels..(output + 1) * channels;
        simd::dispatch_by(
            #[inline(always)]
            |vectors| {
                for (column, half) in half.iter_mut().enumerate() {
                    let from = weight.chunks_exact(R * channels).map(|row| &row[column * channels..]);
                    let to = half.iter_mut().map(|half| &mut half[..]);
                    transform::<_, W::Weights, R, S>(vectors, channels, from, to, Write::Replace);
                }
                for (row, out) in out.iter_mut().enumerate() {
                    let from = half.iter().map(|half| &half[row][..]);
                    let to = out.iter_mut().map(|out| &mut out[at.clone()]);
                    transform::<_, W::Weights, R, S>(vectors, channels, from, to, Write::Replace);
                }
            },
        );
    }
    out
}

/// The transpose of [`transform_weights`].
pub(super) fn transform_weights_back<T: Element, W: Scheme<R, S>, const R: usize, const S: usize>(
    dweights: &Places<T, S>,
    outputs: usize,
    channels: usize,
) -> Vec<T> {
    let mut out = vec![T::zero(); R * R * outputs * channels];
    let mut half = halves::<T, R, S>(channels);
    for (output, out) in out.chunks_exact_mut(R * R * channels).enumerate() {
        let at = output * channels..(output + 1) * channels;
        simd::dispatch_by(
            #[inline(always)]
            |vectors| {
                for (row, dweights) in dweights.iter().enumerate() {
                    let from = dweights.iter().map(|dweights| &dweights[at.clone()]);
                    let to = half.iter_mut().map(|half| &mut half[row][..]);
                    transform::<_, W::WeightsBack, S, R>(vectors, channels, from, to, Write::Replace);
                }
                for (column, half) in half.iter().enumerate() {
                    let from = half.iter().map(|half| &half[..]);
                    let to = out.chunks_exact_mut(R * channels).map(|row| &mut row[column * channels..]);
                    transform::<_, W::WeightsBack, S, R>(vectors, channels, from, to, Write::Replace);
                }
            },
        );
    }
    out
}

/// One window of weights, transformed along the rows alone.
fn halves<T: Element, const R: usize, const S: usize>(channels: usize) -> [[Vec<T>; S]; R] {
    std::array::from_fn(|_| std::array::from_fn(|_| vec![T::zero(); channels]))
}
