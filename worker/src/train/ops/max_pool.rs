//! Pooling: the largest number of every window, per channel. Windows may overlap and be padded.
//!
//! As in PyTorch, the first of equal numbers wins, NaN wins over all, and what lies beyond the
//! border never wins.

use std::sync::OnceLock;

use candle_core::{Device, Result, Shape, Tensor};

use super::window::{Window, Windows};
use super::{Unary, apply_unary};
use crate::train::element::Element;
use crate::train::simd;

/// Max pooling. `x`: `[lanes, batch, height, width, channels]`; gives `[lanes, batch, rows, columns, channels]`.
pub(crate) fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return composed(x, window);
    }
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let windows = window.over(height, width, channels)?;
    apply_unary(MaxPool { lanes, batch, windows, winners: OnceLock::new() }, x)
}

/// [`max_pool`] in candle's ops. Equal numbers that win together each get the whole gradient.
pub(crate) fn composed(x: &Tensor, window: Window) -> Result<Tensor> {
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let windows = window.over(height, width, channels)?;
    let y = windows.gather(x, f64::NEG_INFINITY)?.max(3)?;
    y.reshape((lanes, batch, windows.rows, windows.columns, channels))
}

struct MaxPool {
    lanes: usize,
    batch: usize,
    windows: Windows,
    /// For every number of the result, which place of its window it came from.
    winners: OnceLock<Vec<u32>>,
}

impl Unary for MaxPool {
    const NAME: &'static str = "max_pool";

    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.windows.rows, self.windows.columns, self.windows.channels).into()
    }

    fn forward<T: Element>(&self, x: &[T]) -> Vec<T> {
        let count = self.lanes * self.batch * self.windows.count() * self.windows.channels;
        let mut y = vec![T::zero(); count];
        let mut winners = vec![0; count];
        simd::dispatch(
            #[inline(always)]
            || {
                self.each_window(
                    #[inline(always)]
                    |result, places| {
                        let y = &mut y[result..][..self.windows.channels];
                        let winners = &mut winners[result..][..self.windows.channels];
                        let (blocks, rest) = y.as_chunks_mut::<BLOCK>();
                        let (winner_blocks, winner_rest) = winners.as_chunks_mut::<BLOCK>();
                        for (number, (y, winner)) in blocks.iter_mut().zip(winner_blocks).enumerate() {
                            largest(x, places, number * BLOCK, y, winner);
                        }
                        let first = self.windows.channels - rest.len();
                        for (number, (y, winner)) in rest.iter_mut().zip(winner_rest).enumerate() {
                            let (y, winner) = (std::array::from_mut(y), std::array::from_mut(winner));
                            largest(x, places, first + number, y, winner);
                        }
                    },
                );
            },
        );
        // A second forward pass of the same op would find the same winners.
        let _ = self.winners.set(winners);
        y
    }

    fn backward<T: Element>(&self, x: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        let mut dx = vec![T::zero(); x.len()];
        let Some(winners) = self.winners.get() else {
            return dx;
        };
        let channels = self.windows.channels;
        simd::dispatch(
            #[inline(always)]
            || {
                self.each_window(
                    #[inline(always)]
                    |result, places| {
                        let (dy, dy_rest) = dy[result..][..channels].as_chunks::<BLOCK>();
                        let (winners, winner_rest) = winners[result..][..channels].as_chunks::<BLOCK>();
                        for place in places {
                            let (dx, dx_rest) = dx[place.image..][..channels].as_chunks_mut::<BLOCK>();
                            for ((dx, dy), winner) in dx.iter_mut().zip(dy).zip(winners) {
                                for channel in 0..BLOCK {
                                    let won = winner[channel] == place.number;
                                    dx[channel] += if won { dy[channel] } else { T::zero() };
                                }
                            }
                            for ((dx, dy), winner) in dx_rest.iter_mut().zip(dy_rest).zip(winner_rest) {
                                *dx += if *winner == place.number { *dy } else { T::zero() };
                            }
                        }
                    },
                );
            },
        );
        dx
    }
}

