//! Convolution with windows of 3x3 and 5x5 after Winograd, as Lavin and Gray (2016) do it.
//!
//! Each tile of 2x2 results comes from S x S pixels `d`, S one more than the window's side, and a window of
//! weights `g` as `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`: for each pair of channels 16 multiplications instead of
//! 36, or 36 instead of 100. Over all channels they are S² products of matrices, one for each place
//! of a tile, whose sides are tiles and channels. The backward pass is the transpose of each step, in the
//! opposite order.
//!
//! The numbers of the transforms are chosen so that rounding grows little: results and gradients in f32
//! are held to 5e-6 of the largest number, as those of every op are.

mod pixels;
mod results;
mod scheme;
mod weights;

use std::ops::Range;

use self::pixels::PixelTransform;
use self::results::ResultTransform;
use self::scheme::{Five, Scheme, Three};
use self::weights::{transform_weights, transform_weights_back};
use super::{Geometry, LaneGradients, LaneSaved};
use crate::train::element::Element;
use crate::train::matrix::{Matrix, Write, multiply};
use crate::train::ops::linear::before_activation;
use crate::train::ops::{InputGradient, Window};
use crate::train::transpose::transpose;

/// With fewer channels on either side, the transforms take longer than the multiplications that
/// they save.
const LEAST_CHANNELS: usize = 16;

/// About how many numbers the transformed pixels and results of the tiles that are multiplied
/// together have.
const BLOCK: usize = 256 * 1024;

/// How many tiles are multiplied together at least: with fewer, products spend their time on reading
/// and writing the weights.
const LEAST_TILES: usize = 96;

/// Numbers for each place of a tile.
type Places<T, const S: usize> = [[Vec<T>; S]; S];

fn no_places<T, const S: usize>() -> Places<T, S> {
    std::array::from_fn(|_| std::array::from_fn(|_| Vec::new()))
}

/// Whether a layer is faster in this way.
pub(super) fn suits(geometry: &Geometry) -> bool {
    let Window { size, stride, padding } = geometry.windows.window;
    matches!(size, 3 | 5)
        && stride == 1
        && padding < size
        && geometry.windows.channels.min(geometry.outputs) >= LEAST_CHANNELS
}

/// Appends the results of a lane to `y`.
pub(super) fn forward<T: Element>(geometry: &Geometry, x: &[T], weight: &[T], bias: &[T], y: &mut Vec<T>) {
    match geometry.windows.window.size {
        3 => forward_by::<T, Three, 3, 4>(geometry, x, weight, bias, y),
        _ => forward_by::<T, Five, 5, 6>(geometry, x, weight, bias, y),
    }
}

/// The gradients of a lane.
pub(super) fn backward<T: Element>(
    geometry: &Geometry,
    saved: &LaneSaved<'_, T>,
    wanted: InputGradient,
) -> LaneGradients<T> {
    match geometry.windows.window.size {
        3 => backward_by::<T, Three, 3, 4>(geometry, saved, wanted),
        _ => backward_by::<T, Five, 5, 6>(geometry, saved, wanted),
    }
}

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
    fn blocks(&self, places: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let row = self.columns * places * (self.geometry.windows.channels + self.geometry.outputs);
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
}

fn forward_by<T: Element, W: Scheme<R, S>, const R: usize, const S: usize>(
    geometry: &Geometry,
    x: &[T],
    weight: &[T],
    bias: &[T],
    y: &mut Vec<T>,
) {
    let grid = Grid::of(geometry);
    let Geometry { outputs, windows, activation, .. } = *geometry;
    let channels = windows.channels;
    let weights = transform_weights::<T, W, R, S>(weight, outputs, channels);
    let weights = weights
        .each_ref()
        .map(|row| row.each_ref().map(|of_outputs| transpose(of_outputs, outputs, channels)));
    let mut transform = PixelTransform::<T, S>::new(grid);
    let mut back = ResultTransform::<T, S>::new(grid);
    let (mut pixels, mut results) = (no_places(), no_places());
    for block in grid.blocks(S * S) {
        let tiles = block.len() * grid.columns;
        transform.apply::<W, R>(x, block.clone(), &mut pixels);
        let all = pixels.iter().flatten().zip(weights.iter().flatten());
        for ((pixels, weights), results) in all.zip(results.iter_mut().flatten()) {
            results.resize(tiles * outputs, T::zero());
            multiply(
                results,
                Write::Replace,
                Matrix::new(pixels, tiles, channels),
                Matrix::new(weights, channels, outputs),
            );
        }
        back.append::<W, R>(&results, block, bias, activation, y);
    }
}

fn backward_by<T: Element, W: Scheme<R, S>, const R: usize, const S: usize>(
    geometry: &Geometry,
    saved: &LaneSaved<'_, T>,
    wanted: InputGradient,
) -> LaneGradients<T> {
    let grid = Grid::of(geometry);
    let Geometry { outputs, windows, activation, .. } = *geometry;
    let channels = windows.channels;
    let weights = match wanted {
        InputGradient::Wanted => transform_weights::<T, W, R, S>(saved.weight, outputs, channels),
        InputGradient::Unwanted => no_places(),
    };
    let mut gradients = LaneGradients { x: Vec::new(), weight: Vec::new(), bias: vec![0.0; outputs] };
    let mut dweights: Places<T, S> = no_places();
    for dweights in dweights.iter_mut().flatten() {
        dweights.resize(outputs * channels, T::zero());
    }
    let mut transform = PixelTransform::<T, S>::new(grid);
    // Not the same: what one reads beyond the borders must stay zero, and the other writes there.
    let mut back = PixelTransform::<T, S>::new(grid);
    let mut of_results = ResultTransform::<T, S>::new(grid);
    let (mut pixels, mut dpixels, mut dresults) = (no_places(), no_places(), no_places());
    for block in grid.blocks(S * S) {
        let tiles = block.len() * grid.columns;
        let row = windows.columns * outputs;
        let (last, rows) = grid.results(block.end - 1);
        let at = grid.results(block.start).0 * row..(last + rows) * row;
        let (dz, sums) = before_activation(&saved.y[at.clone()], &saved.dy[at], outputs, activation);
        gradients.bias.iter_mut().zip(sums).for_each(|(bias, sum)| *bias += sum);
        transform.apply::<W, R>(saved.x, block.clone(), &mut pixels);
        of_results.transposed::<W, R>(&dz, block.clone(), &mut dresults);
        let sides = pixels.iter().flatten().zip(dresults.iter().flatten());
        for ((pixels, dresults), dweights) in sides.zip(dweights.iter_mut().flatten()) {
            let dresults = Matrix::new(dresults, tiles, outputs).transposed();
            multiply(dweights, Write::Add, dresults, Matrix::new(pixels, tiles, channels));
        }
        if wanted == InputGradient::Wanted {
            let sides = dresults.iter().flatten().zip(weights.iter().flatten());
            for ((dresults, weights), dpixels) in sides.zip(dpixels.iter_mut().flatten()) {
                dpixels.resize(tiles * channels, T::zero());
                let dresults = Matrix::new(dresults, tiles, outputs);
                multiply(dpixels, Write::Replace, dresults, Matrix::new(weights, outputs, channels));
            }
            back.append_transposed::<W, R>(&dpixels, block, &mut gradients.x);
        }
    }
    gradients.weight = transform_weights_back::<T, W, R, S>(&dweights, outputs, channels);
    gradients
}
