//! Initial weights and biases, by the formulas of `torch.nn.init`.
//!
//! Xavier is after Glorot and Bengio (2010); Kaiming after He et al. (2015), with the gain of ReLU,
//! the square root of 2; orthogonal after Saxe, McClelland and Ganguli (2014). PyTorch's default is
//! that of its linear and convolution layers: weights and biases alike are uniform up to
//! `1 / sqrt(fan_in)`.

mod orthogonal;

use fittingroom_common::rng::Stream;
use rand::{Rng, RngCore};

pub(crate) use self::orthogonal::orthogonal;
use super::hyper::{BiasInitialization, FanMode, Initialization};

/// Where the truncated normal distribution ends on either side: at this value itself, whatever the
/// standard deviation, as by default in `torch.nn.init.trunc_normal_`.
pub const TRUNCATION: f64 = 2.0;

/// How many inputs and outputs a weight connects; those of a convolution count its whole window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fan {
    /// Inputs of one output.
    pub inputs: usize,
    /// Outputs that one input reaches.
    pub outputs: usize,
}

/// What initial values are drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Nothing: all have this value.
    Constant(f64),
    /// Around 0 with this standard deviation.
    Normal(f64),
    /// The same, but drawn again beyond [`TRUNCATION`].
    TruncatedNormal(f64),
    /// From minus this bound up to it.
    Uniform(f64),
    /// All matrices with orthonormal rows, or columns where there are fewer of these, times this
    /// factor.
    Orthogonal(f64),
}

impl Initialization {
    /// The distribution of a weight's values.
    pub fn distribution(self, fan: Fan) -> Distribution {
        let (inputs, outputs) = (fan.inputs as f64, fan.outputs as f64);
        match self {
            Self::Zeros => Distribution::Constant(0.0),
            Self::Constant { value } => Distribution::Constant(value),
            Self::Normal { deviation } => Distribution::Normal(deviation),
            Self::TruncatedNormal { deviation } => Distribution::TruncatedNormal(deviation),
            Self::Uniform { bound } => Distribution::Uniform(bound),
            Self::XavierNormal { gain } => Distribution::Normal(gain * (2.0 / (inputs + outputs)).sqrt()),
            Self::XavierUniform { gain } => Distribution::Uniform(gain * (6.0 / (inputs + outputs)).sqrt()),
            Self::KaimingNormal { fan: mode, gain } => {
                Distribution::Normal(gain * (2.0 / mode.of_weight(fan)).sqrt())
            }
            Self::KaimingUniform { fan: mode, gain } => {
                Distribution::Uniform(gain * (6.0 / mode.of_weight(fan)).sqrt())
            }
            Self::Orthogonal { gain } => Distribution::Orthogonal(gain),
            Self::PytorchDefault => Distribution::Uniform(inputs.sqrt().recip()),
        }
    }
}

impl FanMode {
    fn of_weight(self, fan: Fan) -> f64 {
        match self {
            Self::In => fan.inputs as f64,
            Self::Out => fan.outputs as f64,
        }
    }
}

impl BiasInitialization {
    /// The distribution of a bias's values; `fan`: of the weight that it goes with.
    pub fn distribution(self, fan: Fan) -> Distribution {
        match self {
            Self::Constant(value) => Distribution::Constant(value),
            Self::PytorchDefault => Initialization::PytorchDefault.distribution(fan),
        }
    }
}

impl Distribution {
    /// Draws a matrix, row by row.
    pub fn draw(self, stream: &Stream, rows: usize, columns: usize) -> Vec<f32> {
        let mut generator = stream.generator();
        let count = rows * columns;
        match self {
            Self::Constant(value) => vec![value as f32; count],
            Self::Uniform(bound) => {
                (0..count).map(|_| (bound * (2.0 * generator.random::<f64>() - 1.0)) as f32).collect()
            }
            Self::Normal(deviation) => {
                let values = standard_normal(generator).map(|value| (deviation * value) as f32);
                values.take(count).collect()
            }
            Self::TruncatedNormal(deviation) => {
                let values = standard_normal(generator).map(|value| deviation * value);
                let within = values.filter(|value| value.abs() <= TRUNCATION);
                within.take(count).map(|value| value as f32).collect()
            }
            Self::Orthogonal(gain) => {
                let vectors = standard_normal(generator).take(count).collect();
                orthogonal(vectors, rows, columns).into_iter().map(|value| (gain * value) as f32).collect()
            }
        }
    }
}

