//! What is done to matrices column by column, each of which has numbers of its own: sums, moments, new matrices.
//!
//! Sums have a fixed order: the same bits whatever the instruction set, and precise over many rows. Columns are
//! worked on some at a time where the compiler then keeps their sums and numbers in registers from row to row.
//!
//! All of this is `#[inline(always)]`, to be called under [`crate::train::simd::dispatch`].

use std::array;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::sums::BLOCK;
use crate::train::element::{Element, append};
use crate::train::simd;

/// Columns of a matrix whose rows are long enough to be worked on one after the other, where nothing is added up.
const WIDE: usize = 96;

/// Work on all columns of row-major matrices.
trait Stripes {
    /// Works on `WIDTH` columns from this one, in these rows.
    fn stripe<const WIDTH: usize>(&mut self, rows: Range<usize>, first: usize);
}

/// Does the work, in blocks of rows that stay in the cache.
#[inline(always)]
fn in_stripes(rows: usize, columns: usize, mut work: impl Stripes) {
    for first in (0..rows).step_by(BLOCK) {
        let block = first..rows.min(first + BLOCK);
        let mut column = 0;
        while column + 32 <= columns {
            work.stripe::<32>(block.clone(), column);
            column += 32;
        }
        while column + 8 <= columns {
            work.stripe::<8>(block.clone(), column);
            column += 8;
        }
        while column < columns {
            work.stripe::<1>(block.clone(), column);
            column += 1;
        }
    }
}

/// `M` matrices of so many columns, and `F` numbers of each column.
struct Matrices<'a, T, const M: usize, const F: usize> {
    columns: usize,
    matrices: [&'a [T]; M],
    of_columns: [&'a [T]; F],
}

impl<T: Element, const M: usize, const F: usize> Matrices<'_, T, M, F> {
    #[inline(always)]
    fn rows(&self) -> usize {
        self.matrices[0].len() / self.columns
    }

    /// What the columns from this one have of their own.
    #[inline(always)]
    fn own<const WIDTH: usize>(&self, first: usize) -> [[T; WIDTH]; F] {
        let mut own = [[T::zero(); WIDTH]; F];
        for (own, numbers) in own.iter_mut().zip(self.of_columns) {
            own.copy_from_slice(&numbers[first..first + WIDTH]);
        }
        own
    }

    /// A row's numbers in the columns from this one.
    #[inline(always)]
    fn row<const WIDTH: usize>(&self, row: usize, first: usize) -> [&[T]; M] {
        let at = row * self.columns + first;
        self.matrices.map(|matrix| asked_for(matrix, at, WIDTH))
    }

    /// A row's numbers.
    #[inline(always)]
    fn whole_row(&self, row: usize) -> [&[T]; M] {
        self.matrices.map(|matrix| asked_for(matrix, row * self.columns, self.columns))
    }
}

/// So many numbers from this one on. Those that come later are asked for meanwhile, if they may lie far away.
#[inline(always)]
fn asked_for<T>(matrix: &[T], at: usize, count: usize) -> &[T] {
    /// Numbers that the nearer caches do not hold.
    const LARGE: usize = 1 << 18;
    let numbers = &matrix[at..at + count];
    if count > 1 && matrix.len() >= LARGE {
        simd::prefetch_from(numbers, simd::AHEAD);
    }
    numbers
}

