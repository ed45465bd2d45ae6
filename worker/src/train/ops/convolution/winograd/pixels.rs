//! `Bᵀ d B` for rows of tiles of pixels, and its transpose.

use std::ops::Range;

use super::scheme::{Scheme, transform};
use super::{Grid, Places};
use crate::train::element::Element;
use crate::train::matrix::Write;
use crate::train::simd;

pub(super) struct PixelTransform<T, const S: usize> {
    grid: Grid,
    /// A row of tiles, transformed along the columns alone: `[2 * tiles + S - 2, channels]` each. What lies
    /// beyond the borders is zero from the beginning.
    lines: [Vec<T>; S],
    /// Stands for every row of pixels beyond the borders, where they are read.
    zeros: Vec<T>,
    /// Stand for the rows of pixels of a tile beyond the borders, where they are written.
    nowhere: Vec<T>,
}

impl<T: Element, const S: usize> PixelTransform<T, S> {
    pub(super) fn new(grid: Grid) -> Self {
        let windows = &grid.geometry.windows;
        let line = (2 * grid.columns + S - 2) * windows.channels;
        let size = windows.width * windows.channels;
        Self {
            grid,
            lines: std::array::from_fn(|_| vec![T::zero(); line]),
            zeros: vec![T::zero(); size],
            nowhere: vec![T::zero(); S * size],
        }
    }

    /// The transformed pixels of a block: `[tiles, channels]` for each place.
    pub(super) fn apply<W: Scheme<R, S>, const R: usize>(
        &mut self,
        x: &[T],
        block: Range<usize>,
        out: &mut Places<T, S>,
    ) {
        let windows = self.grid.geometry.windows;
        let (channels, padding) = (windows.channels, windows.window.padding);
        let size = windows.width * channels;
        let of_row = self.grid.columns * channels;
        for out in out.iter_mut().flatten() {
            out.resize(block.len() * of_row, T::zero());
        }
        for (number, row) in block.enumerate() {
            let (image, row) = (row / self.grid.rows, row % self.grid.rows);
            let image = &x[image * windows.image()..][..windows.image()];
            let lines = &mut self.lines;
            simd::dispatch_by(
                #[inline(always)]
                |vectors| {
                    let from = (0..S).map(|inner| {
                        let row = (2 * row + inner).checked_sub(padding).filter(|row| *row < windows.height);
                        row.map_or(&self.zeros[..], |row| &image[row * size..][..size])
                    });
                    let inside = lines.iter_mut().map(|line| &mut line[padding * channels..]);
                    transform::<_, W::Pixels, S, S>(vectors, size, from, inside, Write::Replace);
                    for (line, out) in lines.iter().zip(out.iter_mut()) {
                        for tile in 0..self.grid.columns {
                            let from = line[2 * tile * channels..].chunks_exact(channels);
                            let at = number * of_row + tile * channels;
                            let to = out.iter_mut().map(|out| &mut out[at..]);
                            transform::<_, W::Pixels, S, S>(vectors, channels, from, to, Write::Replace);
                        }
                    }
                },
            );
        }
    }

    /// The transpose of [`Self::apply`]: adds to the gradients of an image's pixels, which are appended
    /// with its first row of tiles.
    pub(super) fn append_transposed<W: Scheme<R, S>, const R: usize>(
        &mut self,
        dout: &Places<T, S>,
        block: Range<usize>,
        dx: &mut Vec<T>,
    ) {
        let windows = self.grid.geometry.windows;
        let (channels, padding) = (windows.channels, windows.window.padding);
        let size = windows.width * channels;
        let of_row = self.grid.columns * channels;
        for (number, row) in block.enumerate() {
            let (image, row) = (row / self.grid.rows, row % self.grid.rows);
            if row == 0 {
                dx.resize(dx.len() + windows.image(), T::zero());
            }
            let dx = &mut dx[image * windows.image()..];
            let lines = &mut self.lines;
            simd::dispatch_by(
                #[inline(always)]
                |vectors| {
                    for (line, dout) in lines.iter_mut().zip(dout) {
                        line.fill(T::zero());
                        for tile in 0..self.grid.columns {
                            let at = number * of_row + tile * channels;
                            let from = dout.iter().map(|dout| &dout[at..]);
                            let to = line[2 * tile * channels..].chunks_exact_mut(channels);
                            transform::<_, W::PixelsBack, S, S>(vectors, channels, from, to, Write::Add);
                        }
                    }
                    let inside = lines.iter().map(|line| &line[padding * channels..]);
                    let mut rows =
                        dx[..windows.image()].chunks_exact_mut(size).skip((2 * row).saturating_sub(padding));
                    let mut nowhere = self.nowhere.chunks_exact_mut(size);
                    let to = (0..S).filter_map(|inner| {
                        let row = (2 * row + inner).checked_sub(padding).filter(|row| *row < windows.height);
                        if row.is_some() { rows.next() } else { nowhere.next() }
                    });
                    transform::<_, W::PixelsBack, S, S>(vectors, size, inside, to, Write::Add);
                },
            );
        }
    }
}
