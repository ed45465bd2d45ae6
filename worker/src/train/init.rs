//! Initial weights, by the formulas of `torch.nn.init`.
//!
//! Xavier is after Glorot and Bengio (2010), gain 1; Kaiming after He et al. (2015), `fan_in`, with
//! the gain of ReLU, the square root of 2.

use fittingroom_common::rng::Stream;
use rand::Rng;

use super::hyper::Initialization;

/// How many inputs and outputs a weight connects; those of a convolution count its whole window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fan {
    /// Inputs of one output.
    pub inputs: usize,
    /// Outputs that one input reaches.
    pub outputs: usize,
}

/// What initial weights are drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Around 0 with this standard deviation.
    Normal(f64),
    /// From minus this bound up to it.
    Uniform(f64),
}

impl Initialization {
    /// The distribution of a weight's values.
    pub fn distribution(self, fan: Fan) -> Distribution {
        let (inputs, outputs) = (fan.inputs as f64, fan.outputs as f64);
        match self {
            Self::Normal { deviation } => Distribution::Normal(deviation),
            Self::XavierNormal => Distribution::Normal((2.0 / (inputs + outputs)).sqrt()),
            Self::XavierUniform => Distribution::Uniform((6.0 / (inputs + outputs)).sqrt()),
            Self::KaimingNormal => Distribution::Normal((2.0 / inputs).sqrt()),
            Self::KaimingUniform => Distribution::Uniform((6.0 / inputs).sqrt()),
        }
    }
}

impl Distribution {
    /// Draws `count` values.
    pub fn draw(self, stream: &Stream, count: usize) -> Vec<f32> {
        let mut generator = stream.generator();
        match self {
            Self::Uniform(bound) => (0..count)
                .map(|_| (bound * (2.0 * generator.random::<f64>() - 1.0)) as f32)
                .collect(),
            Self::Normal(deviation) => {
                let pairs = (0..count.div_ceil(2)).flat_map(|_| {
                    // Box and Muller's transform; 1 - u lies in (0, 1], where the logarithm is finite.
                    let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt();
                    let (sine, cosine) = (std::f64::consts::TAU * generator.random::<f64>()).sin_cos();
                    [radius * cosine, radius * sine]
                });
                pairs
                    .take(count)
                    .map(|value| (deviation * value) as f32)
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_pytorchs_bounds_and_deviations() {
        // A convolution of 5x5 from 32 to 64 channels: fan_in 800, fan_out 1600.
        let fan = Fan {
            inputs: 800,
            outputs: 1600,
        };
        for (initialization, expected) in [
            (
                Initialization::Normal { deviation: 0.01 },
                Distribution::Normal(0.01),
            ),
            (
                Initialization::XavierNormal,
                Distribution::Normal(0.028_867_513_459_481_29),
            ),
            (Initialization::XavierUniform, Distribution::Uniform(0.05)),
            (Initialization::KaimingNormal, Distribution::Normal(0.05)),
            (
                Initialization::KaimingUniform,
                Distribution::Uniform(0.086_602_540_378_443_86),
            ),
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
        ] {
            let draws = distribution.draw(&Stream::new(5).named("moments"), COUNT);
            assert_eq!(draws.len(), COUNT);
            let moment =
                |power: i32| draws.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / COUNT as f64;
            let error = 5.0 / (COUNT as f64).sqrt();
            assert!(
                moment(1).abs() < error * deviation,
                "{distribution:?}: mean {}",
                moment(1)
            );
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
            if let Distribution::Uniform(bound) = distribution {
                assert!(
                    draws.iter().all(|x| f64::from(x.abs()) <= bound),
                    "{distribution:?}"
                );
            }
        }
    }
}
