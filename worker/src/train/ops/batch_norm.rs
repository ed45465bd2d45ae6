//! Batch normalisation, after Ioffe and Szegedy (2015), by PyTorch's definition: the biased
//! variance normalises the batch, the unbiased one is tracked for evaluation.

use candle_core::{D, Device, Result, Shape, Tensor};

use super::columns::{append_mapped, column_moments, column_sums};
use super::sums::narrowed;
use super::{
    Activation, InputGradient, Leaf, Saved, Tape, Weighted, WeightedGradients, apply_weighted,
    compose_weighted,
};
#[cfg(feature = "cuda")]
use crate::train::cuda::Gpu;
use crate::train::element::{Element, Reading, by_dtype, modify};
use crate::train::simd;

/// Added to the variance.
const EPSILON: f64 = 1e-5;
/// Share of the newest batch in the running statistics.
const MOMENTUM: f64 = 0.1;

/// The running statistics of one layer, each `[lanes, channels]`, in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    /// Of the means.
    pub(crate) mean: &'a Tensor,
    /// Of the unbiased variances.
    pub(crate) variance: &'a Tensor,
}

/// Normalises each channel over the batch, and over rows and columns of images, then scales, shifts
/// and activates; takes the batch's statistics into the running ones.
///
/// `x`: `[lanes, batch, …, channels]`; `weight`, `bias`: `[lanes, channels]`.
pub(crate) fn train(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    running: Running<'_>,
    activation: Activation,
    tape: Option<&mut Tape>,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x) {
        return super::cuda::batch_norm_train(gpu, x, weight, bias, running, activation, tape);
    }
    if !matches!(x.device(), Device::Cpu) {
        return compose_weighted(x, weight, bias, tape, |x, weight, bias| {
            composed(x, weight, bias, running, activation)
        });
    }
    let op = by_dtype!(x.dtype(), T => {
        let lanes = x.dim(0)?;
        let channels = x.dim(D::Minus1)?;
        let x_ = x.contiguous()?;
        let x_ = Reading::of(&x_);
        let op = BatchNorm::measure::<T>(x_.slice()?, lanes, channels, x.shape().clone(), activation);
        let (mean, variance) = (narrowed::<T>(&op.mean), narrowed::<T>(&op.unbiased_variance()));
        track(running.mean, &mean)?;
        track(running.variance, &variance)?;
        Ok(op)
    })?;
    apply_weighted(op, x, weight, bias, tape)
}

fn track<T: Element>(running: &Tensor, fresh: &[T]) -> Result<()> {
    let (keep, take) = (T::from_f64(1.0 - MOMENTUM), T::from_f64(MOMENTUM));
    modify(running, |running: &mut [T]| {
        for (running, fresh) in running.iter_mut().zip(fresh) {
            *running = *running * keep + *fresh * take;
        }
    })
}

/// [`train`] in candle's ops.
pub(crate) fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: Running<'_>,
    activation: Activation,
) -> Result<Tensor> {
    let (lanes, channels) = weight.dims2()?;
    let rows = x.elem_count() / lanes / channels;
    let flat = x.reshape((lanes, rows, channels))?;
    let mean = flat.mean_keepdim(1)?;
    let centred = flat.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim(1)?;
    let unbiased = (&variance * (rows as f64 / (rows as f64 - 1.0)))?;
    for (running, fresh) in [(running.mean, &mean), (running.variance, &unbiased)] {
        let fresh = fresh.detach().squeeze(1)?;
        let mixed = ((running * (1.0 - MOMENTUM))? + (fresh * MOMENTUM)?)?;
        running.slice_set(&mixed, 0, 0)?;
    }
    let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
    let y = normal.broadcast_mul(&weight.unsqueeze(1)?)?.broadcast_add(&bias.unsqueeze(1)?)?;
    activation.composed(y.reshape(x.shape())?)
}

/// Normalises with the running statistics, for evaluation. Gives no gradients.
pub(crate) fn evaluate(
    x: &Tensor,
    weight: Leaf<'_>,
    bias: Leaf<'_>,
    running: Running<'_>,
    activation: Activation,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(x) {
        return super::cuda::batch_norm_evaluate(gpu, x, weight, bias, running, activation);
    }
    if matches!(x.device(), Device::Cpu) {
        let op = by_dtype!(x.dtype(), T => {
            let (mean, variance) = (Reading::of(running.mean), Reading::of(running.variance));
            let (mean, variance) = (widened::<T>(mean.slice()?), widened::<T>(variance.slice()?));
            Ok(BatchNorm {
                channels: x.dim(D::Minus1)?,
                shape: x.shape().clone(),
                mean,
                variance,
                shift: Vec::new(),
                activation,
            })
        })?;
        return apply_weighted(op, x, weight, bias, None);
    }
    let (lanes, channels) = weight.tensor.dims2()?;
    let flat = x.reshape((lanes, (), channels))?;
    let scale = (weight.tensor / (running.variance + EPSILON)?.sqrt()?)?;
    let shift = (bias.tensor - (running.mean * &scale)?)?;
    let y = flat.broadcast_mul(&scale.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)?;
    activation.composed(y.reshape(x.shape())?)
}

