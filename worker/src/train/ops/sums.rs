//! Sums with a fixed order: the same bits whatever the instruction set, and precise over many rows.
//!
//! All of this is `#[inline(always)]`, to be called under [`crate::train::simd::dispatch`].

use crate::train::element::Element;

/// How many numbers are added up in their own precision before they go into a sum in f64.
const BLOCK: usize = 64;

/// For each of `N` quantities, its sum over the rows of `[rows, columns]` matrices, per column.
///
/// `row_of` gives the `M` rows to look at, `quantities` what to add at one column of them.
#[inline(always)]
pub(crate) fn column_sums<'a, T: Element, const M: usize, const N: usize>(
    rows: usize,
    columns: usize,
    row_of: impl Fn(usize) -> [&'a [T]; M],
    quantities: impl Fn([T; M]) -> [T; N],
) -> [Vec<f64>; N] {
    let mut totals: [Vec<f64>; N] = std::array::from_fn(|_| vec![0.0; columns]);
    let mut sums: [Vec<T>; N] = std::array::from_fn(|_| vec![T::zero(); columns]);
    for first in (0..rows).step_by(BLOCK) {
        for row in first..rows.min(first + BLOCK) {
            let inputs = row_of(row).map(|input| &input[..columns]);
            let sums = sums.each_mut().map(|sum| &mut sum[..columns]);
            for column in 0..columns {
                let numbers = quantities(inputs.map(|input| input[column]));
                for quantity in 0..N {
                    sums[quantity][column] += numbers[quantity];
                }
            }
        }
        for (total, sum) in totals.iter_mut().zip(&mut sums) {
            for (total, sum) in total.iter_mut().zip(sum) {
                *total += sum.to_f64();
                *sum = T::zero();
            }
        }
    }
    totals
}

/// Mean and biased variance of each column of a `[rows, columns]` matrix, which is read once.
///
/// Each block of rows has its own, which are put together by the formula of Chan, Golub and LeVeque
/// (1979), so that the numbers may lie far from zero.
#[inline(always)]
pub(crate) fn column_moments<'a, T: Element>(
    rows: usize,
    columns: usize,
    row_of: impl Fn(usize) -> &'a [T],
) -> (Vec<f64>, Vec<f64>) {
    let (mut means, mut squares) = (vec![0.0; columns], vec![0.0; columns]);
    let (mut centre, mut sums) = (vec![T::zero(); columns], vec![T::zero(); columns]);
    for first in (0..rows).step_by(BLOCK) {
        let block = first..rows.min(first + BLOCK);
        let count = block.len() as f64;
        let sums = &mut sums[..columns];
        sums.fill(T::zero());
        for row in block.clone() {
            let row = &row_of(row)[..columns];
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
            let row = &row_of(row)[..columns];
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

/// The sum of each of `N` quantities along `M` slices of equal length.
#[inline(always)]
pub(crate) fn row_sums<T: Element, const M: usize, const N: usize>(
    inputs: [&[T]; M],
    quantities: impl Fn([T; M]) -> [T; N],
) -> [f64; N] {
    /// Sums that run beside each other, so that they fill a vector.
    const STRIPES: usize = 16;
    let count = inputs[0].len();
    let mut totals = [0.0; N];
    for first in (0..count).step_by(STRIPES * BLOCK) {
        let block = inputs.map(|input| &input[first..count.min(first + STRIPES * BLOCK)]);
        let whole = block[0].len() / STRIPES * STRIPES;
        let mut sums = [[T::zero(); STRIPES]; N];
        for start in (0..whole).step_by(STRIPES) {
            let chunk = block.map(|input| &input[start..start + STRIPES]);
            for stripe in 0..STRIPES {
                let numbers = quantities(chunk.map(|input| input[stripe]));
                for quantity in 0..N {
                    sums[quantity][stripe] += numbers[quantity];
                }
            }
        }
        for index in whole..block[0].len() {
            let numbers = quantities(block.map(|input| input[index]));
            for quantity in 0..N {
                sums[quantity][index - whole] += numbers[quantity];
            }
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total += sum.iter().map(|number| number.to_f64()).sum::<f64>();
        }
    }
    totals
}

/// Numbers in the precision of training.
pub(crate) fn narrowed<T: Element>(numbers: &[f64]) -> Vec<T> {
    numbers.iter().map(|&number| T::from_f64(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_far_from_zero_are_exact() {
        let numbers: Vec<f32> = (0..1_000).map(|number| 1_000.0 + number as f32 / 8.0).collect();
        let (mean, variance) = column_moments(500, 2, |row| &numbers[2 * row..]);
        // Each column has every other number of 1,000 + k / 8: 500 of them, a quarter apart.
        for (column, expected) in [1_062.375, 1_062.5].into_iter().enumerate() {
            assert!((mean[column] - expected).abs() < 1e-4, "column {column}: {}", mean[column]);
            let exact = (500.0 * 500.0 - 1.0) / 12.0 / 16.0;
            assert!((variance[column] - exact).abs() < 1e-5 * exact, "column {column}: {}", variance[column]);
        }
    }

    #[test]
    fn sums_are_exact_where_plain_f32_addition_is_not() {
        let numbers = vec![0.1f32; 1_000_003];
        let expected = 0.1f32 as f64 * numbers.len() as f64;
        let [along] = row_sums([&numbers[..]], |[number]| [number]);
        let [down] = column_sums(numbers.len(), 1, |row| [&numbers[row..]], |[number]| [number]);
        for (name, sum) in [("row", along), ("column", down[0])] {
            assert!((sum - expected).abs() < 1e-6 * expected, "{name}: {sum}");
        }
    }
}
