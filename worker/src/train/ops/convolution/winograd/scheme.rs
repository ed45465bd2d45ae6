//! The matrices of the transforms, multiplied out, and how rows of numbers go through them.

use std::marker::PhantomData;

use crate::train::element::Element;
use crate::train::matrix::Write;
use crate::train::simd::{self, Vector, VectorLoop, Vectors};

/// F(2, R): two results from `S = R + 1` pixels and `R` weights, along one side of a tile.
///
/// With `d` pixels and `g` weights, the results `y[i] = Σ g[j] d[i + j]` are `Aᵀ [(G g) ⊙ (Bᵀ d)]`. A method
/// of Toom and Cook: a product of polynomials, evaluated at `S - 1` points and at infinity.
pub(super) trait Scheme<const R: usize, const S: usize> {
    /// `G`, and its transpose.
    type Weights: Map<R, S>;
    type WeightsBack: Map<S, R>;
    /// `Bᵀ`, and its transpose.
    type Pixels: Map<S, S>;
    type PixelsBack: Map<S, S>;
    /// `Aᵀ`, and its transpose.
    type Results: Map<S, 2>;
    type ResultsBack: Map<2, S>;
}

/// A linear map of `N` numbers to `M`, for as many at a time as a vector holds.
pub(super) trait Map<const N: usize, const M: usize> {
    fn of<T, V: Vector<T>>(input: [V; N]) -> [V; M];
}

macro_rules! map {
    ($name:ident, $n:literal to $m:literal: |$($input:ident),+| $output:expr) => {
        pub(super) struct $name;

        impl Map<$n, $m> for $name {
            #[inline(always)]
            fn of<T, V: Vector<T>>([$($input),+]: [V; $n]) -> [V; $m] {
                $output
            }
        }
    };
}

/// Windows of 3x3, at the points 0, 1 and -1.
pub(super) struct Three;

impl Scheme<3, 4> for Three {
    type Weights = Weights3;
    type WeightsBack = WeightsBack3;
    type Pixels = Pixels3;
    type PixelsBack = PixelsBack3;
    type Results = Results3;
    type ResultsBack = ResultsBack3;
}

map!(Weights3, 3 to 4: |g0, g1, g2| [g0, (g0 + g2 + g1) * 0.5, (g0 + g2 - g1) * 0.5, g2]);
map!(WeightsBack3, 4 to 3: |u0, u1, u2, u3| [u0 + (u1 + u2) * 0.5, (u1 - u2) * 0.5, (u1 + u2) * 0.5 + u3]);
map!(Pixels3, 4 to 4: |d0, d1, d2, d3| [d0 - d2, d1 + d2, d2 - d1, d1 - d3]);
map!(PixelsBack3, 4 to 4: |v0, v1, v2, v3| [v0, v1 - v2 + v3, v1 + v2 - v0, v3 * -1.0]);
map!(Results3, 4 to 2: |m0, m1, m2, m3| [m0 + m1 + m2, m1 - m2 - m3]);
map!(ResultsBack3, 2 to 4: |y0, y1| [y0, y0 + y1, y0 - y1, y1 * -1.0]);

/// Windows of 5x5, at the points 0, `NEAR`, `-NEAR`, `FAR` and `-FAR`.
///
/// How much rounding grows depends on the points. Of all pairs of multiples of 1/8 up to 2, these came out best
/// over the results and both gradients together: about a third of the errors that the usual 1 and 2 give.
pub(super) struct Five;

impl Scheme<5, 6> for Five {
    type Weights = Weights5;
    type WeightsBack = WeightsBack5;
    type Pixels = Pixels5;
    type PixelsBack = PixelsBack5;
    type Results = Results5;
    type ResultsBack = ResultsBack5;
}

const NEAR: f64 = 0.75;
const FAR: f64 = 1.375;
/// Their squares.
const NEAR2: f64 = NEAR * NEAR;
const FAR2: f64 = FAR * FAR;
/// What the weights are divided by at 0 and at each pair of points.
const AT_ZERO: f64 = 1.0 / (NEAR2 * FAR2);
const AT_NEAR: f64 = 1.0 / (2.0 * NEAR2 * (NEAR2 - FAR2));
const AT_FAR: f64 = 1.0 / (2.0 * FAR2 * (FAR2 - NEAR2));

