//! Changes to images in candle's ops: where a GPU holds the dataset, they never leave it. What goes
//! there is a few numbers for each row and column of an image.

use candle_core::{DType, Result, Tensor};

use super::host::overlap;
use super::{Area, Frame, Mix, Mixture, Placement};

/// Puts images into their frames. `grey`: `[batch, pixels]`, bytes; the result: `[batch, height,
/// width]`, grey values from 0 to 255 in f32.
pub(crate) fn place(grey: &Tensor, placements: &[Placement], frame: Frame) -> Result<Tensor> {
    let Frame { height, width } = frame;
    let mut rows = Lines::new(placements.len(), height);
    let mut columns = Lines::new(placements.len(), width);
    for (image, placement) in placements.iter().enumerate() {
        let (seen, sources) = overlap(height, placement.down);
        for (row, source) in seen.zip(sources) {
            rows.show(image, row, (image * height + source) * width);
        }
        let (seen, sources) = overlap(width, placement.right);
        for (column, source) in seen.zip(sources) {
            columns.show(image, column, if placement.flipped { width - 1 - source } else { source });
        }
        let Area { top, left, height, width } = placement.erased;
        rows.erase(image, top, height);
        columns.erase(image, left, width);
    }
    let batch = placements.len();
    let (down, across) = ((batch, height, 1), (batch, 1, width));
    let tensor =
        |values: Vec<f32>, shape: (usize, usize, usize)| Tensor::from_vec(values, shape, grey.device());
    let places = Tensor::from_vec(rows.sources, down, grey.device())?.broadcast_add(&Tensor::from_vec(
        columns.sources,
        across,
        grey.device(),
    )?)?;
    let moved = grey.flatten_all()?.index_select(&places.flatten_all()?, 0)?;
    let moved = moved.to_dtype(DType::F32)?.reshape((batch, height, width))?;
    let seen = tensor(rows.seen, down)?.broadcast_mul(&tensor(columns.seen, across)?)?;
    let erased = tensor(rows.erased, down)?.broadcast_mul(&tensor(columns.erased, across)?)?;
    moved * (seen * erased.affine(-1.0, 1.0)?)?
}

/// The rows, or the columns, of all images of a batch.
struct Lines {
    size: usize,
    /// Where each comes from.
    sources: Vec<u32>,
    /// 1 where anything comes.
    seen: Vec<f32>,
    /// 1 where the erased area is.
    erased: Vec<f32>,
}

impl Lines {
    fn new(images: usize, size: usize) -> Self {
        let count = images * size;
        Self { size, sources: vec![0; count], seen: vec![0.0; count], erased: vec![0.0; count] }
    }

    fn show(&mut self, image: usize, line: usize, source: usize) {
        self.sources[image * self.size + line] = source as u32;
        self.seen[image * self.size + line] = 1.0;
    }

    fn erase(&mut self, image: usize, first: usize, count: usize) {
        self.erased[image * self.size + first..][..count].fill(1.0);
    }
}

/// Mixes standardised images, `[batch, height, width]`, with one another.
pub(crate) fn mix(images: &Tensor, mix: &Mix, frame: Frame) -> Result<Tensor> {
    let places = Tensor::new(mix.partners.as_slice(), images.device())?;
    let partners = images.index_select(&places, 0)?;
    match mix.mixture {
        Mixture::Blend => images.affine(mix.own_share, 0.0)? + partners.affine(1.0 - mix.own_share, 0.0)?,
        Mixture::Paste(Area { top, left, height, width }) => {
            let mut mask = vec![0u8; frame.height * frame.width];
            for row in top..top + height {
                mask[row * frame.width + left..][..width].fill(1);
            }
            let mask = Tensor::from_vec(mask, (1, frame.height, frame.width), images.device())?;
            mask.broadcast_as(images.shape())?.where_cond(&partners, images)
        }
    }
}
