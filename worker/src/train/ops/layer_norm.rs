//! Layer normalisation, after Ba, Kiros and Hinton (2016), by PyTorch's definition: each image's
//! activations are normalised over all of a layer, channels, rows and columns together.

use candle_core::{D, Device, Result, Shape, Tensor};

use super::columns::column_sums;
use super::sums::{narrowed, row_sums};
use super::{
    Activation, InputGradient, Leaf, Saved, Tape, Weighted, WeightedGradients, apply_weighted,
    compose_weighted,
};
use crate::train::element::Element;
use crate::train::simd;

/// Added to the variance.
const EPSILON: f64 = 1e-5;

/// Normalises each image's activations, then scales, shifts and activates them.
///
/// `x`: `[lanes, batch, …]`; `weight`, `bias`: `[lanes, features]`, one number for each of the
/// activations of an image, flattened.
pub(crate) fn layer_norm(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return compose_weighted(x, weight, bias, tape, |x, weight, bias| {
            composed(x, weight, bias, activation)
        });
    }
    let (_, features) = weight.tensor.dims2()?;
    let op = LayerNorm {
        batch: x.dim(1)?,
        features,
        shape: x.shape().clone(),
        activation,
        statistics: Vec::new(),
    };
    apply_weighted(op, x, weight, bias, tape)
}

/// [`layer_norm`] in candle's ops.
pub(crate) fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let flat = x.flatten_from(2)?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
    let y = normal.broadcast_mul(&weight.unsqueeze(1)?)?.broadcast_add(&bias.unsqueeze(1)?)?;
    activation.composed(y.reshape(x.shape())?)
}

struct LayerNorm {
    batch: usize,
    features: usize,
    shape: Shape,
    activation: Activation,
    /// Mean and inverse deviation of each image of each lane.
    statistics: Vec<(f64, f64)>,
}

impl Weighted for LayerNorm {
    fn output_shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward<T: Element>(&mut self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        let mut statistics = Vec::with_capacity(x.len() / self.features);
        let rows = x.chunks_exact(self.features).zip(y.chunks_exact_mut(self.features));
        for (row, (x, y)) in rows.enumerate() {
            let of_lane = row / self.batch * self.features;
            let (weight, bias) = (&weight[of_lane..][..self.features], &bias[of_lane..][..self.features]);
            simd::dispatch(
                #[inline(always)]
                || {
                    let [sum] = row_sums([x], |[x]| [x]);
                    let mean = sum / self.features as f64;
                    let centre = T::from_f64(mean);
                    let [sum] = row_sums([x], |[x]| [(x - centre) * (x - centre)]);
                    let inverse = 1.0 / (sum / self.features as f64 + EPSILON).sqrt();
                    statistics.push((mean, inverse));
                    let inverse = T::from_f64(inverse);
                    for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                        *y = self.activation.apply((*x - centre) * inverse * *weight + *bias);
                    }
                },
            );
        }
        self.statistics = statistics;
        y
    }

    fn backward<T: Element>(&self, saved: &Saved<'_, T>, _input: InputGradient) -> WeightedGradients<T> {
        let features = self.features;
        let mut dz = vec![T::zero(); saved.dy.len()];
        let mut normal = vec![T::zero(); saved.dy.len()];
        let mut dx = vec![T::zero(); saved.dy.len()];
        for (row, (mean, inverse)) in self.statistics.iter().enumerate() {
            let of_row = row * features..(row + 1) * features;
            let weight = &saved.weight[row / self.batch * features..][..features];
            let (x, y, dy) = (&saved.x[of_row.clone()], &saved.y[of_row.clone()], &saved.dy[of_row.clone()]);
            let (dz, normal) = (&mut dz[of_row.clone()], &mut normal[of_row.clone()]);
            let dx = &mut dx[of_row];
            let (centre, inverse) = (T::from_f64(*mean), T::from_f64(*inverse));
            simd::dispatch(
                #[inline(always)]
                || {
                    for (((dz, normal), x), (y, dy)) in
                        dz.iter_mut().zip(normal.iter_mut()).zip(x).zip(y.iter().zip(dy))
                    {
                        *dz = self.activation.backward(*y, *dy);
                        *normal = (*x - centre) * inverse;
                    }
                    let inputs = [&*dz, &*normal, weight];
                    let [sum, product] =
                        row_sums(inputs, |[dz, normal, weight]| [dz * weight, dz * weight * normal]);
                    let sum = T::from_f64(sum / features as f64);
                    let product = T::from_f64(product / features as f64);
                    for (((dx, dz), normal), weight) in dx.iter_mut().zip(&*dz).zip(&*normal).zip(weight) {
                        *dx = inverse * (*dz * *weight - sum - *normal * product);
                    }
                },
            );
        }
        let mut gradients = WeightedGradients { x: Some(dx), weight: Vec::new(), bias: Vec::new() };
        let size = self.batch * features;
        for (dz, normal) in dz.chunks_exact(size).zip(normal.chunks_exact(size)) {
            let [dbias, dweight] = simd::dispatch(
                #[inline(always)]
                || column_sums(features, [dz, normal], [], |[dz, normal], []| [dz, dz * normal]),
            );
            gradients.weight.extend(narrowed::<T>(&dweight));
            gradients.bias.extend(narrowed::<T>(&dbias));
        }
        gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{Case, check_weighted};

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, x, features) in [
            ("a hidden layer", vec![1, 3, 5], 5),
            ("lanes", vec![2, 2, 4], 4),
            ("images", vec![2, 2, 2, 3, 2], 12),
            ("more features than a vector holds", vec![1, 2, 37], 37),
        ] {
            for activation in [Activation::Identity, Activation::Relu] {
                check_weighted(Case {
                    name,
                    x: &x,
                    weight: &[x[0], features],
                    bias: &[x[0], features],
                    fused: &|x, weight, bias, tape| layer_norm(x, weight, bias, activation, tape),
                    composed: &|x, weight, bias| composed(x, weight, bias, activation),
                });
            }
        }
    }
}
