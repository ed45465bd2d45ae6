//! Pooling: the largest number of every window, per channel. Windows may overlap and be padded.
//!
//! As in PyTorch, the first of equal numbers wins, NaN wins over all, and what lies beyond the
//! border never wins.

use candle_core::{Device, Result, Shape, Tensor};

use super::window::{Window, Windows};
use super::{Tape, Unary, apply_unary};
use crate::train::element::Element;
use crate::train::simd;

/// Max pooling. `x`: `[lanes, batch, height, width, channels]`; gives `[lanes, batch, rows, columns, channels]`.
pub(crate) fn max_pool(x: &Tensor, window: Window, tape: Option<&mut Tape>) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return composed(x, window);
    }
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let windows = window.over(height, width, channels)?;
    apply_unary(MaxPool { lanes, batch, windows, winners: Vec::new() }, x, tape)
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
    winners: Vec<u32>,
}

impl Unary for MaxPool {
    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.windows.rows, self.windows.columns, self.windows.channels).into()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        let Windows { rows, columns, channels, .. } = self.windows;
        let count = self.lanes * self.batch * rows * columns * channels;
        let (mut y, mut winners) = (Vec::with_capacity(count), Vec::with_capacity(count));
        // A row of results stays in the cache while all places of its windows are looked at.
        let mut best = vec![T::zero(); columns * channels];
        let mut from = vec![0; columns * channels];
        for x in x.chunks_exact(self.windows.image()) {
            for row in 0..rows {
                best.fill(T::from_f64(f64::NEG_INFINITY));
                from.fill(0);
                simd::dispatch(
                    #[inline(always)]
                    || {
                        self.each_run(
                            row,
                            #[inline(always)]
                            |run| {
                                let best = &mut best[run.result..][..channels];
                                let from = &mut from[run.result..][..channels];
                                let x = &x[run.image..][..channels];
                                for ((best, from), x) in best.iter_mut().zip(from).zip(x) {
                                    // The second half is true for NaN alone.
                                    #[allow(clippy::eq_op)]
                                    let wins = *x > *best || *x != *x;
                                    *best = if wins { *x } else { *best };
                                    *from = if wins { run.place } else { *from };
                                }
                            },
                        );
                    },
                );
                y.extend_from_slice(&best);
                winners.extend_from_slice(&from);
            }
        }
        self.winners = winners;
        y
    }

    fn backward<T: Element>(&self, x: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        let mut dx = vec![T::zero(); x.len()];
        let Windows { rows, columns, channels, .. } = self.windows;
        let size = columns * channels;
        let mut results = dy.chunks_exact(size).zip(self.winners.chunks_exact(size));
        for dx in dx.chunks_exact_mut(self.windows.image()) {
            for (row, (dy, winners)) in (0..rows).zip(&mut results) {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        self.each_run(
                            row,
                            #[inline(always)]
                            |run| {
                                let dx = &mut dx[run.image..][..channels];
                                let dy = &dy[run.result..][..channels];
                                let winners = &winners[run.result..][..channels];
                                for ((dx, dy), winner) in dx.iter_mut().zip(dy).zip(winners) {
                                    *dx += if *winner == run.place { *dy } else { T::zero() };
                                }
                            },
                        );
                    },
                );
            }
        }
        dx
    }
}

/// The channels of one pixel, as one place of one window.
#[derive(Clone, Copy)]
struct Run {
    /// Where the window's result starts in the row of results.
    result: usize,
    /// Where the pixel starts in the image.
    image: usize,
    /// The place's number within its window.
    place: u32,
}

impl MaxPool {
    /// Visits the places of a row of windows that lie inside of the image, for each window in order.
    #[inline(always)]
    fn each_run(&self, row: usize, mut act: impl FnMut(Run)) {
        let windows = &self.windows;
        let size = windows.window.size;
        for inner_row in 0..size {
            let Some(image_row) = windows.image_row(row, inner_row) else {
                continue;
            };
            for inner_column in 0..size {
                for column in 0..windows.columns {
                    let Some(image_column) = windows.image_column(column, inner_column) else {
                        continue;
                    };
                    act(Run {
                        result: column * windows.channels,
                        image: (image_row * windows.width + image_column) * windows.channels,
                        place: (inner_row * size + inner_column) as u32,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::InputGradient;
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
            check_unary(name, &numbers(name, &x), &|x, tape| max_pool(x, window, tape), &|x| {
                composed(x, window)
            });
        }
    }

    #[test]
    fn the_first_of_equals_wins_and_nan_is_kept() {
        let window = Window { size: 2, stride: 2, padding: 0 };
        let pool = |numbers: [f32; 4]| {
            let x = Tensor::from_slice(&numbers, (1, 1, 2, 2, 1), &Device::Cpu).expect("good");
            let mut tape = Tape::taking(InputGradient::Wanted);
            let y = max_pool(&x, window, Some(&mut tape)).expect("good");
            let gradient = tape.play(y.ones_like().expect("good")).expect("good").expect("it is wanted");
            let gradient = gradient.flatten_all().expect("good");
            let y = y.flatten_all().and_then(|y| y.to_vec1::<f32>()).expect("good");
            (y[0], gradient.to_vec1::<f32>().expect("good"))
        };
        assert_eq!(pool([1.0, 3.0, 3.0, 2.0]), (3.0, vec![0.0, 1.0, 0.0, 0.0]));
        assert!(pool([1.0, f32::NAN, 3.0, 2.0]).0.is_nan());
    }
}