/// For each of `N` quantities, its sum over the rows of row-major matrices of so many columns, per column.
///
/// `quantities` has what to add, from the number in each matrix and what the column has of its own.
#[inline(always)]
pub(crate) fn column_sums<T: Element, const M: usize, const F: usize, const N: usize>(
    columns: usize,
    matrices: [&[T]; M],
    of_columns: [&[T]; F],
    quantities: impl Fn([T; M], [T; F]) -> [T; N],
) -> [Vec<f64>; N] {
    struct Sums<'a, T, Q, const M: usize, const F: usize, const N: usize> {
        of: Matrices<'a, T, M, F>,
        quantities: Q,
        totals: &'a mut [Vec<f64>; N],
    }
    impl<T: Element, Q: Fn([T; M], [T; F]) -> [T; N], const M: usize, const F: usize, const N: usize> Stripes
        for Sums<'_, T, Q, M, F, N>
    {
        #[inline(always)]
        fn stripe<const WIDTH: usize>(&mut self, rows: Range<usize>, first: usize) {
            let own = self.of.own::<WIDTH>(first);
            let mut sums = [[T::zero(); WIDTH]; N];
            for row in rows {
                let row = self.of.row::<WIDTH>(row, first);
                for at in 0..WIDTH {
                    let of_column = array::from_fn(|number| own[number][at]);
                    let numbers = (self.quantities)(row.map(|numbers| numbers[at]), of_column);
                    for quantity in 0..N {
                        sums[quantity][at] += numbers[quantity];
                    }
                }
            }
            for (totals, sums) in self.totals.iter_mut().zip(&sums) {
                let totals = &mut totals[first..first + WIDTH];
                for at in 0..WIDTH {
                    totals[at] += sums[at].to_f64();
                }
            }
        }
    }
    let mut totals: [Vec<f64>; N] = array::from_fn(|_| vec![0.0; columns]);
    let of = Matrices { columns, matrices, of_columns };
    in_stripes(of.rows(), columns, Sums { of, quantities, totals: &mut totals });
    totals
}

/// Mean and biased variance of each column of a row-major matrix of so many columns, which is read once.
///
/// Each block of rows has its own, which are put together by the formula of Chan, Golub and LeVeque
/// (1979), so that the numbers may lie far from zero.
#[inline(always)]
pub(crate) fn column_moments<T: Element>(columns: usize, matrix: &[T]) -> (Vec<f64>, Vec<f64>) {
    let of = Matrices { columns, matrices: [matrix], of_columns: [] };
    let rows = of.rows();
    let (mut means, mut squares) = (vec![0.0; columns], vec![0.0; columns]);
    let (mut centre, mut sums) = (vec![T::zero(); columns], vec![T::zero(); columns]);
    for first in (0..rows).step_by(BLOCK) {
        let block = first..rows.min(first + BLOCK);
        let count = block.len() as f64;
        let sums = &mut sums[..columns];
        sums.fill(T::zero());
        for row in block.clone() {
            let [row] = of.whole_row(row);
            for column in 0..columns {
                sums[column] += row[column];
            }
        }
        let centre = &mut centre[..columns];
        for (centre, sum) in centre.iter_mut().zip(&*sums) {
            *centre = T::from_f64(sum.to_f64() / count);
        }
        let (before, after) = (first as f64, block.end as f64);
        for (mean, (square, sum)) in means.iter_mut().zip(squares.iter_mut().zip(&*sums)) {
            let apart = sum.to_f64() / count - *mean;
            *mean += apart * count / after;
            *square += apart * apart * before * count / after;
        }
        sums.fill(T::zero());
        for row in block {
            let row = &matrix[row * columns..][..columns];
            for column in 0..columns {
                let centred = row[column] - centre[column];
                sums[column] += centred * centred;
            }
        }
        for (square, sum) in squares.iter_mut().zip(&*sums) {
            *square += sum.to_f64();
        }
    }
    for square in &mut squares {
        *square /= rows as f64;
    }
    (means, squares)
}

