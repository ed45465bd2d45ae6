//! Group normalisation, after Wu and He (2018), by PyTorch's definition: the channels of each image
//! are split into groups, each of which is normalised over its channels, rows and columns. With one
//! channel a group it is instance normalisation, after Ulyanov, Vedaldi and Lempitsky (2016).

use candle_core::{D, Device, Result, Shape, Tensor};

use super::columns::{append_mapped, column_sums};
use super::sums::narrowed;
use super::{
    Activation, InputGradient, Leaf, Saved, Tape, Weighted, WeightedGradients, apply_weighted,
    compose_weighted,
};
use crate::train::element::Element;
use crate::train::simd;

/// Added to the variance.
const EPSILON: f64 = 1e-5;

/// Normalises groups of each image's channels, then scales, shifts and activates.
///
/// `x`: `[lanes, batch, …, channels]`; `weight`, `bias`: `[lanes, channels]`. Channels that follow
/// one another make up a group; `groups` must divide the channels.
pub(crate) fn group_norm(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    groups: usize,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return compose_weighted(x, weight, bias, tape, |x, weight, bias| {
            composed(x, weight, bias, groups, activation)
        });
    }
    let channels = x.dim(D::Minus1)?;
    let op = GroupNorm {
        batch: x.dim(1)?,
        pixels: x.dims()[2..x.rank() - 1].iter().product(),
        channels,
        groups,
        shape: x.shape().clone(),
        activation,
        statistics: Vec::new(),
    };
    apply_weighted(op, x, weight, bias, tape)
}

/// [`group_norm`] in candle's ops.
pub(crate) fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    activation: Activation,
) -> Result<Tensor> {
    let (lanes, channels) = weight.dims2()?;
    let batch = x.dim(1)?;
    let split = x.reshape((lanes, batch, (), groups, channels / groups))?;
    let centred = split.broadcast_sub(&split.mean_keepdim((2, 4))?)?;
    let variance = centred.sqr()?.mean_keepdim((2, 4))?;
    let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
    let flat = normal.reshape((lanes, (), channels))?;
    let y = flat.broadcast_mul(&weight.unsqueeze(1)?)?.broadcast_add(&bias.unsqueeze(1)?)?;
    activation.composed(y.reshape(x.shape())?)
}

struct GroupNorm {
    batch: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
    shape: Shape,
    activation: Activation,
    /// Mean and inverse deviation of each group of each image of each lane.
    statistics: Vec<(f64, f64)>,
}

impl GroupNorm {
    /// How many numbers are normalised together.
    fn size(&self) -> f64 {
        (self.pixels * self.channels / self.groups) as f64
    }

    /// The mean over each group of a quantity that is summed up by channel.
    #[inline(always)]
    fn means(&self, sums: &[f64]) -> Vec<f64> {
        let of_group = |sums: &[f64]| sums.iter().sum::<f64>() / self.size();
        sums.chunks_exact(self.channels / self.groups).map(of_group).collect()
    }

    /// Each channel's number, of the numbers of the groups.
    #[inline(always)]
    fn by_channel<T: Element>(&self, of_groups: impl Iterator<Item = f64>) -> Vec<T> {
        let channels = self.channels / self.groups;
        of_groups.flat_map(|number| std::iter::repeat_n(T::from_f64(number), channels)).collect()
    }

    /// The weights, or biases, of the lane that an image belongs to.
    fn of_lane<'a, T>(&self, parameter: &'a [T], image: usize) -> &'a [T] {
        &parameter[image / self.batch * self.channels..][..self.channels]
    }
}

impl Weighted for GroupNorm {
    fn output_shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward<T: Element>(&mut self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let channels = self.channels;
        let size = self.pixels * channels;
        let mut y = Vec::with_capacity(x.len());
        let mut statistics = Vec::with_capacity(x.len() / size * self.groups);
        for (image, x) in x.chunks_exact(size).enumerate() {
            let (weight, bias) = (self.of_lane(weight, image), self.of_lane(bias, image));
            simd::dispatch(
                #[inline(always)]
                || {
                    let [sums] = column_sums(channels, [x], [], |[x], []| [x]);
                    let means = self.means(&sums);
                    let centre: Vec<T> = self.by_channel(means.iter().copied());
                    let [squares] =
                        column_sums(channels, [x], [&centre], |[x], [centre]| [(x - centre) * (x - centre)]);
                    let variances = self.means(&squares);
                    let inverse = variances.iter().map(|variance| 1.0 / (variance + EPSILON).sqrt());
                    let mut scale: Vec<T> = self.by_channel(inverse.clone());
                    statistics.extend(means.iter().copied().zip(inverse));
                    for (scale, weight) in scale.iter_mut().zip(weight) {
                        *scale *= *weight;
                    }
                    let number = |[x]: [T; 1], [centre, scale, bias]: [T; 3]| {
                        self.activation.apply((x - centre) * scale + bias)
                    };
                    append_mapped(&mut y, channels, [x], [&centre, &scale, bias], number);
                },
            );
        }
        self.statistics = statistics;
        y
    }

