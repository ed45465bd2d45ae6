//! `Aᵀ m A` for rows of tiles of results, and its transpose.

use std::ops::Range;

use super::scheme::{Scheme, transform};
use super::{Geometry, Grid, Places};
use crate::train::element::Element;
use crate::train::matrix::Write;
use crate::train::ops::Activation;
use crate::train::ops::linear::add_bias;
use crate::train::simd;

pub(super) struct ResultTransform<T, const S: usize> {
    grid: Grid,
    /// A row of tiles, transformed along the columns alone: `[tiles, outputs]` each.
    halves: [[Vec<T>; S]; 2],
    /// Both rows of results, or the rows of places that come from them: `[2 * tiles, outputs]` each. What
    /// lies beyond the borders is zero from the beginning where it is read.
    lines: [Vec<T>; S],
}

impl<T: Element, const S: usize> ResultTransform<T, S> {
    pub(super) fn new(grid: Grid) -> Self {
        let of_row = grid.columns * grid.geometry.outputs;
        let half = || std::array::from_fn(|_| vec![T::zero(); of_row]);
        Self { grid, halves: [half(), half()], lines: std::array::from_fn(|_| vec![T::zero(); 2 * of_row]) }
    }

    /// Appends the results of a block, of `[tiles, outputs]` for each place, with bias and activation.
    pub(super) fn append<W: Scheme<R, S>, const R: usize>(
        &mut self,
        products: &Places<T, S>,
        block: Range<usize>,
        bias: &[T],
        activation: Activation,
        y: &mut Vec<T>,
    ) {
        let Geometry { outputs, windows, .. } = self.grid.geometry;
        let of_row = self.grid.columns * outputs;
        for (number, row) in block.enumerate() {
            let at = number * of_row..(number + 1) * of_row;
            let (halves, lines) = (&mut self.halves, &mut self.lines);
            simd::dispatch_by(
                #[inline(always)]
                |vectors| {
                    let [upper, lower] = &mut *halves;
                    for (column, (upper, lower)) in upper.iter_mut().zip(lower).enumerate() {
                        let from = products.iter().map(|products| &products[column][at.clone()]);
                        let to = [&mut upper[..], &mut lower[..]].into_iter();
                        transform::<_, W::Results, S, 2>(vectors, of_row, from, to, Write::Replace);
                    }
                    for (half, line) in halves.iter().zip(lines) {
                        for (tile, line) in line.chunks_exact_mut(2 * outputs).enumerate() {
                            let from = half.iter().map(|half| &half[tile * outputs..]);
                            let to = line.chunks_exact_mut(outputs);
                            transform::<_, W::Results, S, 2>(vectors, outputs, from, to, Write::Replace);
                        }
                    }
                },
            );
            for line in &mut self.lines[..self.grid.results(row).1] {
                let line = &mut line[..windows.columns * outputs];
                add_bias(line, bias, activation);
                y.extend_from_slice(line);
            }
        }
    }

    /// The transpose of [`Self::append`]: from a block's gradients to `[tiles, outputs]` for each place.
    pub(super) fn transposed<W: Scheme<R, S>, const R: usize>(
        &mut self,
        dz: &[T],
        block: Range<usize>,
        out: &mut Places<T, S>,
    ) {
        let Geometry { outputs, windows, .. } = self.grid.geometry;
        let of_row = self.grid.columns * outputs;
        let size = windows.columns * outputs;
        for out in out.iter_mut().flatten() {
            out.resize(block.len() * of_row, T::zero());
        }
        let mut rows = dz.chunks_exact(size);
        let zeros = vec![T::zero(); size];
        for (number, row) in block.enumerate() {
            let upper = rows.next().unwrap_or(&zeros);
            let lower = if self.grid.results(row).1 == 2 { rows.next().unwrap_or(&zeros) } else { &zeros };
            let lines = &mut self.lines;
            simd::dispatch_by(
                #[inline(always)]
                |vectors| {
                    let from = [upper, lower].into_iter();
                    let inside = lines.iter_mut().map(|line| &mut line[..]);
                    transform::<_, W::ResultsBack, 2, S>(vectors, size, from, inside, Write::Replace);
                    for (line, out) in lines.iter().zip(out.iter_mut()) {
                        for (tile, pair) in line.chunks_exact(2 * outputs).enumerate() {
                            let from = pair.chunks_exact(outputs);
                            let at = number * of_row + tile * outputs;
                            let to = out.iter_mut().map(|out| &mut out[at..]);
                            transform::<_, W::ResultsBack, 2, S>(vectors, outputs, from, to, Write::Replace);
                        }
                    }
                },
            );
        }
    }
}