/// Normal numbers without end, by Box and Muller's transform.
fn standard_normal(mut generator: impl RngCore) -> impl Iterator<Item = f64> {
    std::iter::repeat_with(move || {
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * generator.random::<f64>()).sin_cos();
        [radius * cosine, radius * sine]
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_pytorchs_bounds_and_deviations() {
        use {Distribution as D, Initialization as I};
        // A convolution of 5x5 from 32 to 64 channels: fan_in 800, fan_out 1600.
        let fan = Fan { inputs: 800, outputs: 1600 };
        let (mode, gain) = (FanMode::In, 1.0);
        for (initialization, expected) in [
            (I::Zeros, D::Constant(0.0)),
            (I::Constant { value: 0.5 }, D::Constant(0.5)),
            (I::Normal { deviation: 0.01 }, D::Normal(0.01)),
            (I::TruncatedNormal { deviation: 0.01 }, D::TruncatedNormal(0.01)),
            (I::Uniform { bound: 0.01 }, D::Uniform(0.01)),
            (I::XavierNormal { gain }, D::Normal(0.028_867_513_459_481_29)),
            (I::XavierUniform { gain }, D::Uniform(0.05)),
            (I::XavierUniform { gain: 3.0 }, D::Uniform(0.150_000_000_000_000_02)),
            (I::KaimingNormal { fan: mode, gain }, D::Normal(0.05)),
            (I::KaimingNormal { fan: FanMode::Out, gain }, D::Normal(0.035_355_339_059_327_376)),
            (I::KaimingNormal { fan: mode, gain: 2.0 }, D::Normal(0.1)),
            (I::KaimingUniform { fan: mode, gain }, D::Uniform(0.086_602_540_378_443_86)),
            (I::Orthogonal { gain: 2.0 }, D::Orthogonal(2.0)),
            (I::PytorchDefault, D::Uniform(0.035_355_339_059_327_376)),
        ] {
            assert_eq!(initialization.distribution(fan), expected, "{initialization:?}");
        }
        for (initialization, expected) in [
            (BiasInitialization::Constant(0.1), D::Constant(0.1)),
            (BiasInitialization::PytorchDefault, D::Uniform(0.035_355_339_059_327_376)),
        ] {
            assert_eq!(initialization.distribution(fan), expected, "{initialization:?}");
        }
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        const COUNT: usize = 200_001;
        for (distribution, deviation, fourth) in [
            // Deviation, and fourth moment in units of the variance squared: 3 and 9/5.
            (Distribution::Normal(0.5), 0.5, 3.0),
            (Distribution::Uniform(0.3), 0.3 / 3f64.sqrt(), 1.8),
            // Cut off at one deviation: by the moments of the truncated normal distribution.
            (Distribution::TruncatedNormal(2.0), 2.0 * 0.539_560, 1.9409),
        ] {
            let draws = distribution.draw(&Stream::new(5).named("moments"), COUNT, 1);
            assert_eq!(draws.len(), COUNT);
            let moment =
                |power: i32| draws.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / COUNT as f64;
            let error = 5.0 / (COUNT as f64).sqrt();
            assert!(moment(1).abs() < error * deviation, "{distribution:?}: mean {}", moment(1));
            let variance = moment(2) / (deviation * deviation);
            assert!(
                (variance - 1.0).abs() < error * 1.5,
                "{distribution:?}: variance {variance} times too large"
            );
            let kurtosis = moment(4) / deviation.powi(4);
            assert!(
                (kurtosis / fourth - 1.0).abs() < 5.0 * error,
                "{distribution:?}: fourth moment {kurtosis}"
            );
            let bound = match distribution {
                Distribution::Uniform(bound) => bound,
                Distribution::TruncatedNormal(_) => TRUNCATION,
                _ => f64::INFINITY,
            };
            assert!(draws.iter().all(|x| f64::from(x.abs()) <= bound), "{distribution:?}");
        }
    }

    #[test]
    fn orthogonal_draws_spread_evenly_over_all_directions() {
        // A vector of length 1 in 3 dimensions: each of its parts is uniform from -1 to 1.
        const COUNT: u64 = 20_000;
        let mut squares = [0.0; 3];
        let mut sums = [0.0; 3];
        for trial in 0..COUNT {
            let draw = Distribution::Orthogonal(1.0).draw(&Stream::new(9).numbered(trial), 3, 1);
            for ((value, sum), square) in draw.iter().zip(&mut sums).zip(&mut squares) {
                *sum += f64::from(*value);
                *square += f64::from(*value).powi(2);
            }
        }
        let error = 5.0 / (COUNT as f64).sqrt();
        for (sum, square) in sums.iter().zip(squares) {
            assert!((sum / COUNT as f64).abs() < error, "{sums:?}");
            assert!((square / COUNT as f64 - 1.0 / 3.0).abs() < error / 3.0, "{squares:?}");
        }
    }
}