fn widened<T: Element>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|number| number.to_f64()).collect()
}

struct BatchNorm {
    channels: usize,
    shape: Shape,
    /// `[lanes, channels]`.
    mean: Vec<f64>,
    /// Biased; `[lanes, channels]`.
    variance: Vec<f64>,
    /// The bias that the results were made with; `[lanes, channels]`.
    shift: Vec<f64>,
    activation: Activation,
}

impl BatchNorm {
    /// The op with the statistics of this batch.
    fn measure<T: Element>(
        x: &[T],
        lanes: usize,
        channels: usize,
        shape: Shape,
        activation: Activation,
    ) -> Self {
        let (mean, variance, shift) = (Vec::new(), Vec::new(), Vec::new());
        let mut op = Self { channels, shape, mean, variance, shift, activation };
        for x in x.chunks_exact(x.len() / lanes) {
            let (mean, variance) = simd::dispatch(
                #[inline(always)]
                || column_moments(channels, x),
            );
            op.mean.extend(mean);
            op.variance.extend(variance);
        }
        op
    }

    fn rows(&self) -> usize {
        self.shape.elem_count() / self.mean.len()
    }

    fn unbiased_variance(&self) -> Vec<f64> {
        let rows = self.rows() as f64;
        self.variance.iter().map(|variance| variance * rows / (rows - 1.0)).collect()
    }

    /// The gradient before the activation. What came out is computed again, to the same bits: that is
    /// faster than reading it.
    #[inline(always)]
    fn before_activation<T: Element>(&self, x: T, dy: T, mean: T, scale: T, shift: T) -> T {
        self.activation.backward((x - mean) * scale + shift, dy)
    }

    fn inverse_deviation(&self) -> Vec<f64> {
        self.variance.iter().map(|variance| 1.0 / (variance + EPSILON).sqrt()).collect()
    }
}

impl Weighted for BatchNorm {
    fn output_shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward<T: Element>(&mut self, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let channels = self.channels;
        let size = self.rows() * channels;
        let (mean, inverse) = (narrowed::<T>(&self.mean), narrowed::<T>(&self.inverse_deviation()));
        self.shift = bias.iter().map(|bias| bias.to_f64()).collect();
        let mut y = Vec::with_capacity(x.len());
        for (lane, x) in x.chunks_exact(size).enumerate() {
            let of_lane = lane * channels..(lane + 1) * channels;
            let (mean, bias) = (&mean[of_lane.clone()], &bias[of_lane.clone()]);
            let scale: Vec<T> = weight[of_lane.clone()]
                .iter()
                .zip(&inverse[of_lane])
                .map(|(weight, inverse)| *weight * *inverse)
                .collect();
            let number =
                |[x]: [T; 1], [mean, scale, bias]: [T; 3]| self.activation.apply((x - mean) * scale + bias);
            simd::dispatch(
                #[inline(always)]
                || append_mapped(&mut y, channels, [x], [mean, &scale, bias], number),
            );
        }
        y
    }

