//! One value drawn from a distribution.
//!
//! Draws use nothing of the generator but its bits, and continuous ones keep six significant digits:
//! people can read and repeat them, and a last bit in which two machines' logarithms differ is gone.

use std::f64::consts::TAU;

use fittingroom_common::hyperparameter::{Parameter, Value};
use fittingroom_common::space::{Bell, Distribution, Scale};
use rand::RngCore;

/// A draw outside the domain is repeated this often. Of a search that was checked, some in a hundred
/// lie inside.
const MOST_DRAWS: usize = 10_000;

/// A value of the hyperparameter. `None` only if the distribution was never checked.
pub(super) fn value(
    parameter: Parameter,
    distribution: &Distribution,
    generator: &mut impl RngCore,
) -> Option<Value> {
    match distribution {
        Distribution::Categorical { values, probabilities: Some(probabilities) } => {
            values.get(weighted(probabilities, unit(generator))).cloned()
        }
        Distribution::Range { scale, min, max, q: None } => {
            let drawn = between(*scale, *min, *max, unit(generator));
            let rounded = six_digits(drawn);
            let kept = if (*min..=*max).contains(&rounded) { rounded } else { drawn };
            parameter.number(kept).ok()
        }
        Distribution::Range { scale: Scale::LogUniform, min, max, q: Some(_) } => {
            let drawn = between(Scale::LogUniform, *min, *max, unit(generator));
            parameter.number(distribution.multiples()?.nearest(drawn)).ok()
        }
        Distribution::Normal { bell, mu, sigma, q } => (0..MOST_DRAWS).find_map(|_| {
            let drawn = mu + sigma * normal(generator);
            let drawn = match bell {
                Bell::Normal => drawn,
                Bell::LogNormal => drawn.exp(),
            };
            parameter
                .number(q.map_or_else(|| six_digits(drawn), |q| six_digits((drawn / q).round() * q)))
                .ok()
        }),
        Distribution::Constant(_)
        | Distribution::Categorical { probabilities: None, .. }
        | Distribution::IntUniform { .. }
        | Distribution::Range { scale: Scale::Uniform, q: Some(_), .. } => {
            let size = distribution.size()?;
            let index = (unit(generator) * size as f64) as u64;
            distribution.value(parameter, index.min(size.saturating_sub(1)))
        }
    }
}

/// A number from 0 to below 1, with 53 bits.
fn unit(generator: &mut impl RngCore) -> f64 {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    (generator.next_u64() >> 11) as f64 * STEP
}

/// The number at a share of the way from `min` to `max`.
fn between(scale: Scale, min: f64, max: f64, share: f64) -> f64 {
    let number = match scale {
        // Not min + share * (max - min), whose difference can overflow.
        Scale::Uniform => min * (1.0 - share) + max * share,
        Scale::LogUniform => (min.ln() * (1.0 - share) + max.ln() * share).exp(),
    };
    number.clamp(min, max)
}

/// A draw from the standard normal distribution, after Box and Muller (1958).
fn normal(generator: &mut impl RngCore) -> f64 {
    let (radius, angle) = (1.0 - unit(generator), unit(generator));
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

/// The place in the list whose share of the probability holds this share.
fn weighted(probabilities: &[f64], share: f64) -> usize {
    let mut left = share * probabilities.iter().sum::<f64>();
    for (index, probability) in probabilities.iter().enumerate() {
        left -= probability;
        if left < 0.0 {
            return index;
        }
    }
    // Rounding left something over: the last that can be drawn at all.
    probabilities.iter().rposition(|probability| *probability > 0.0).unwrap_or(0)
}

fn six_digits(number: f64) -> f64 {
    format!("{number:.5e}").parse().unwrap_or(number)
}