map!(Weights5, 5 to 6: |g0, g1, g2, g3, g4| {
    let (even_near, odd_near) = (g0 + g2 * NEAR2 + g4 * (NEAR2 * NEAR2), g1 * NEAR + g3 * (NEAR * NEAR2));
    let (even_far, odd_far) = (g0 + g2 * FAR2 + g4 * (FAR2 * FAR2), g1 * FAR + g3 * (FAR * FAR2));
    [
        g0 * AT_ZERO,
        (even_near + odd_near) * AT_NEAR,
        (even_near - odd_near) * AT_NEAR,
        (even_far + odd_far) * AT_FAR,
        (even_far - odd_far) * AT_FAR,
        g4,
    ]
});
map!(WeightsBack5, 6 to 5: |u0, u1, u2, u3, u4, u5| {
    let (even_near, odd_near) = ((u1 + u2) * AT_NEAR, (u1 - u2) * (NEAR * AT_NEAR));
    let (even_far, odd_far) = ((u3 + u4) * AT_FAR, (u3 - u4) * (FAR * AT_FAR));
    [
        u0 * AT_ZERO + even_near + even_far,
        odd_near + odd_far,
        even_near * NEAR2 + even_far * FAR2,
        odd_near * NEAR2 + odd_far * FAR2,
        even_near * (NEAR2 * NEAR2) + even_far * (FAR2 * FAR2) + u5,
    ]
});
map!(Pixels5, 6 to 6: |d0, d1, d2, d3, d4, d5| {
    let (even_near, odd_near) = (d4 - d2 * FAR2, (d3 - d1 * FAR2) * NEAR);
    let (even_far, odd_far) = (d4 - d2 * NEAR2, (d3 - d1 * NEAR2) * FAR);
    [
        d4 - d2 * (NEAR2 + FAR2) + d0 * (NEAR2 * FAR2),
        even_near + odd_near,
        even_near - odd_near,
        even_far + odd_far,
        even_far - odd_far,
        d5 - d3 * (NEAR2 + FAR2) + d1 * (NEAR2 * FAR2),
    ]
});
map!(PixelsBack5, 6 to 6: |v0, v1, v2, v3, v4, v5| {
    let (even_near, odd_near) = (v1 + v2, (v1 - v2) * NEAR);
    let (even_far, odd_far) = (v3 + v4, (v3 - v4) * FAR);
    [
        v0 * (NEAR2 * FAR2),
        v5 * (NEAR2 * FAR2) - odd_near * FAR2 - odd_far * NEAR2,
        v0 * -(NEAR2 + FAR2) - even_near * FAR2 - even_far * NEAR2,
        odd_near + odd_far - v5 * (NEAR2 + FAR2),
        v0 + even_near + even_far,
        v5,
    ]
});
map!(Results5, 6 to 2: |m0, m1, m2, m3, m4, m5| {
    [m0 + (m1 + m2) + (m3 + m4), (m1 - m2) * NEAR + (m3 - m4) * FAR + m5]
});
map!(ResultsBack5, 2 to 6: |y0, y1| {
    let (near, far) = (y1 * NEAR, y1 * FAR);
    [y0, y0 + near, y0 - near, y0 + far, y0 - far, y1]
});

/// Puts the first `count` numbers of `N` rows through a map, to `M` rows. To be called under
/// [`simd::dispatch_by`].
#[inline(always)]
pub(super) fn transform<'a, T: Element, F: Map<N, M>, const N: usize, const M: usize>(
    vectors: Vectors,
    count: usize,
    from: impl Iterator<Item = &'a [T]>,
    to: impl Iterator<Item = &'a mut [T]>,
    write: Write,
) {
    let mut rows = Rows { from: [std::ptr::null(); N], to: [std::ptr::null_mut(); M], write };
    let mut found = 0;
    for (row, from) in rows.from.iter_mut().zip(from) {
        *row = from[..count].as_ptr();
        found += 1;
    }
    for (row, to) in rows.to.iter_mut().zip(to) {
        *row = to[..count].as_mut_ptr();
        found += 1;
    }
    assert_eq!(found, N + M, "rows of a transform");
    let mut work = Transform { rows, map: PhantomData::<F> };
    // SAFETY: every row has so many numbers.
    unsafe { simd::run(vectors, count, &mut work) }
}

