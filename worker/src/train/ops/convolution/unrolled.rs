//! Convolution by unrolled windows: one product of all windows and the weights.
//!
//! The windows of a tile, which is some images or a part of one, stay in the cache. They are made
//! again for the backward pass rather than kept: copying is far cheaper than multiplying.

use std::ops::Range;

use super::unroll::{roll, unroll, unroll_transposed};
use super::{Geometry, LaneGradients, LaneSaved};
use crate::train::element::Element;
use crate::train::matrix::{Matrix, Write, append_product, multiply};
use crate::train::ops::InputGradient;
use crate::train::ops::linear::{add_bias, before_activation};
use crate::train::transpose::transpose;

/// About how many numbers the unrolled windows of a tile have.
const TILE: usize = 160 * 1024;

/// Rows of windows of one image, or all of some images.
struct Tile {
    images: Range<usize>,
    rows: Range<usize>,
}

impl Geometry {
    /// Tiles one after the other; those of the same images follow each other.
    fn tiles(&self) -> impl Iterator<Item = Tile> + use<> {
        let Self { batch, windows, .. } = *self;
        let size = windows.count() * windows.patch();
        let images = (TILE / size).clamp(1, batch.max(1));
        let rows = windows.rows.div_ceil(size.div_ceil(TILE));
        (0..batch).step_by(images).flat_map(move |image| {
            (0..windows.rows).step_by(rows).map(move |row| Tile {
                images: image..batch.min(image + images),
                rows: row..windows.rows.min(row + rows),
            })
        })
    }

    /// Whether windows are columns rather than rows of the unrolled matrix.
    fn transposes(&self) -> bool {
        self.windows.window.size * self.windows.channels < 16
    }

    /// The unrolled windows of a tile, `[windows, patch]`.
    fn unrolled<'a, T: Element>(&self, x: &[T], tile: &Tile, patches: &'a mut Vec<T>) -> Matrix<'a, T> {
        let windows = &self.windows;
        let of_image = tile.rows.len() * windows.columns;
        let (count, patch) = (tile.images.len() * of_image, windows.patch());
        patches.resize(count * patch, T::zero());
        let images = x.chunks_exact(windows.image()).skip(tile.images.start).take(tile.images.len());
        if self.transposes() {
            for (index, image) in images.enumerate() {
                let first = index * of_image;
                unroll_transposed(windows, tile.rows.clone(), image, first, count, patches);
            }
            return Matrix::new(patches, patch, count).transposed();
        }
        for (image, patches) in images.zip(patches.chunks_exact_mut(of_image * patch)) {
            unroll(windows, tile.rows.clone(), image, patches);
        }
        Matrix::new(patches, count, patch)
    }

    /// Where the results of a tile lie among those of the lane.
    fn results(&self, tile: &Tile) -> Range<usize> {
        let row = self.windows.columns * self.outputs;
        let first = tile.images.start * self.result() + tile.rows.start * row;
        first..first + tile.images.len() * tile.rows.len() * row
    }
}

/// Appends the results of a lane to `y`.
pub(super) fn forward<T: Element>(geometry: &Geometry, x: &[T], weight: &[T], bias: &[T], y: &mut Vec<T>) {
    let patch = geometry.windows.patch();
    let weight = transpose(weight, geometry.outputs, patch);
    let mut patches = Vec::new();
    for tile in geometry.tiles() {
        let patches = geometry.unrolled(x, &tile, &mut patches);
        let first = y.len();
        append_product(y, patches, Matrix::new(&weight, patch, geometry.outputs));
        add_bias(&mut y[first..], bias, geometry.activation);
    }
}

/// The gradients of a lane.
pub(super) fn backward<T: Element>(
    geometry: &Geometry,
    saved: &LaneSaved<'_, T>,
    input: InputGradient,
) -> LaneGradients<T> {
    let Geometry { outputs, windows, .. } = *geometry;
    let (patch, image) = (windows.patch(), windows.image());
    let weight = Matrix::new(saved.weight, outputs, patch);
    let mut dx = match input {
        InputGradient::Wanted => vec![T::zero(); saved.x.len()],
        InputGradient::Unwanted => Vec::new(),
    };
    let mut dbias = vec![0.0; outputs];
    // Transposed, since a product of few columns is faster than one of few rows.
    let mut dweight = vec![T::zero(); patch * outputs];
    let (mut patches, mut dpatches) = (Vec::new(), Vec::new());
    for tile in geometry.tiles() {
        let at = geometry.results(&tile);
        let (dz, sums) = before_activation(&saved.y[at.clone()], &saved.dy[at], outputs, geometry.activation);
        dbias.iter_mut().zip(sums).for_each(|(dbias, sum)| *dbias += sum);
        let patches = geometry.unrolled(saved.x, &tile, &mut patches);
        let dz = Matrix::new(&dz, dz.len() / outputs, outputs);
        multiply(&mut dweight, Write::Add, patches.transposed(), dz);
        if input == InputGradient::Wanted {
            let of_image = tile.rows.len() * windows.columns * patch;
            dpatches.resize(tile.images.len() * of_image, T::zero());
            multiply(&mut dpatches, Write::Replace, dz, weight);
            let dx = dx[tile.images.start * image..].chunks_exact_mut(image);
            for (dx, dpatches) in dx.zip(dpatches.chunks_exact(of_image)) {
                roll(&windows, tile.rows.clone(), dpatches, dx);
            }
        }
    }
    LaneGradients { x: dx, weight: transpose(&dweight, patch, outputs), bias: dbias }
}
