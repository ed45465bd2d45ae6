//! Where the windows of a convolution or a pooling lie on an image.

use candle_core::{Result, Tensor};

/// A square window that moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns of the window.
    pub size: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Pixels beyond each border that windows reach.
    pub padding: usize,
}

impl Window {
    /// How many windows fit along `length` pixels; `None` if not one does.
    pub const fn count(self, length: usize) -> Option<usize> {
        match (length + 2 * self.padding).checked_sub(self.size) {
            Some(rest) => Some(rest / self.stride + 1),
            None => None,
        }
    }

    /// The windows over images of this size.
    pub(crate) fn over(self, height: usize, width: usize, channels: usize) -> Result<Windows> {
        match (self.count(height), self.count(width)) {
            (Some(rows), Some(columns)) => Ok(Windows {
                window: self,
                height,
                width,
                channels,
                rows,
                columns,
            }),
            _ => candle_core::bail!(
                "a window of {} does not fit on an image of {height}x{width}",
                self.size
            ),
        }
    }
}

/// The windows over images of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) window: Window,
    /// Of the image.
    pub(crate) height: usize,
    /// Of the image.
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// Rows of windows.
    pub(crate) rows: usize,
    /// Columns of windows.
    pub(crate) columns: usize,
}

impl Windows {
    /// Numbers of an image.
    pub(crate) fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Windows on an image.
    pub(crate) fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// Numbers of a window.
    pub(crate) fn patch(&self) -> usize {
        self.window.size * self.window.size * self.channels
    }

    /// The image row that a row of a window lies on, if it is inside.
    #[inline(always)]
    pub(crate) fn image_row(&self, row: usize, inner: usize) -> Option<usize> {
        (row * self.window.stride + inner)
            .checked_sub(self.window.padding)
            .filter(|&at| at < self.height)
    }

    /// The image column that a column of a window lies on, if it is inside.
    #[inline(always)]
    pub(crate) fn image_column(&self, column: usize, inner: usize) -> Option<usize> {
        (column * self.window.stride + inner)
            .checked_sub(self.window.padding)
            .filter(|&at| at < self.width)
    }

    /// The part of a window's row that lies inside of the image: its first and last (excluded)
    /// column within the window, and the image column of the first.
    #[inline(always)]
    pub(crate) fn inside(&self, column: usize) -> (usize, usize, usize) {
        let left = column * self.window.stride;
        let first = self.window.padding.saturating_sub(left).min(self.window.size);
        let last = (self.width + self.window.padding)
            .saturating_sub(left)
            .min(self.window.size)
            .max(first);
        (first, last, (left + first).saturating_sub(self.window.padding))
    }

    /// All windows of all images, in candle's ops: `[lanes, batch, height, width, channels]` to
    /// `[lanes, batch, rows * columns, size * size, channels]`, `outside` standing beyond the borders.
    pub(crate) fn gather(&self, x: &Tensor, outside: f64) -> Result<Tensor> {
        let (lanes, batch, ..) = x.dims5()?;
        let pixels = self.height * self.width;
        let border =
            Tensor::full(outside, (lanes * batch, 1, self.channels), x.device())?.to_dtype(x.dtype())?;
        let x = Tensor::cat(&[x.reshape((lanes * batch, pixels, self.channels))?, border], 1)?;
        let mut indices = Vec::with_capacity(self.count() * self.window.size * self.window.size);
        for row in 0..self.rows {
            for column in 0..self.columns {
                for inner_row in 0..self.window.size {
                    for inner_column in 0..self.window.size {
                        let at = self
                            .image_row(row, inner_row)
                            .zip(self.image_column(column, inner_column))
                            .map_or(pixels, |(row, column)| row * self.width + column);
                        indices.push(at as u32);
                    }
                }
            }
        }
        let indices = Tensor::new(indices, x.device())?;
        let places = self.window.size * self.window.size;
        x.index_select(&indices, 1)?
            .reshape((lanes, batch, self.count(), places, self.channels))
    }
}
