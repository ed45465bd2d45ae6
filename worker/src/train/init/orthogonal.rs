//! Orthonormal vectors out of any others, as the QR decomposition gives them.

use crate::train::matrix::{Matrix, Write, multiply};
use crate::train::ops::sums::row_sums;
use crate::train::simd;

/// Vectors that are taken together: their products with all earlier ones are matrix products.
const PANEL: usize = 32;

/// The matrix whose rows, or columns where there are no more of these, are orthonormal vectors made of
/// the given ones, which follow one another. Row-major.
pub(crate) fn orthogonal(mut vectors: Vec<f64>, rows: usize, columns: usize) -> Vec<f64> {
    orthonormalize(&mut vectors, rows.max(columns));
    if rows < columns {
        return vectors;
    }
    (0..rows).flat_map(|row| vectors.iter().skip(row).step_by(rows).copied()).collect()
}

/// Makes the rows of a row-major matrix orthonormal, each within the span of itself and those
/// before it, and with a positive product with what it was: the Q of a QR decomposition of the
/// transpose whose R has a positive diagonal, which makes it unique.
///
/// By block Gram-Schmidt, each panel twice, which is enough for orthogonality to the last bits
/// unless the rows depend on each other to within rounding. There must be at most `length` of them.
fn orthonormalize(rows: &mut [f64], length: usize) {
    let count = rows.len() / length;
    for first in (0..count).step_by(PANEL) {
        let (done, rest) = rows.split_at_mut(first * length);
        let panel = &mut rest[..PANEL.min(count - first) * length];
        for _ in 0..2 {
            remove(done, panel, length);
            for index in 0..panel.len() / length {
                let (before, row) = panel.split_at_mut(index * length);
                orthonormalize_row(before, &mut row[..length]);
            }
        }
    }
}

/// Takes all parts along orthonormal directions out of the rows of a panel.
fn remove(directions: &[f64], panel: &mut [f64], length: usize) {
    if directions.is_empty() {
        return;
    }
    let (count, rows) = (directions.len() / length, panel.len() / length);
    let directions = Matrix::new(directions, count, length);
    let mut parts = vec![0.0; rows * count];
    multiply(&mut parts, Write::Replace, Matrix::new(panel, rows, length), directions.transposed());
    parts.iter_mut().for_each(|part| *part = -*part);
    multiply(panel, Write::Add, Matrix::new(&parts, rows, count), directions);
}

fn orthonormalize_row(before: &[f64], row: &mut [f64]) {
    simd::dispatch(
        #[inline(always)]
        || {
            for direction in before.chunks_exact(row.len()) {
                let [part] = row_sums([&*row, direction], |[value, direction]| [value * direction]);
                for (value, direction) in row.iter_mut().zip(direction) {
                    *value -= part * direction;
                }
            }
            let [square] = row_sums([&*row], |[value]| [value * value]);
            let inverse = square.sqrt().recip();
            row.iter_mut().for_each(|value| *value *= inverse);
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{flat, numbers};

    #[test]
    fn rows_become_orthonormal_and_keep_the_span_of_those_before() {
        for (name, count, length) in [
            ("one", 1, 7),
            ("square", 5, 5),
            ("wide", 3, 1100),
            ("several panels", 2 * PANEL + 5, 2 * PANEL + 9),
            ("panels and no more", 2 * PANEL, 2 * PANEL),
        ] {
            let given = flat(&numbers(name, &[count, length]));
            let mut rows = given.clone();
            orthonormalize(&mut rows, length);
            let product = |left: &[f64], right: &[f64]| -> f64 {
                left.iter().zip(right).map(|(left, right)| left * right).sum()
            };
            for (i, row) in rows.chunks_exact(length).enumerate() {
                for (j, other) in rows.chunks_exact(length).enumerate() {
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((product(row, other) - expected).abs() < 1e-14, "{name}: {i} {j}");
                }
                // A given vector has no part along later directions, and a positive one along its own.
                for (j, given) in given.chunks_exact(length).enumerate() {
                    let part = product(row, given);
                    assert!(
                        j > i || (if j == i { part > 0.0 } else { part.abs() < 1e-12 }),
                        "{name}: {i} {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_that_almost_depend_on_each_other_become_orthonormal_too() {
        // Once over would leave products of about 1e-16 / 1e-9.
        let mut rows = flat(&numbers("direction", &[1, 50])).repeat(3);
        let noise = flat(&numbers("noise", &[3, 50]));
        rows.iter_mut().zip(&noise).for_each(|(value, noise)| *value += 1e-9 * noise);
        orthonormalize(&mut rows, 50);
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            let pairs = rows[i * 50..][..50].iter().zip(&rows[j * 50..][..50]);
            let product: f64 = pairs.map(|(left, right)| left * right).sum();
            assert!(product.abs() < 1e-15, "{i} {j}: {product}");
        }
    }
}