/// Channels that are looked at together: as many as fill a vector.
const BLOCK: usize = 16;

/// The largest numbers of a window and the places that they came from, for some of the channels.
#[inline(always)]
fn largest<T: Element, const N: usize>(
    x: &[T],
    places: &[Place],
    first_channel: usize,
    y: &mut [T; N],
    winner: &mut [u32; N],
) {
    let mut best = [T::from_f64(f64::NEG_INFINITY); N];
    let mut from = [0; N];
    for place in places {
        let x = &x[place.image + first_channel..][..N];
        for channel in 0..N {
            let number = x[channel];
            // The second half is true for NaN alone.
            #[allow(clippy::eq_op)]
            let wins = number > best[channel] || number != number;
            best[channel] = if wins { number } else { best[channel] };
            from[channel] = if wins { place.number } else { from[channel] };
        }
    }
    *y = best;
    *winner = from;
}

/// One place of one window, for all channels.
#[derive(Clone, Copy)]
struct Place {
    /// Where the pixel starts.
    image: usize,
    /// The place's number within its window.
    number: u32,
}

impl MaxPool {
    /// Visits every window in order, with where its result starts and with those of its places
    /// that lie inside of the image.
    #[inline(always)]
    fn each_window(&self, mut act: impl FnMut(usize, &[Place])) {
        let windows = &self.windows;
        let size = windows.window.size;
        let mut result = 0;
        let mut places = Vec::with_capacity(size * size);
        for image in 0..self.lanes * self.batch {
            for row in 0..windows.rows {
                for column in 0..windows.columns {
                    places.clear();
                    for inner_row in 0..size {
                        let Some(image_row) = windows.image_row(row, inner_row) else {
                            continue;
                        };
                        for inner_column in 0..size {
                            let Some(image_column) = windows.image_column(column, inner_column) else {
                                continue;
                            };
                            let pixel = (image * windows.height + image_row) * windows.width + image_column;
                            let number = (inner_row * size + inner_column) as u32;
                            places.push(Place { image: pixel * windows.channels, number });
                        }
                    }
                    act(result, &places);
                    result += windows.channels;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{check_unary, numbers};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, x, window) in [
            ("2x2", [1, 2, 4, 4, 3], Window { size: 2, stride: 2, padding: 0 }),
            (
                "an odd size, the last row left over",
                [2, 1, 5, 5, 2],
                Window { size: 2, stride: 2, padding: 0 },
            ),
            ("overlapping", [1, 2, 7, 7, 2], Window { size: 3, stride: 2, padding: 0 }),
            ("padded", [1, 1, 5, 4, 2], Window { size: 3, stride: 2, padding: 1 }),
        ] {
            check_unary(name, &numbers(name, &x), &|x| max_pool(x, window), &|x| composed(x, window));
        }
    }

    #[test]
    fn the_first_of_equals_wins_and_nan_is_kept() {
        let window = Window { size: 2, stride: 2, padding: 0 };
        let pool = |numbers: [f32; 4]| {
            let x = candle_core::Var::from_slice(&numbers, (1, 1, 2, 2, 1), &Device::Cpu).expect("good");
            let y = max_pool(&x, window).expect("good");
            let gradients = y.sum_all().and_then(|sum| sum.backward()).expect("good");
            let gradient = gradients.get(&x).and_then(|g| g.flatten_all().ok()).expect("there is one");
            let y = y.flatten_all().and_then(|y| y.to_vec1::<f32>()).expect("good");
            (y[0], gradient.to_vec1::<f32>().expect("good"))
        };
        assert_eq!(pool([1.0, 3.0, 3.0, 2.0]), (3.0, vec![0.0, 1.0, 0.0, 0.0]));
        assert!(pool([1.0, f32::NAN, 3.0, 2.0]).0.is_nan());
    }
}