    fn backward<T: Element>(&self, saved: &Saved<'_, T>, _input: InputGradient) -> WeightedGradients<T> {
        let channels = self.channels;
        let rows = self.rows();
        let size = rows * channels;
        let (mean, inverse) = (narrowed::<T>(&self.mean), narrowed::<T>(&self.inverse_deviation()));
        let shift = narrowed::<T>(&self.shift);
        let mut dx = Vec::with_capacity(saved.x.len());
        let mut gradients = WeightedGradients { x: None, weight: Vec::new(), bias: Vec::new() };
        for lane in 0..saved.x.len() / size {
            let of_lane = lane * channels..(lane + 1) * channels;
            let (mean, inverse) = (&mean[of_lane.clone()], &inverse[of_lane.clone()]);
            let shift = &shift[of_lane.clone()];
            let (x, dy) = (&saved.x[lane * size..][..size], &saved.dy[lane * size..][..size]);
            let scale: Vec<T> = saved.weight[of_lane]
                .iter()
                .zip(inverse)
                .map(|(weight, inverse)| *weight * *inverse)
                .collect();
            let of_channels = [mean, inverse, &scale, shift];
            let quantities = |[x, dy]: [T; 2], [mean, inverse, scale, shift]: [T; 4]| {
                let dz = self.before_activation(x, dy, mean, scale, shift);
                [dz, dz * (x - mean) * inverse]
            };
            let [dbias, dweight] = simd::dispatch(
                #[inline(always)]
                || column_sums(channels, [x, dy], of_channels, quantities),
            );
            // dx = weight / deviation * (dz - mean(dz) - normal * mean(dz * normal)), as dz * scale + x * slope + offset.
            let share = |sum: f64| T::from_f64(sum / rows as f64);
            let slope: Vec<T> =
                (0..channels).map(|at| scale[at] * inverse[at] * share(dweight[at])).collect();
            let offset: Vec<T> = (0..channels).map(|at| scale[at] * share(dbias[at])).collect();
            let of_channels = [mean, &scale, shift, &slope, &offset];
            let number = |[x, dy]: [T; 2], [mean, scale, shift, slope, offset]: [T; 5]| {
                let dz = self.before_activation(x, dy, mean, scale, shift);
                dz * scale - offset - (x - mean) * slope
            };
            simd::dispatch(
                #[inline(always)]
                || append_mapped(&mut dx, channels, [x, dy], of_channels, number),
            );
            gradients.weight.extend(narrowed::<T>(&dweight));
            gradients.bias.extend(narrowed::<T>(&dbias));
        }
        gradients.x = Some(dx);
        gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{Case, assert_close, check_weighted, flat, numbers};

    fn running(lanes: usize, channels: usize, dtype: candle_core::DType) -> [Tensor; 2] {
        let mean = Tensor::zeros((lanes, channels), dtype, &Device::Cpu).expect("good");
        let variance = Tensor::ones((lanes, channels), dtype, &Device::Cpu).expect("good");
        [mean, variance]
    }

    #[test]
    fn gradients_are_those_of_finite_differences_and_of_the_composed_form() {
        for (name, x) in
            [("a hidden layer", vec![1, 6, 3]), ("lanes", vec![2, 5, 3]), ("images", vec![2, 2, 2, 3, 2])]
        {
            let parameters = [x[0], x[x.len() - 1]];
            for activation in [Activation::Identity, Activation::Relu] {
                check_weighted(Case {
                    name,
                    x: &x,
                    weight: &parameters,
                    bias: &parameters,
                    fused: &|x, weight, bias, tape| {
                        let [mean, variance] = running(parameters[0], parameters[1], x.dtype());
                        let running = Running { mean: &mean, variance: &variance };
                        train(x, weight, bias, running, activation, tape)
                    },
                    composed: &|x, weight, bias| {
                        let [mean, variance] = running(parameters[0], parameters[1], x.dtype());
                        let running = Running { mean: &mean, variance: &variance };
                        composed(x, weight, bias, running, activation)
                    },
                });
            }
        }
    }

    #[test]
    fn statistics_run_as_in_pytorch_and_evaluation_uses_them() {
        // torch.nn.BatchNorm1d(1) after one batch of [1, 2, 6]: mean 3, unbiased variance 7,
        // so running_mean = 0.1 * 3 and running_var = 0.9 + 0.1 * 7.
        let x = Tensor::new(&[[[1.0f64], [2.0], [6.0]]], &Device::Cpu).expect("good");
        let [weight, bias] = [Tensor::new(&[[2.0f64]], &Device::Cpu), Tensor::new(&[[0.5f64]], &Device::Cpu)];
        let (weight, bias) = (weight.expect("good"), bias.expect("good"));
        let gradient = Default::default();
        let leaf = |tensor| Leaf { tensor, gradient: &gradient };
        let [mean, variance] = running(1, 1, x.dtype());
        let statistics = Running { mean: &mean, variance: &variance };
        train(&x, leaf(&weight), leaf(&bias), statistics, Activation::Identity, None).expect("good");
        assert_close("running mean", &flat(&mean), &[0.3], 1e-12);
        assert_close("running variance", &flat(&variance), &[1.6], 1e-12);
        let y = evaluate(&x, leaf(&weight), leaf(&bias), statistics, Activation::Identity).expect("good");
        let expected = [1.0, 2.0, 6.0].map(|x: f64| (x - 0.3) / (1.6f64 + 1e-5).sqrt() * 2.0 + 0.5);
        assert_close("evaluation", &flat(&y), &expected, 1e-12);
    }

    #[test]
    fn the_composed_form_runs_the_same_statistics() {
        let x = numbers("x", &[2, 4, 3]);
        let parameters = Tensor::ones((2, 3), x.dtype(), &Device::Cpu).expect("good");
        let gradient = Default::default();
        let leaf = Leaf { tensor: &parameters, gradient: &gradient };
        let [fused_mean, fused_variance] = running(2, 3, x.dtype());
        let [mean, variance] = running(2, 3, x.dtype());
        let fused = Running { mean: &fused_mean, variance: &fused_variance };
        train(&x, leaf, leaf, fused, Activation::Identity, None).expect("good");
        let plain = Running { mean: &mean, variance: &variance };
        composed(&x, &parameters, &parameters, plain, Activation::Identity).expect("good");
        assert_close("running mean", &flat(&fused_mean), &flat(&mean), 1e-12);
        assert_close("running variance", &flat(&fused_variance), &flat(&variance), 1e-12);
    }
}
