//! Convolution with 3x3 windows after Winograd, F(2x2, 3x3) of Lavin and Gray (2016).
//!
//! Each tile of 2x2 results comes from 4x4 pixels `d` and a window of weights `g` as
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`: 16 multiplications for each pair of channels instead of 36. Over
//! all channels they are 16 products of matrices, one for each place of the 4x4, whose sides are
//! tiles and channels. The backward pass is the transpose of each step, in the opposite order.
//!
//! The transforms only add and subtract, and halve the weights, so that rounding grows little: results
//! and gradients in f32 are held to 5e-6 of the largest number, as those of every op are.

use std::ops::Range;

use super::{Geometry, LaneGradients, LaneSaved};
use crate::train::element::Element;
use crate::train::matrix::{Matrix, Write, multiply, transpose_into};
use crate::train::ops::linear::{add_bias, before_activation};
use crate::train::ops::{Activation, InputGradient};
use crate::train::simd;

/// With fewer channels on either side, the transforms take longer than the multiplications that
/// they save.
pub(super) const LEAST_CHANNELS: usize = 16;

/// About how many numbers the transformed pixels and results of the tiles that are multiplied
/// together have.
const BLOCK: usize = 256 * 1024;

/// How many tiles are multiplied together at least: with fewer, products spend their time on reading
/// and writing the weights.
const LEAST_TILES: usize = 96;

/// Places of a tile of pixels.
const PLACES: usize = 16;

/// How the tiles lie on the images of a lane.
#[derive(Clone, Copy)]
struct Grid {
    geometry: Geometry,
    /// Rows of tiles on an image.
    rows: usize,
    /// Tiles in a row.
    columns: usize,
}

impl Grid {
    fn of(geometry: &Geometry) -> Self {
        let windows = &geometry.windows;
        Self { geometry: *geometry, rows: windows.rows.div_ceil(2), columns: windows.columns.div_ceil(2) }
    }

    /// Rows of tiles, counted over all images, in runs that are multiplied together.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let row = self.columns * PLACES * (self.geometry.windows.channels + self.geometry.outputs);
        let rows = (BLOCK / row).max(LEAST_TILES.div_ceil(self.columns));
        let all = self.geometry.batch * self.rows;
        (0..all).step_by(rows).map(move |row| row..all.min(row + rows))
    }

    /// The row of windows that a row of tiles begins with, counted over all images, and how many of
    /// its two there are.
    fn results(&self, row: usize) -> (usize, usize) {
        let (image, row) = (row / self.rows, row % self.rows);
        let windows = &self.geometry.windows;
        (image * windows.rows + 2 * row, (windows.rows - 2 * row).min(2))
    }

    /// The pixels of a row of an image; `None` beyond its borders. Row 0 is the first of the padding.
    fn pixels<'a, T>(&self, x: &'a [T], image: usize, row: usize) -> Option<&'a [T]> {
        let windows = &self.geometry.windows;
        let row = row.checked_sub(windows.window.padding).filter(|row| *row < windows.height)?;
        let size = windows.width * windows.channels;
        Some(&x[(image * windows.height + row) * size..][..size])
    }
}

/// Appends the results of a lane to `y`.
pub(super) fn forward<T: Element>(geometry: &Geometry, x: &[T], weight: &[T], bias: &[T], y: &mut Vec<T>) {
    let grid = Grid::of(geometry);
    let Geometry { outputs, windows, activation, .. } = *geometry;
    let (channels, size) = (windows.channels, windows.channels * outputs);
    let mut weights = vec![T::zero(); PLACES * size];
    for (of_outputs, of_channels) in
        transform_weights(weight, outputs, channels).chunks_exact(size).zip(weights.chunks_exact_mut(size))
    {
        transpose_into(of_outputs, outputs, channels, of_channels);
    }
    let mut input = InputTransform::new(grid);
    let mut output = OutputTransform::new(grid);
    let (mut pixels, mut results) = (Vec::new(), Vec::new());
    for block in grid.blocks() {
        let tiles = block.len() * grid.columns;
        input.apply(x, block.clone(), &mut pixels);
        results.resize(PLACES * tiles * outputs, T::zero());
        for place in 0..PLACES {
            multiply(
                &mut results[place * tiles * outputs..][..tiles * outputs],
                Write::Replace,
                Matrix::new(&pixels[place * tiles * channels..][..tiles * channels], tiles, channels),
                Matrix::new(&weights[place * size..][..size], channels, outputs),
            );
        }
        output.append(&results, block, bias, activation, y);
    }
}

/// The gradients of a lane.
pub(super) fn backward<T: Element>(
    geometry: &Geometry,
    saved: &LaneSaved<'_, T>,
    wanted: InputGradient,
) -> LaneGradients<T> {
    let grid = Grid::of(geometry);
    let Geometry { outputs, windows, activation, .. } = *geometry;
    let (channels, size) = (windows.channels, windows.channels * outputs);
    let weights = match wanted {
        InputGradient::Wanted => transform_weights(saved.weight, outputs, channels),
        InputGradient::Unwanted => Vec::new(),
    };
    let mut gradients = LaneGradients { x: Vec::new(), weight: Vec::new(), bias: vec![0.0; outputs] };
    let mut dweights = vec![T::zero(); PLACES * size];
    let mut input = InputTransform::new(grid);
    let mut output = OutputTransform::new(grid);
    let mut back = InputTransform::new(grid);
    let (mut pixels, mut dpixels, mut dresults) = (Vec::new(), Vec::new(), Vec::new());
    for block in grid.blocks() {
        let tiles = block.len() * grid.columns;
        let row = windows.columns * outputs;
        let (last, rows) = grid.results(block.end - 1);
        let at = grid.results(block.start).0 * row..(last + rows) * row;
        let (dz, sums) = before_activation(&saved.y[at.clone()], &saved.dy[at], outputs, activation);
        gradients.bias.iter_mut().zip(sums).for_each(|(bias, sum)| *bias += sum);
        input.apply(saved.x, block.clone(), &mut pixels);
        output.transposed(&dz, block.clone(), &mut dresults);
        if wanted == InputGradient::Wanted {
            dpixels.resize(PLACES * tiles * channels, T::zero());
        }
        for place in 0..PLACES {
            let of_place = place * tiles * channels..(place + 1) * tiles * channels;
            let pixels = Matrix::new(&pixels[of_place.clone()], tiles, channels);
            let dresults =
                Matrix::new(&dresults[place * tiles * outputs..][..tiles * outputs], tiles, outputs);
            let dweights = &mut dweights[place * size..][..size];
            multiply(dweights, Write::Add, dresults.transposed(), pixels);
            if wanted == InputGradient::Wanted {
                let weights = Matrix::new(&weights[place * size..][..size], outputs, channels);
                multiply(&mut dpixels[of_place], Write::Replace, dresults, weights);
            }
        }
        if wanted == InputGradient::Wanted {
            back.append_transposed(&dpixels, block, &mut gradients.x);
        }
    }
    gradients.weight = transform_weights_back(&dweights, outputs, channels);
    gradients
}

/// The columns of `G`, whose rows are the places along one side.
fn weight_factors<T: Element>() -> [[T; 3]; 4] {
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]].map(|row| row.map(T::from_f64))
}

/// `G g Gᵀ`: `[outputs, 9 * channels]` to `[places, outputs, channels]`.
fn transform_weights<T: Element>(weight: &[T], outputs: usize, channels: usize) -> Vec<T> {
    let factors = weight_factors::<T>();
    let mut out = vec![T::zero(); PLACES * outputs * channels];
    simd::dispatch(
        #[inline(always)]
        || {
            for (output, weight) in weight.chunks_exact(9 * channels).enumerate() {
                for place in 0..PLACES {
                    let out = &mut out[(place * outputs + output) * channels..][..channels];
                    let factor = |inner: usize| factors[place / 4][inner / 3] * factors[place % 4][inner % 3];
                    for inner in (0..9).filter(|inner| factor(*inner) != T::zero()) {
                        let weight = &weight[inner * channels..][..channels];
                        for (out, weight) in out.iter_mut().zip(weight) {
                            *out += factor(inner) * *weight;
                        }
                    }
                }
            }
        },
    );
    out
}

/// `Gᵀ u G`, the transpose of [`transform_weights`].
fn transform_weights_back<T: Element>(dweights: &[T], outputs: usize, channels: usize) -> Vec<T> {
    let factors = weight_factors::<T>();
    let mut out = vec![T::zero(); 9 * outputs * channels];
    simd::dispatch(
        #[inline(always)]
        || {
            for (output, out) in out.chunks_exact_mut(9 * channels).enumerate() {
                for place in 0..PLACES {
                    let dweights = &dweights[(place * outputs + output) * channels..][..channels];
                    let factor = |inner: usize| factors[place / 4][inner / 3] * factors[place % 4][inner % 3];
                    for inner in (0..9).filter(|inner| factor(*inner) != T::zero()) {
                        let out = &mut out[inner * channels..][..channels];
                        for (out, dweight) in out.iter_mut().zip(dweights) {
                            *out += factor(inner) * *dweight;
                        }
                    }
                }
            }
        },
    );
    out
}

/// `Bᵀ d B` for rows of tiles, and its transpose.
struct InputTransform<T> {
    grid: Grid,
    /// A row of tiles, transformed along the columns alone: `[4, 2 * columns + 2, channels]`.
    rows: [Vec<T>; 4],
    /// The same of the row of tiles before.
    before: [Vec<T>; 4],
    /// A row of pixels, all zero.
    zeros: Vec<T>,
}

impl<T: Element> InputTransform<T> {
    fn new(grid: Grid) -> Self {
        let windows = &grid.geometry.windows;
        let row = || vec![T::zero(); (2 * grid.columns + 2) * windows.channels];
        let zeros = vec![T::zero(); windows.width * windows.channels];
        Self { grid, rows: std::array::from_fn(|_| row()), before: std::array::from_fn(|_| row()), zeros }
    }

    /// The transformed pixels of a block: `[places, tiles, channels]`.
    fn apply(&mut self, x: &[T], block: Range<usize>, out: &mut Vec<T>) {
        let windows = self.grid.geometry.windows;
        let channels = windows.channels;
        let of_row = self.grid.columns * channels;
        let of_place = block.len() * of_row;
        out.resize(PLACES * of_place, T::zero());
        for (number, row) in block.enumerate() {
            let (image, row) = (row / self.grid.rows, row % self.grid.rows);
            let [d0, d1, d2, d3] =
                [0, 1, 2, 3].map(|inner| self.grid.pixels(x, image, 2 * row + inner).unwrap_or(&self.zeros));
            // What lies beyond the borders is zero from the beginning.
            let inside =
                windows.window.padding * channels..(windows.window.padding + windows.width) * channels;
            let [r0, r1, r2, r3] = self.rows.each_mut().map(|row| &mut row[inside.clone()]);
            simd::dispatch(
                #[inline(always)]
                || {
                    combine(r0, d0, d2, |d0, d2| d0 - d2);
                    combine(r1, d1, d2, |d1, d2| d1 + d2);
                    combine(r2, d2, d1, |d2, d1| d2 - d1);
                    combine(r3, d1, d3, |d1, d3| d1 - d3);
                },
            );
            simd::dispatch(
                #[inline(always)]
                || {
                    for (inner, row) in self.rows.iter().enumerate() {
                        let start = |column: usize| (4 * inner + column) * of_place + number * of_row;
                        let starts = [start(0), start(1), start(2), start(3)];
                        along(&mut out[starts[0]..][..of_row], row, channels, [0, 2], |d0, d2| d0 - d2);
                        along(&mut out[starts[1]..][..of_row], row, channels, [1, 2], |d1, d2| d1 + d2);
                        along(&mut out[starts[2]..][..of_row], row, channels, [2, 1], |d2, d1| d2 - d1);
                        along(&mut out[starts[3]..][..of_row], row, channels, [1, 3], |d1, d3| d1 - d3);
                    }
                },
            );
        }
    }

    /// The transpose of [`Self::apply`]: appends the rows of pixels that are complete with this block,
    /// and so all rows of an image with its last.
    fn append_transposed(&mut self, dout: &[T], block: Range<usize>, dx: &mut Vec<T>) {
        let windows = self.grid.geometry.windows;
        let (channels, padding) = (windows.channels, windows.window.padding);
        let of_row = self.grid.columns * channels;
        let of_place = block.len() * of_row;
        let mut line = vec![T::zero(); windows.width * channels];
        for (number, row) in block.enumerate() {
            let row = row % self.grid.rows;
            std::mem::swap(&mut self.rows, &mut self.before);
            if row == 0 {
                self.before.iter_mut().for_each(|row| row.fill(T::zero()));
            }
            for (inner, row) in self.rows.iter_mut().enumerate() {
                let dout: [&[T]; 4] = std::array::from_fn(|column| {
                    &dout[(4 * inner + column) * of_place + number * of_row..][..of_row]
                });
                simd::dispatch(
                    #[inline(always)]
                    || columns_back(row, dout, &self.zeros[..channels], channels),
                );
            }
            self.append_rows(2 * row, &mut line, dx);
            if row + 1 == self.grid.rows {
                std::mem::swap(&mut self.rows, &mut self.before);
                self.rows.iter_mut().for_each(|row| row.fill(T::zero()));
                self.append_rows(2 * row + 2, &mut line, dx);
                // Rows of pixels that no window looks at, as at strides that leave some over.
                let missing = windows.height.saturating_sub((2 * row + 4).saturating_sub(padding));
                dx.extend(std::iter::repeat_n(T::zero(), missing * windows.width * channels));
            }
        }
    }

    /// Appends the two rows of pixels that end with the row of tiles before and begin with this one.
    /// `first` counts from the first row of the padding.
    fn append_rows(&self, first: usize, line: &mut [T], dx: &mut Vec<T>) {
        let windows = self.grid.geometry.windows;
        let padding = windows.window.padding;
        let inside = padding * windows.channels..(padding + windows.width) * windows.channels;
        let [r0, r1, r2, r3] = self.rows.each_ref().map(|row| &row[inside.clone()]);
        let [b0, b1, b2, b3] = self.before.each_ref().map(|row| &row[inside.clone()]);
        for half in 0..2 {
            if (first + half).checked_sub(padding).is_none_or(|row| row >= windows.height) {
                continue;
            }
            simd::dispatch(
                #[inline(always)]
                || {
                    if half == 0 {
                        four(line, [r0, b0, b1, b2], |r0, b0, b1, b2| r0 + (b1 + b2 - b0));
                    } else {
                        four(line, [r1, r2, r3, b3], |r1, r2, r3, b3| (r1 - r2 + r3) - b3);
                    }
                },
            );
            dx.extend_from_slice(line);
        }
    }
}

/// `out = form(left, right)`.
#[inline(always)]
fn combine<T: Element>(out: &mut [T], left: &[T], right: &[T], form: impl Fn(T, T) -> T) {
    for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
        *out = form(*left, *right);
    }
}

/// For each tile of a row, `out = form` of two of its four columns, which begin every second column.
#[inline(always)]
fn along<T: Element>(
    out: &mut [T],
    row: &[T],
    channels: usize,
    columns: [usize; 2],
    form: impl Fn(T, T) -> T + Copy,
) {
    for (tile, out) in out.chunks_exact_mut(channels).enumerate() {
        let [left, right] = columns.map(|column| &row[(2 * tile + column) * channels..][..channels]);
        combine(out, left, right, form);
    }
}

/// The transpose of the four [`along`]: from the places of all tiles of a row, what falls to each column.
#[inline(always)]
fn columns_back<T: Element>(row: &mut [T], dout: [&[T]; 4], zeros: &[T], channels: usize) {
    let tiles = dout[0].len() / channels;
    let of = |place: usize, tile: Option<usize>| match tile {
        Some(tile) if tile < tiles => &dout[place][tile * channels..][..channels],
        _ => zeros,
    };
    for (tile, columns) in row.chunks_exact_mut(2 * channels).enumerate() {
        // The first two columns of this tile are the last two of the one before.
        let (own, before) = (Some(tile), tile.checked_sub(1));
        let (even, odd) = columns.split_at_mut(channels);
        four(even, [of(0, own), of(0, before), of(1, before), of(2, before)], |v0, b0, b1, b2| {
            v0 + (b1 + b2 - b0)
        });
        four(odd, [of(1, own), of(2, own), of(3, own), of(3, before)], |v1, v2, v3, b3| (v1 - v2 + v3) - b3);
    }
}

/// `Aᵀ m A` for rows of tiles, and its transpose.
struct OutputTransform<T> {
    grid: Grid,
    /// A row of tiles, with the columns transformed alone: forward `[2][4]` rows of
    /// `[columns, outputs]`, backward 4 rows of `[2 * columns, outputs]`.
    halves: [[Vec<T>; 4]; 2],
    rows: [Vec<T>; 4],
}

impl<T: Element> OutputTransform<T> {
    fn new(grid: Grid) -> Self {
        let of_row = grid.columns * grid.geometry.outputs;
        let row = |size: usize| std::array::from_fn(|_| vec![T::zero(); size]);
        Self { grid, halves: std::array::from_fn(|_| row(of_row)), rows: row(2 * of_row) }
    }

    /// Appends the results of a block, of `[places, tiles, outputs]`, with bias and activation.
    fn append(
        &mut self,
        products: &[T],
        block: Range<usize>,
        bias: &[T],
        activation: Activation,
        y: &mut Vec<T>,
    ) {
        let Geometry { outputs, windows, .. } = self.grid.geometry;
        let of_row = self.grid.columns * outputs;
        let of_place = block.len() * of_row;
        for (number, row) in block.enumerate() {
            let place = |place: usize| &products[place * of_place + number * of_row..][..of_row];
            let [upper, lower] = &mut self.halves;
            for half in 0..self.grid.results(row).1 {
                let line = &mut self.rows[half];
                let halves = if half == 0 { &mut *upper } else { &mut *lower };
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for (column, out) in halves.iter_mut().enumerate() {
                            let m = [place(column), place(4 + column), place(8 + column), place(12 + column)];
                            if half == 0 {
                                three(out, [m[0], m[1], m[2]], |m0, m1, m2| m0 + m1 + m2);
                            } else {
                                three(out, [m[1], m[2], m[3]], |m1, m2, m3| m1 - m2 - m3);
                            }
                        }
                        for (tile, line) in line.chunks_exact_mut(2 * outputs).enumerate() {
                            let (even, odd) = line.split_at_mut(outputs);
                            let [s0, s1, s2, s3] =
                                halves.each_ref().map(|half| &half[tile * outputs..][..outputs]);
                            three(even, [s0, s1, s2], |s0, s1, s2| s0 + s1 + s2);
                            three(odd, [s1, s2, s3], |s1, s2, s3| s1 - s2 - s3);
                        }
                    },
                );
                add_bias(line, bias, activation);
                y.extend_from_slice(&line[..windows.columns * outputs]);
            }
        }
    }

    /// The transpose of [`Self::append`]: from a block's gradients to `[places, tiles, outputs]`.
    fn transposed(&mut self, dz: &[T], block: Range<usize>, out: &mut Vec<T>) {
        let Geometry { outputs, windows, .. } = self.grid.geometry;
        let of_row = self.grid.columns * outputs;
        let of_place = block.len() * of_row;
        let line = windows.columns * outputs;
        out.resize(PLACES * of_place, T::zero());
        let mut lines = dz.chunks_exact(line);
        let zeros = vec![T::zero(); line];
        for (number, row) in block.enumerate() {
            let upper = lines.next().unwrap_or(&zeros);
            let lower = if self.grid.results(row).1 == 2 { lines.next().unwrap_or(&zeros) } else { &zeros };
            let [e0, e1, e2, e3] = self.rows.each_mut().map(|row| &mut row[..line]);
            simd::dispatch(
                #[inline(always)]
                || {
                    e0.copy_from_slice(upper);
                    combine(e1, upper, lower, |upper, lower| upper + lower);
                    combine(e2, upper, lower, |upper, lower| upper - lower);
                    combine(e3, lower, lower, |lower, _| T::zero() - lower);
                },
            );
            simd::dispatch(
                #[inline(always)]
                || {
                    for (inner, row) in self.rows.iter().enumerate() {
                        let start = |column: usize| (4 * inner + column) * of_place + number * of_row;
                        let starts = [start(0), start(1), start(2), start(3)];
                        along(&mut out[starts[0]..][..of_row], row, outputs, [0, 0], |even, _| even);
                        along(&mut out[starts[1]..][..of_row], row, outputs, [0, 1], |even, odd| even + odd);
                        along(&mut out[starts[2]..][..of_row], row, outputs, [0, 1], |even, odd| even - odd);
                        along(&mut out[starts[3]..][..of_row], row, outputs, [1, 1], |odd, _| {
                            T::zero() - odd
                        });
                    }
                },
            );
        }
    }
}

/// `out = form` of three rows.
#[inline(always)]
fn three<T: Element>(out: &mut [T], rows: [&[T]; 3], form: impl Fn(T, T, T) -> T) {
    let count = out.len();
    let (a, b, c) = (&rows[0][..count], &rows[1][..count], &rows[2][..count]);
    for (at, out) in out.iter_mut().enumerate() {
        *out = form(a[at], b[at], c[at]);
    }
}

/// `out = form` of four rows.
#[inline(always)]
fn four<T: Element>(out: &mut [T], rows: [&[T]; 4], form: impl Fn(T, T, T, T) -> T) {
    let count = out.len();
    let (a, b) = (&rows[0][..count], &rows[1][..count]);
    let (c, d) = (&rows[2][..count], &rows[3][..count]);
    for (at, out) in out.iter_mut().enumerate() {
        *out = form(a[at], b[at], c[at], d[at]);
    }
}
