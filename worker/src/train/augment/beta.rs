//! Draws from the symmetric beta distribution.

use std::f64::consts::TAU;

use rand::Rng;

/// A number from 0 to 1 by Beta(alpha, alpha): the first of two gamma draws' share in their sum.
pub(super) fn beta(alpha: f64, generator: &mut impl Rng) -> f64 {
    let (first, second) = (ln_gamma(alpha, generator), ln_gamma(alpha, generator));
    1.0 / (1.0 + (second - first).exp())
}

/// The logarithm of a draw from Gamma(alpha, 1), which for small alphas is often too small for a
/// number of its own. By Marsaglia and Tsang (2000): Gamma(alpha + 1) by rejection, times a uniform
/// number to the power of 1 / alpha.
fn ln_gamma(alpha: f64, generator: &mut impl Rng) -> f64 {
    let scale = alpha + 2.0 / 3.0;
    loop {
        let normal = normal(generator);
        let cube = (1.0 + normal / (9.0 * scale).sqrt()).powi(3);
        let uniform = above_zero(generator);
        if cube > 0.0 && uniform.ln() < normal * normal / 2.0 + scale * (1.0 - cube + cube.ln()) {
            return (scale * cube).ln() + above_zero(generator).ln() / alpha;
        }
    }
}

/// Box and Muller's transform.
fn normal(generator: &mut impl Rng) -> f64 {
    (-2.0 * above_zero(generator).ln()).sqrt() * (TAU * generator.random::<f64>()).cos()
}

/// A uniform number in (0, 1], where the logarithm is finite.
fn above_zero(generator: &mut impl Rng) -> f64 {
    1.0 - generator.random::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fittingroom_common::rng::Stream;

    /// The shares below 0.1 and 0.25 are the regularised incomplete beta function's.
    #[test]
    fn draws_have_the_distributions_moments_and_quantiles() {
        for (name, alpha, below_tenth, below_quarter) in [
            ("nearly one or the other", 0.001, 0.498_903, 0.499_452),
            ("mixup's for ImageNet", 0.2, 0.336_690, 0.414_056),
            ("uniform", 1.0, 0.1, 0.25),
            ("nearly halves", 20.0, 0.0, 0.000_374),
        ] {
            const COUNT: usize = 100_000;
            let mut generator = Stream::new(1).named(name).generator();
            let draws: Vec<f64> = (0..COUNT).map(|_| beta(alpha, &mut generator)).collect();
            assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)), "{name}");
            let mean =
                |of: &dyn Fn(f64) -> f64| draws.iter().map(|&draw| of(draw)).sum::<f64>() / COUNT as f64;
            let share_below = |bound: f64| mean(&|draw| f64::from(u8::from(draw < bound)));
            for (what, found, expected) in [
                ("mean", mean(&|draw| draw), 0.5),
                ("variance", mean(&|draw| (draw - 0.5).powi(2)), 1.0 / (8.0 * alpha + 4.0)),
                ("below 0.1", share_below(0.1), below_tenth),
                ("below 0.25", share_below(0.25), below_quarter),
            ] {
                // Four standard deviations of a mean of numbers between 0 and 1 are at most 0.0064.
                assert!((found - expected).abs() < 0.0064, "{name}, {what}: {found}, not {expected}");
            }
        }
    }
}
