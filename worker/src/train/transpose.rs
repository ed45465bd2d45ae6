//! Transposed copies of matrices, fast enough that a product may ask for one.
//!
//! The `gemm` crate transposes what it must number by number, which for layers of some hundred units
//! takes a sixth of their time. In vector registers it is nearly free.

use std::mem::MaybeUninit;

use super::element::{Element, append};
use super::simd;

/// The transpose of a row-major matrix.
pub(crate) fn transpose<T: Element>(numbers: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = Vec::new();
    append_transpose(&mut out, numbers, rows, columns);
    out
}

/// Appends the [`transpose`]. Nothing is filled with zeros first.
pub(crate) fn append_transpose<T: Element>(out: &mut Vec<T>, numbers: &[T], rows: usize, columns: usize) {
    // SAFETY: a transpose has a number for every place.
    unsafe { append(out, rows * columns, |out| write_transpose(numbers, rows, columns, out)) }
}

/// Writes the transpose to every place of `out`.
fn write_transpose<T: Element>(numbers: &[T], rows: usize, columns: usize, out: &mut [MaybeUninit<T>]) {
    assert_eq!(numbers.len(), rows * columns, "{rows} rows of {columns}");
    assert_eq!(out.len(), rows * columns, "{rows} rows of {columns}");
    #[cfg(target_arch = "x86_64")]
    if let (Some(numbers), Some(out)) = (T::as_f32(numbers), T::as_f32_places(out)) {
        match simd::vectors() {
            simd::Vectors::Avx512 if rows.min(columns) >= x86::WIDE => {
                // SAFETY: the CPU has the features, and the sizes were checked.
                return unsafe { x86::transpose_wide(numbers, rows, columns, out) };
            }
            simd::Vectors::Avx512 | simd::Vectors::Avx2 if rows.min(columns) >= x86::NARROW => {
                // SAFETY: likewise.
                return unsafe { x86::transpose_narrow(numbers, rows, columns, out) };
            }
            _ => {}
        }
    }
    plain(numbers, rows, columns, out);
}

fn plain<T: Element>(numbers: &[T], rows: usize, columns: usize, out: &mut [MaybeUninit<T>]) {
    /// Rows and columns that are moved together, so that the lines of the cache on both sides stay there.
    const BLOCK: usize = 16;
    simd::dispatch(
        #[inline(always)]
        || {
            for first_row in (0..rows).step_by(BLOCK) {
                let block = first_row..rows.min(first_row + BLOCK);
                for first in (0..columns).step_by(BLOCK) {
                    for column in first..columns.min(first + BLOCK) {
                        let out = &mut out[column * rows..][block.clone()];
                        for (out, row) in out.iter_mut().zip(block.clone()) {
                            out.write(numbers[row * columns + column]);
                        }
                    }
                }
            }
        },
    );
}

