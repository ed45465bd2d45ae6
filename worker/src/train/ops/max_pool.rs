//! Pooling: the largest number of every window, per channel. Windows may overlap and be padded.
//!
//! As in PyTorch, the first of equal numbers wins, NaN wins over all, and what lies beyond the
//! border never wins.

use candle_core::{Device, Result, Shape, Tensor};

use super::window::{Window, Windows};
use super::{Tape, Unary, apply_unary, compose_unary};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::Element;
use crate::train::simd::{self, Vector, VectorLoop};

/// The largest windows of the GPU's kernel, which keeps places in one byte.
#[cfg(feature = "cuda")]
const MOST_ON_GPU: usize = 16;

/// Max pooling. `x`: `[lanes, batch, height, width, channels]`; gives `[lanes, batch, rows, columns, channels]`.
pub(crate) fn max_pool(x: &Tensor, window: Window, tape: Option<&mut Tape>) -> Result<Tensor> {
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let windows = window.over(height, width, channels)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x).filter(|_| window.size <= MOST_ON_GPU) {
        return super::cuda::max_pool(gpu, x, windows, tape);
    }
    if !matches!(x.device(), Device::Cpu) {
        return compose_unary(x, tape, |x| composed(x, window));
    }
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
    winners: Vec<u16>,
}

impl Unary for MaxPool {
    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.windows.rows, self.windows.columns, self.windows.channels).into()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        let Windows { rows, columns, channels, .. } = self.windows;
        let count = self.lanes * self.batch * rows * columns * channels;
        let (mut y, mut winners) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut best, mut from) = (vec![T::zero(); columns * channels], vec![T::zero(); columns * channels]);
        let mut narrow = vec![0; columns * channels];
        let mut places = Vec::new();
        for x in x.chunks_exact(self.windows.image()) {
            for row in 0..rows {
                simd::dispatch_by(
                    #[inline(always)]
                    |vectors| {
                        let results = best.chunks_exact_mut(channels).zip(from.chunks_exact_mut(channels));
                        for (column, (best, from)) in results.enumerate() {
                            self.places_of(row, column, &mut places);
                            let mut work = Win { x, places: &places, best, from };
                            // SAFETY: best and from have so many numbers, and x at each of the places.
                            unsafe { simd::run(vectors, channels, &mut work) }
                        }
                        for (narrow, from) in narrow.iter_mut().zip(&from) {
                            *narrow = from.to_f64() as i32 as u16;
                        }
                    },
                );
                y.extend_from_slice(&best);
                winners.extend_from_slice(&narrow);
            }
        }
        self.winners = winners;
        y
    }

    fn backward<T: Element>(&self, x: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        let mut dx = Vec::with_capacity(x.len());
        let Windows { rows, columns, channels, .. } = self.windows;
        let size = columns * channels;
        let mut results = dy.chunks_exact(size).zip(self.winners.chunks_exact(size));
        let mut places = Vec::new();
        for image in x.chunks_exact(self.windows.image()) {
            // Zeros for one image at a time are still in the cache when they are added to.
            let first = dx.len();
            dx.resize(first + image.len(), T::zero());
            let dx = &mut dx[first..];
            for (row, (dy, winners)) in (0..rows).zip(&mut results) {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        let results = dy.chunks_exact(channels).zip(winners.chunks_exact(channels));
                        for (column, (dy, winners)) in results.enumerate() {
                            self.places_of(row, column, &mut places);
                            for place in &places {
                                let dx = &mut dx[place.image..][..channels];
                                for ((dx, dy), winner) in dx.iter_mut().zip(dy).zip(winners) {
                                    *dx += if *winner == place.number { *dy } else { T::zero() };
                                }
                            }
                        }
                    },
                );
            }
        }
        dx
    }
}

/// A place of a window that lies inside of the image.
#[derive(Clone, Copy)]
struct Place {
    /// Where its pixel's channels start in the image.
    image: usize,
    /// Its number within the window.
    number: u16,
}

impl MaxPool {
    /// The places of a window that lie inside of the image, in order.
    #[inline(always)]
    fn places_of(&self, row: usize, column: usize, places: &mut Vec<Place>) {
        let windows = &self.windows;
        let size = windows.window.size;
        places.clear();
        for inner_row in 0..size {
            let Some(image_row) = windows.image_row(row, inner_row) else {
                continue;
            };
            for inner_column in 0..size {
                if let Some(image_column) = windows.image_column(column, inner_column) {
                    places.push(Place {
                        image: (image_row * windows.width + image_column) * windows.channels,
                        number: (inner_row * size + inner_column) as u16,
                    });
                }
            }
        }
    }
}

/// For each channel the largest number of a window, and the number of the place that it came from.
struct Win<'a, T> {
    x: &'a [T],
    places: &'a [Place],
    best: &'a mut [T],
    from: &'a mut [T],
}

impl<T: Element> VectorLoop<T> for Win<'_, T> {
    #[inline(always)]
    unsafe fn step<V: Vector<T>>(&mut self, channel: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            let (mut best, mut from) = (V::all(f64::NEG_INFINITY), V::all(0.0));
            for place in self.places {
                let x = V::load(self.x.as_ptr().add(place.image + channel));
                (best, from) = best.larger(from, x, V::all(f64::from(place.number)));
            }
            best.store(self.best.as_mut_ptr().add(channel));
            from.store(self.from.as_mut_ptr().add(channel));
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