/// Appends the row-major matrix of what `number` makes of the number in each matrix of so many columns, and of what the
/// column has of its own.
#[inline(always)]
pub(crate) fn append_mapped<T: Element, const M: usize, const F: usize>(
    out: &mut Vec<T>,
    columns: usize,
    matrices: [&[T]; M],
    of_columns: [&[T]; F],
    number: impl Fn([T; M], [T; F]) -> T,
) {
    struct Map<'a, T, Q, const M: usize, const F: usize> {
        of: Matrices<'a, T, M, F>,
        number: Q,
        out: &'a mut [MaybeUninit<T>],
    }
    impl<T: Element, Q: Fn([T; M], [T; F]) -> T, const M: usize, const F: usize> Stripes for Map<'_, T, Q, M, F> {
        #[inline(always)]
        fn stripe<const WIDTH: usize>(&mut self, rows: Range<usize>, first: usize) {
            let own = self.of.own::<WIDTH>(first);
            for row in rows {
                let out = &mut self.out[row * self.of.columns + first..][..WIDTH];
                let row = self.of.row::<WIDTH>(row, first);
                for at in 0..WIDTH {
                    let of_column = array::from_fn(|number| own[number][at]);
                    out[at].write((self.number)(row.map(|numbers| numbers[at]), of_column));
                }
            }
        }
    }
    let of = Matrices { columns, matrices, of_columns };
    let rows = of.rows();
    // SAFETY: every column of every row is written.
    unsafe {
        append(
            out,
            rows * columns,
            #[inline(always)]
            |out| {
                if columns < WIDE {
                    in_stripes(rows, columns, Map { of, number, out });
                } else {
                    map_rows(&of, number, out);
                }
            },
        );
    }
}

/// Writes each row, one after the other.
#[inline(always)]
fn map_rows<T: Element, const M: usize, const F: usize>(
    of: &Matrices<'_, T, M, F>,
    number: impl Fn([T; M], [T; F]) -> T,
    out: &mut [MaybeUninit<T>],
) {
    let own = of.of_columns.map(|numbers| &numbers[..of.columns]);
    for (row, out) in out.chunks_exact_mut(of.columns).enumerate() {
        let row = of.whole_row(row);
        for (at, out) in out.iter_mut().enumerate() {
            // SAFETY: each has as many as there are columns, which the compiler does not see through the arrays.
            let of = |numbers: &[T]| unsafe { *numbers.get_unchecked(at) };
            out.write(number(row.map(of), own.map(of)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_far_from_zero_are_exact() {
        let numbers: Vec<f32> = (0..1_000).map(|number| 1_000.0 + number as f32 / 8.0).collect();
        let (mean, variance) = column_moments(2, &numbers);
        // Each column has every other number of 1,000 + k / 8: 500 of them, a quarter apart.
        for (column, expected) in [1_062.375, 1_062.5].into_iter().enumerate() {
            assert!((mean[column] - expected).abs() < 1e-4, "column {column}: {}", mean[column]);
            let exact = (500.0 * 500.0 - 1.0) / 12.0 / 16.0;
            assert!((variance[column] - exact).abs() < 1e-5 * exact, "column {column}: {}", variance[column]);
        }
    }

    /// Of widths that are made up of stripes in every way, and of more rows than a block has.
    #[test]
    fn all_numbers_of_all_columns_count_once() {
        for columns in [1, 7, 8, 9, 32, 43, 100] {
            let rows = BLOCK + 5;
            let numbers: Vec<f64> = (0..rows * columns).map(|at| (at * 37 % 101) as f64).collect();
            let own: Vec<f64> = (0..columns).map(|column| column as f64).collect();
            let number = |[number]: [f64; 1], [own]: [f64; 1]| number * 2.0 + own;
            let mut mapped = vec![0.5];
            append_mapped(&mut mapped, columns, [&numbers], [&own], number);
            let expected: Vec<f64> =
                numbers.iter().enumerate().map(|(at, it)| it * 2.0 + (at % columns) as f64).collect();
            assert_eq!(mapped[1..], expected[..], "{columns} columns");
            let [sums, counts] = column_sums(columns, [&numbers], [&own], |it, own| [number(it, own), 1.0]);
            let (means, _) = column_moments(columns, &expected);
            for column in 0..columns {
                let expected: f64 = expected.iter().skip(column).step_by(columns).sum();
                assert_eq!(
                    (sums[column], counts[column]),
                    (expected, rows as f64),
                    "column {column} of {columns}"
                );
                let mean = expected / rows as f64;
                assert!((means[column] - mean).abs() < 1e-12 * mean, "column {column} of {columns}");
            }
        }
    }
}
