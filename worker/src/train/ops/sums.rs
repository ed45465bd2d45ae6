//! Sums along slices, with a fixed order: the same bits whatever the instruction set, and precise however many
//! numbers there are. Those over the rows of matrices are in [`super::columns`].
//!
//! All of this is `#[inline(always)]`, to be called under [`crate::train::simd::dispatch`].

use crate::train::element::Element;

/// How many numbers are added up in their own precision before they go into a sum in f64.
pub(super) const BLOCK: usize = 64;

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
    use super::super::columns::column_sums;
    use super::*;

    #[test]
    fn sums_are_exact_where_plain_f32_addition_is_not() {
        let numbers = vec![0.1f32; 1_000_003];
        let expected = 0.1f32 as f64 * numbers.len() as f64;
        let [along] = row_sums([&numbers[..]], |[number]| [number]);
        let [down] = column_sums(1, [&numbers], [], |[number], []| [number]);
        for (name, sum) in [("row", along), ("column", down[0])] {
            assert!((sum - expected).abs() < 1e-6 * expected, "{name}: {sum}");
        }
    }
}
