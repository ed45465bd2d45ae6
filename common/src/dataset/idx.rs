//! The IDX format, after its description by LeCun, Cortes and Burges on the MNIST page: two zero bytes, a type (8 is
//! `u8`), the number of dimensions, each dimension as a big-endian `u32`, then the data.

/// A parsed IDX file of unsigned bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx<'a> {
    /// The size of each dimension, the outermost first.
    pub dimensions: Vec<usize>,
    /// The values, as many as the dimensions' product.
    pub data: &'a [u8],
}

/// Why bytes are not a usable IDX file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdxError {
    /// The first bytes are not those of an IDX file of unsigned bytes.
    #[error("it does not begin as an IDX file of unsigned bytes does (00 00 08); is it still packed?")]
    Magic,
    /// The file ends within its header.
    #[error("it ends within its header, after {bytes} bytes; fetch it again")]
    ShortHeader {
        /// The size of the file.
        bytes: usize,
    },
    /// The file does not hold what its header claims.
    #[error("its data ends after {found} of {claimed} bytes; fetch it again")]
    Truncated {
        /// Bytes of data that are there.
        found: usize,
        /// Bytes of data that the header claims.
        claimed: u128,
    },
    /// The file goes on after its data.
    #[error("it goes on for {extra} bytes after its data")]
    Trailing {
        /// Bytes too many.
        extra: usize,
    },
    /// The file has another number of dimensions than its role asks for.
    #[error("it has {found} dimensions where {needed} are needed")]
    Dimensions {
        /// The number it has.
        found: usize,
        /// The number it should have.
        needed: usize,
    },
    /// Images without rows or columns, or too large to be meant.
    #[error("its images are {height}x{width}; 1 to {max} rows and columns are usable", max = Idx::MAX_SIDE)]
    ImageSize {
        /// Rows of an image.
        height: usize,
        /// Columns of an image.
        width: usize,
    },
}

impl<'a> Idx<'a> {
    /// The most rows or columns of an image.
    pub const MAX_SIDE: usize = 1024;

    /// How many bytes come before the data of a file of so many dimensions.
    pub const fn header_bytes(dimensions: usize) -> usize {
        4 + 4 * dimensions
    }

    /// Reads an IDX file. Nothing is allocated by what it claims.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IdxError> {
        let short = IdxError::ShortHeader { bytes: bytes.len() };
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(short);
        };
        let [0, 0, 8, rank] = *magic else {
            return Err(IdxError::Magic);
        };
        let header = usize::from(rank) * 4;
        if rest.len() < header {
            return Err(short);
        }
        let (sizes, data) = rest.split_at(header);
        let dimensions: Vec<usize> = sizes
            .chunks_exact(4)
            .map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize)
            .collect();
        let claimed = dimensions.iter().fold(1_u128, |product, &size| product.saturating_mul(size as u128));
        if (data.len() as u128) < claimed {
            return Err(IdxError::Truncated { found: data.len(), claimed });
        }
        if (data.len() as u128) > claimed {
            return Err(IdxError::Trailing { extra: data.len() - claimed as usize });
        }
        Ok(Self { dimensions, data })
    }

    /// Number, rows and columns of the images that this file holds.
    pub fn images(&self) -> Result<(usize, usize, usize), IdxError> {
        match self.dimensions[..] {
            [count, height, width] => {
                let usable = 1..=Self::MAX_SIDE;
                if usable.contains(&height) && usable.contains(&width) {
                    Ok((count, height, width))
                } else {
                    Err(IdxError::ImageSize { height, width })
                }
            }
            _ => Err(IdxError::Dimensions { found: self.dimensions.len(), needed: 3 }),
        }
    }

    /// Number of the labels that this file holds.
    pub fn labels(&self) -> Result<usize, IdxError> {
        match self.dimensions[..] {
            [count] => Ok(count),
            _ => Err(IdxError::Dimensions { found: self.dimensions.len(), needed: 1 }),
        }
    }
}