    fn backward<T: Element>(&self, saved: &Saved<'_, T>, _input: InputGradient) -> WeightedGradients<T> {
        let channels = self.channels;
        let size = self.pixels * channels;
        let mut dx = Vec::with_capacity(saved.x.len());
        let mut dweight = vec![0.0; saved.weight.len()];
        let mut dbias = vec![0.0; saved.weight.len()];
        for (image, statistics) in self.statistics.chunks_exact(self.groups).enumerate() {
            let at = image * size;
            let (x, y, dy) = (&saved.x[at..][..size], &saved.y[at..][..size], &saved.dy[at..][..size]);
            let weight = self.of_lane(saved.weight, image);
            let lane = image / self.batch * channels;
            let (dweight, dbias) = (&mut dweight[lane..][..channels], &mut dbias[lane..][..channels]);
            simd::dispatch(
                #[inline(always)]
                || {
                    let centre: Vec<T> = self.by_channel(statistics.iter().map(|(mean, _)| *mean));
                    let inverse: Vec<T> = self.by_channel(statistics.iter().map(|(_, inverse)| *inverse));
                    let of_channels = [&centre[..], &inverse];
                    let [mut dz_sums, mut product_sums] =
                        column_sums(channels, [x, y, dy], of_channels, |[x, y, dy], [centre, inverse]| {
                            let dz = self.activation.backward(y, dy);
                            [dz, dz * (x - centre) * inverse]
                        });
                    for (total, sum) in dbias.iter_mut().zip(&dz_sums) {
                        *total += sum;
                    }
                    for (total, sum) in dweight.iter_mut().zip(&product_sums) {
                        *total += sum;
                    }
                    // dx = inverse * (dz * weight - mean(dz * weight) - normal * mean(dz * weight * normal)),
                    // as dz * scale - offset - (x - centre) * slope.
                    for sums in [&mut dz_sums, &mut product_sums] {
                        for (sum, weight) in sums.iter_mut().zip(weight) {
                            *sum *= weight.to_f64();
                        }
                    }
                    let groups = || statistics.iter().map(|(_, inverse)| *inverse);
                    let offsets = self.means(&dz_sums);
                    let slopes = self.means(&product_sums);
                    let offset: Vec<T> =
                        self.by_channel(groups().zip(&offsets).map(|(inverse, mean)| inverse * mean));
                    let slope: Vec<T> = self
                        .by_channel(groups().zip(&slopes).map(|(inverse, mean)| inverse * inverse * mean));
                    let scale: Vec<T> =
                        inverse.iter().zip(weight).map(|(inverse, weight)| *inverse * *weight).collect();
                    let of_channels = [&centre[..], &scale, &slope, &offset];
                    let number = |[x, y, dy]: [T; 3], [centre, scale, slope, offset]: [T; 4]| {
                        let dz = self.activation.backward(y, dy);
                        dz * scale - offset - (x - centre) * slope
                    };
                    append_mapped(&mut dx, channels, [x, y, dy], of_channels, number);
                },
            );
        }
        WeightedGradients { x: Some(dx), weight: narrowed(&dweight), bias: narrowed(&dbias) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{Case, check_weighted};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, x, groups) in [
            ("a hidden layer", vec![1, 3, 6], 2),
            ("lanes", vec![2, 2, 4], 1),
            ("images", vec![2, 2, 2, 3, 4], 2),
            ("one group of all channels", vec![1, 2, 2, 2, 3], 1),
            ("a group for each channel", vec![2, 2, 2, 3, 3], 3),
            ("more channels than a vector holds", vec![1, 2, 1, 2, 38], 2),
        ] {
            let parameters = [x[0], x[x.len() - 1]];
            for activation in [Activation::Identity, Activation::Relu] {
                check_weighted(Case {
                    name,
                    x: &x,
                    weight: &parameters,
                    bias: &parameters,
                    fused: &|x, weight, bias, tape| group_norm(x, weight, bias, groups, activation, tape),
                    composed: &|x, weight, bias| composed(x, weight, bias, groups, activation),
                });
            }
        }
    }
}
