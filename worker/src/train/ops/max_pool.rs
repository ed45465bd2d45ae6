//! Pooling: the largest number of every window, per channel. Windows may overlap and be padded.
//!
//! As in PyTorch, the first of equal numbers wins, NaN wins over all, and what lies beyond the
//! border never wins.

use std::mem::MaybeUninit;

use candle_core::{Device, Result, Shape, Tensor};

use super::window::{Window, Windows};
use super::{Tape, Unary, apply_unary, compose_unary};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::{Element, append, extend};
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
    let places = Places::of(&windows);
    apply_unary(MaxPool { lanes, batch, windows, places, winners: Vec::new() }, x, tape)
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
    places: Places,
    /// For every number of the result, which place of its window it came from.
    winners: Vec<u16>,
}

impl Unary for MaxPool {
    fn output_shape(&self) -> Shape {
        (self.lanes, self.batch, self.windows.rows, self.windows.columns, self.windows.channels).into()
    }

    fn forward<T: Element>(&mut self, x: &[T]) -> Vec<T> {
        let channels = self.windows.channels;
        let size = self.windows.count() * channels;
        let count = self.lanes * self.batch * size;
        let (mut y, mut winners) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut from = vec![T::zero(); size];
        for x in x.chunks_exact(self.windows.image()) {
            let write = |best: &mut [MaybeUninit<T>]| {
                simd::dispatch_by(
                    #[inline(always)]
                    |vectors| {
                        let results = best.chunks_exact_mut(channels).zip(from.chunks_exact_mut(channels));
                        for ((best, from), places) in results.zip(self.places.of_windows()) {
                            for place in places {
                                simd::prefetch_from(&x[place.image..][..channels], simd::AHEAD);
                            }
                            let mut work = Win { x, places, best, from };
                            // SAFETY: best and from have so many numbers, and x at each of the places.
                            unsafe { simd::run(vectors, channels, &mut work) }
                        }
                    },
                );
            };
            // SAFETY: each channel of each window is written.
            unsafe { append(&mut y, size, write) };
            simd::dispatch(
                #[inline(always)]
                || extend(&mut winners, from.iter().map(|from| from.to_f64() as i32 as u16)),
            );
        }
        self.winners = winners;
        y
    }

    fn backward<T: Element>(&self, x: &[T], _y: &[T], dy: &[T]) -> Vec<T> {
        let mut dx = Vec::with_capacity(x.len());
        let (image, channels) = (self.windows.image(), self.windows.channels);
        let size = self.windows.count() * channels;
        for (dy, winners) in dy.chunks_exact(size).zip(self.winners.chunks_exact(size)) {
            let windows = dy.chunks_exact(channels).zip(winners.chunks_exact(channels));
            let windows = windows.zip(self.places.of_windows());
            if self.places.part_the_image {
                let write = |dx: &mut [MaybeUninit<T>]| {
                    simd::dispatch(
                        #[inline(always)]
                        || {
                            for ((dy, winners), places) in windows {
                                give(dx, places, dy, winners, |dx, share| *dx = MaybeUninit::new(share));
                            }
                        },
                    );
                };
                // SAFETY: each pixel lies in a window, and all that lie in one are written.
                unsafe { append(&mut dx, image, write) };
            } else {
                // Zeros for one image at a time are still in the cache when they are added to.
                let first = dx.len();
                dx.resize(first + image, T::zero());
                let dx = &mut dx[first..];
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for ((dy, winners), places) in windows {
                            give(dx, places, dy, winners, |dx, share| *dx += share);
                        }
                    },
                );
            }
        }
        dx
    }
}

/// Gives the gradient of each channel of a window to the place that it came from, and zeros to the others.
#[inline(always)]
fn give<T: Element, P>(dx: &mut [P], places: &[Place], dy: &[T], winners: &[u16], put: impl Fn(&mut P, T)) {
    /// Channels that fill a vector, which stays in a register while it is held against all places.
    const LENGTH: usize = 16;
    let share = |winner: u16, place: &Place, dy: T| if winner == place.number { dy } else { T::zero() };
    let ((dy, last_dy), (winners, last_winners)) = (dy.as_chunks::<LENGTH>(), winners.as_chunks());
    for (chunk, (dy, winners)) in dy.iter().zip(winners).enumerate() {
        // By value: behind references the compiler makes a branch of each choice.
        let (dy, winners): ([T; LENGTH], [u16; LENGTH]) = (*dy, *winners);
        for place in places {
            let dx = &mut dx[place.image + chunk * LENGTH..][..LENGTH];
            for at in 0..LENGTH {
                put(&mut dx[at], share(winners[at], place, dy[at]));
            }
        }
    }
    for place in places {
        let dx = &mut dx[place.image + dy.len() * LENGTH..];
        for ((dx, dy), winner) in dx.iter_mut().zip(last_dy).zip(last_winners) {
            put(dx, share(*winner, place, *dy));
        }
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

/// The places of all windows.
struct Places {
    all: Vec<Place>,
    /// For each window, where its places end among all.
    ends: Vec<usize>,
    /// Whether each pixel lies in one window, and in no other.
    part_the_image: bool,
}

impl Places {
    fn of(windows: &Windows) -> Self {
        let size = windows.window.size;
        let (mut all, mut ends) = (Vec::new(), Vec::new());
        for window in 0..windows.count() {
            let (row, column) = (window / windows.columns, window % windows.columns);
            for number in 0..size * size {
                let image_row = windows.image_row(row, number / size);
                let image_column = windows.image_column(column, number % size);
                if let (Some(image_row), Some(image_column)) = (image_row, image_column) {
                    let image = (image_row * windows.width + image_column) * windows.channels;
                    all.push(Place { image, number: number as u16 });
                }
            }
            ends.push(all.len());
        }
        let mut pixels: Vec<usize> = all.iter().map(|place| place.image / windows.channels).collect();
        pixels.sort_unstable();
        let part_the_image = pixels.into_iter().eq(0..windows.height * windows.width);
        Self { all, ends, part_the_image }
    }

    /// The places of each window, in order.
    #[inline(always)]
    fn of_windows(&self) -> impl Iterator<Item = &[Place]> {
        let mut first = 0;
        self.ends.iter().map(move |&end| &self.all[std::mem::replace(&mut first, end)..end])
    }
}

/// For each channel the largest number of a window, and the number of the place that it came from.
struct Win<'a, T> {
    x: &'a [T],
    places: &'a [Place],
    best: &'a mut [MaybeUninit<T>],
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
            best.store(self.best.as_mut_ptr().cast::<T>().add(channel));
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
            (
                "more channels than a vector holds",
                [1, 1, 4, 2, 19],
                Window { size: 2, stride: 2, padding: 0 },
            ),
            ("more channels, overlapping", [1, 1, 3, 5, 35], Window { size: 3, stride: 2, padding: 1 }),
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