struct Rows<T, const N: usize, const M: usize> {
    from: [*const T; N],
    to: [*mut T; M],
    write: Write,
}

struct Transform<T, F, const N: usize, const M: usize> {
    rows: Rows<T, N, M>,
    map: PhantomData<F>,
}

impl<T: Element, F: Map<N, M>, const N: usize, const M: usize> VectorLoop<T> for Transform<T, F, N, M> {
    #[inline(always)]
    unsafe fn step<V: Vector<T>>(&mut self, at: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            let mut input = [V::load(self.rows.from[0].add(at)); N];
            for (input, from) in input.iter_mut().zip(&self.rows.from) {
                *input = V::load(from.add(at));
            }
            for (output, to) in F::of(input).into_iter().zip(&self.rows.to) {
                let to = to.add(at);
                match self.rows.write {
                    Write::Replace => output.store(to),
                    Write::Add => (V::load(to) + output).store(to),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::simd::One;

    /// A map's matrix, by one unit vector after the other: its columns.
    fn columns<F: Map<N, M>, const N: usize, const M: usize>() -> [[f64; M]; N] {
        std::array::from_fn(|column| {
            // SAFETY: numbers outside of registers need nothing.
            let number = |at| unsafe { <One<f64> as Vector<f64>>::all(f64::from(at == column)) };
            F::of::<f64, One<f64>>(std::array::from_fn(number)).map(|number| {
                let mut stored = 0.0;
                // SAFETY: as above.
                unsafe { Vector::<f64>::store(number, &mut stored) };
                stored
            })
        })
    }

    fn assert_equal(what: &str, given: f64, expected: f64) {
        assert!((given - expected).abs() < 1e-12, "{what}: {given}, not {expected}");
    }

    fn check<W: Scheme<R, S>, const R: usize, const S: usize>() {
        let weights = columns::<W::Weights, R, S>();
        let pixels = columns::<W::Pixels, S, S>();
        let results = columns::<W::ResultsBack, 2, S>();
        for (pixel, of_pixel) in pixels.iter().enumerate() {
            for (weight, of_weight) in weights.iter().enumerate() {
                for (result, of_result) in results.iter().enumerate() {
                    let places = of_pixel.iter().zip(of_weight).zip(of_result);
                    let sum: f64 = places.map(|((pixel, weight), result)| pixel * weight * result).sum();
                    let what = format!("{R}: pixel {pixel}, weight {weight}, result {result}");
                    assert_equal(&what, sum, f64::from(pixel == result + weight));
                }
            }
        }
        check_transposed(&weights, &columns::<W::WeightsBack, S, R>());
        check_transposed(&pixels, &columns::<W::PixelsBack, S, S>());
        check_transposed(&results, &columns::<W::Results, S, 2>());
    }

    fn check_transposed<const N: usize, const M: usize>(there: &[[f64; M]; N], back: &[[f64; N]; M]) {
        for (column, there) in there.iter().enumerate() {
            for (row, (there, back)) in there.iter().zip(back).enumerate() {
                assert_equal(&format!("{N} to {M}, row {row}, column {column}"), *there, back[column]);
            }
        }
    }

    #[test]
    fn the_maps_give_the_sums_of_a_convolution_and_go_back_transposed() {
        check::<Three, 3, 4>();
        check::<Five, 5, 6>();
    }

    #[test]
    fn rows_of_any_length_are_transformed() {
        for count in [1, 16, 37] {
            let rows: [Vec<f32>; 4] =
                std::array::from_fn(|row| (0..count).map(|at| (10 * row + at) as f32).collect());
            let mut out = [vec![1.0; count], vec![1.0; count]];
            simd::dispatch_by(
                #[inline(always)]
                |vectors| {
                    let (from, to) =
                        (rows.iter().map(|row| &row[..]), out.iter_mut().map(|row| &mut row[..]));
                    transform::<_, Results3, 4, 2>(vectors, count, from, to, Write::Add);
                },
            );
            for at in 0..count {
                let at_row = |row: usize| rows[row][at];
                assert_eq!(out[0][at], 1.0 + at_row(0) + at_row(1) + at_row(2), "{count}");
                assert_eq!(out[1][at], 1.0 + at_row(1) - at_row(2) - at_row(3), "{count}");
            }
        }
    }
}