/// Square tiles in registers. Interleaving row `i` with row `i + n / 2` for all of the first `n / 2`
/// rows, log2(n) times, transposes a tile of `n` rows. The last tiles of a matrix overlap the ones
/// before where its sizes are no multiples.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
        _mm512_loadu_ps, _mm512_permutex2var_ps, _mm512_setr_epi32, _mm512_storeu_ps,
    };

    /// A place for a number.
    type Place = std::mem::MaybeUninit<f32>;

    /// Rows and columns of a tile with AVX-512.
    pub(super) const WIDE: usize = 16;
    /// Rows and columns of a tile with AVX2.
    pub(super) const NARROW: usize = 8;

    /// Where the tiles along one side begin.
    #[inline(always)]
    fn starts<const TILE: usize>(count: usize) -> impl Iterator<Item = usize> {
        (0..count).step_by(TILE).map(move |start| start.min(count - TILE))
    }

    /// # Safety
    ///
    /// Both slices must have `rows * columns` numbers, and both sizes be at least [`WIDE`]. Every place is written.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose_wide(numbers: &[f32], rows: usize, columns: usize, out: &mut [Place]) {
        let lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let upper = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        // Columns outermost: what is written then lies close together, which matters more than what is read.
        for column in starts::<WIDE>(columns) {
            for row in starts::<WIDE>(rows) {
                let from = |inner: usize| numbers.as_ptr().wrapping_add((row + inner) * columns + column);
                // SAFETY: the tile lies within the matrix.
                let mut tile: [_; WIDE] =
                    std::array::from_fn(|inner| unsafe { _mm512_loadu_ps(from(inner)) });
                for _ in 0..WIDE.ilog2() {
                    let before = tile;
                    for half in 0..WIDE / 2 {
                        let (first, second) = (before[half], before[half + WIDE / 2]);
                        tile[2 * half] = _mm512_permutex2var_ps(first, lower, second);
                        tile[2 * half + 1] = _mm512_permutex2var_ps(first, upper, second);
                    }
                }
                for (inner, line) in tile.into_iter().enumerate() {
                    let to = out.as_mut_ptr().wrapping_add((column + inner) * rows + row);
                    // SAFETY: the tile lies within the transpose.
                    unsafe { _mm512_storeu_ps(to.cast(), line) };
                }
            }
        }
    }

    /// # Safety
    ///
    /// Both slices must have `rows * columns` numbers, and both sizes be at least [`NARROW`]. Every place is written.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_narrow(numbers: &[f32], rows: usize, columns: usize, out: &mut [Place]) {
        for column in starts::<NARROW>(columns) {
            for row in starts::<NARROW>(rows) {
                let from = |inner: usize| numbers.as_ptr().wrapping_add((row + inner) * columns + column);
                // SAFETY: the tile lies within the matrix.
                let mut tile: [_; NARROW] =
                    std::array::from_fn(|inner| unsafe { _mm256_loadu_ps(from(inner)) });
                for _ in 0..NARROW.ilog2() {
                    let before = tile;
                    for half in 0..NARROW / 2 {
                        let (first, second) = (before[half], before[half + NARROW / 2]);
                        let lower = _mm256_unpacklo_ps(first, second);
                        let upper = _mm256_unpackhi_ps(first, second);
                        tile[2 * half] = _mm256_permute2f128_ps::<0x20>(lower, upper);
                        tile[2 * half + 1] = _mm256_permute2f128_ps::<0x31>(lower, upper);
                    }
                }
                for (inner, line) in tile.into_iter().enumerate() {
                    let to = out.as_mut_ptr().wrapping_add((column + inner) * rows + row);
                    // SAFETY: the tile lies within the transpose.
                    unsafe { _mm256_storeu_ps(to.cast(), line) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each size a matrix whose numbers are all different, and where each must come to lie.
    fn check(name: &str, transpose: impl Fn(&[f32], usize, usize, &mut [MaybeUninit<f32>])) {
        for (rows, columns) in [(16, 16), (8, 300), (17, 31), (64, 33), (300, 48), (100, 10), (1, 5)] {
            let numbers: Vec<f32> = (0..rows * columns).map(|number| number as f32).collect();
            let mut out = vec![MaybeUninit::new(f32::NAN); rows * columns];
            transpose(&numbers, rows, columns, &mut out);
            for row in 0..rows {
                for column in 0..columns {
                    // SAFETY: every place had a number before.
                    let found = unsafe { out[column * rows + row].assume_init() };
                    let expected = numbers[row * columns + column];
                    assert_eq!(found, expected, "{name}: {rows} rows of {columns}, at {row} and {column}");
                }
            }
        }
    }

    #[test]
    fn every_number_lands_at_its_place() {
        check("as this CPU does it", write_transpose);
        check("plain", plain);
        #[cfg(target_arch = "x86_64")]
        if simd::vectors() != simd::Vectors::Baseline {
            check("AVX2", |numbers, rows, columns, out| match rows.min(columns) {
                // SAFETY: the CPU has the features.
                x86::NARROW.. => unsafe { x86::transpose_narrow(numbers, rows, columns, out) },
                _ => plain(numbers, rows, columns, out),
            });
        }
    }
}
