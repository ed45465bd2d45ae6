//! What is done to gradients before an update, each lane by its own settings: the L1 penalty is
//! added, then they are clipped by value, then by norm.
//!
//! Clipping is `torch.nn.utils.clip_grad_value_` and `clip_grad_norm_`. The weight decay that
//! optimizers add to gradients comes afterwards, as in PyTorch.

use candle_core::{Device, Result, Tensor};

use super::sign;
use crate::train::element::Reading;
use crate::train::hyper::GradientSettings;
use crate::train::ops::sums::row_sums;
use crate::train::params::{Parameter, Role};
use crate::train::simd;

/// Keeps the scale finite where all gradients are 0, as in PyTorch.
const SMALLEST_NORM: f64 = 1e-6;

/// The gradients as the update takes them, in the order of the parameters.
pub(super) fn prepared(
    lanes: &[GradientSettings],
    parameters: &[Parameter],
    gradients: Vec<Tensor>,
) -> Result<Vec<Tensor>> {
    if lanes.iter().all(|lane| *lane == GradientSettings::OFF) {
        return Ok(gradients);
    }
    match gradients.first().map(Tensor::device) {
        Some(Device::Cpu) => fused(lanes, parameters, &gradients),
        Some(Device::Cuda(_) | Device::Metal(_)) => composed(lanes, parameters, &gradients),
        None => Ok(gradients),
    }
}

impl GradientSettings {
    fn l1_of(&self, role: Role) -> f64 {
        match role {
            Role::Weight => self.l1,
            Role::BiasOrNorm => 0.0,
        }
    }
}

fn fused(lanes: &[GradientSettings], parameters: &[Parameter], gradients: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut squares = vec![0.0; lanes.len()];
    let mut prepared = Vec::with_capacity(gradients.len());
    for (parameter, gradient) in parameters.iter().zip(gradients) {
        let (p, g) = (Reading::of(parameter.values()), Reading::of(gradient));
        let (p, mut g) = (p.slice::<f32>()?, g.slice::<f32>()?.to_vec());
        let size = p.len() / lanes.len();
        let each_lane = p.chunks_exact(size).zip(g.chunks_exact_mut(size)).zip(lanes).zip(&mut squares);
        for (((p, g), settings), squares) in each_lane {
            let (l1, limit) = (settings.l1_of(parameter.role()) as f32, settings.clip_value as f32);
            simd::dispatch(
                #[inline(always)]
                || {
                    if l1 > 0.0 {
                        g.iter_mut().zip(p).for_each(|(g, p)| *g += l1 * sign(*p));
                    }
                    if limit > 0.0 {
                        g.iter_mut().for_each(|g| *g = g.clamp(-limit, limit));
                    }
                    if settings.clip_norm > 0.0 {
                        let [sum] = row_sums([&*g], |[g]| [g * g]);
                        *squares += sum;
                    }
                },
            );
        }
        prepared.push(g);
    }
    let scale = |(settings, squares): (&GradientSettings, &f64)| {
        if settings.clip_norm > 0.0 { settings.clip_norm / (squares.sqrt() + SMALLEST_NORM) } else { 1.0 }
    };
    let scales: Vec<f64> = lanes.iter().zip(&squares).map(scale).collect();
    let tensors = prepared.into_iter().zip(gradients).map(|(mut g, gradient)| {
        let size = g.len() / lanes.len();
        for (g, scale) in g.chunks_exact_mut(size).zip(&scales).filter(|(_, scale)| **scale < 1.0) {
            g.iter_mut().for_each(|g| *g *= *scale as f32);
        }
        Tensor::from_vec(g, gradient.shape(), gradient.device())
    });
    tensors.collect()
}

fn composed(
    lanes: &[GradientSettings],
    parameters: &[Parameter],
    gradients: &[Tensor],
) -> Result<Vec<Tensor>> {
    // For each lane its part of every gradient.
    let mut prepared = Vec::with_capacity(lanes.len());
    for (lane, settings) in lanes.iter().enumerate() {
        let mut parts = Vec::with_capacity(gradients.len());
        for (parameter, gradient) in parameters.iter().zip(gradients) {
            let mut g = gradient.narrow(0, lane, 1)?;
            let l1 = settings.l1_of(parameter.role());
            if l1 > 0.0 {
                let p = parameter.values().narrow(0, lane, 1)?;
                g = (g + (p.sign()? * l1)?)?;
            }
            if settings.clip_value > 0.0 {
                g = g.clamp(-settings.clip_value as f32, settings.clip_value as f32)?;
            }
            parts.push(g);
        }
        if settings.clip_norm > 0.0 {
            let squares = parts.iter().map(|g| g.sqr()?.sum_all()).collect::<Result<Vec<Tensor>>>()?;
            let norm = Tensor::stack(&squares, 0)?.sum_all()?.sqrt()?;
            let scale = ((norm + SMALLEST_NORM)?.recip()? * settings.clip_norm)?.minimum(1f32)?;
            parts = parts.iter().map(|g| g.broadcast_mul(&scale)).collect::<Result<_>>()?;
        }
        prepared.push(parts);
    }
    let whole =
        |index: usize| Tensor::cat(&prepared.iter().map(|parts| &parts[index]).collect::<Vec<_>>(), 0);
    (0..gradients.len()).map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::testing::{assert_close, flat, numbers};
    use crate::train::params::{Builder, Order};
    use crate::train::testing::group;
    use candle_core::DType;
    use fittingroom_common::trial::Seeds;

    const OFF: GradientSettings = GradientSettings::OFF;

    type Form = fn(&[GradientSettings], &[Parameter], &[Tensor]) -> Result<Vec<Tensor>>;

    /// What becomes of the gradients of a weight and a bias, the weight's first, lane by lane.
    fn lanes_of(form: Form, lanes: &[GradientSettings]) -> Vec<Vec<f64>> {
        let of_lanes = |name: &str, shape: &[usize]| {
            // Every lane has the same numbers.
            let one = numbers(name, shape).to_dtype(DType::F32).expect("float");
            Tensor::cat(&vec![one; lanes.len()], 0).expect("alike")
        };
        let group = group(&vec![(&[][..], Seeds::from_one(1)); lanes.len()]);
        let mut builder = Builder::new(&group.lanes, &Device::Cpu);
        let fan = crate::train::init::Fan { inputs: 7, outputs: 3 };
        builder.weight("w".to_owned(), &[3, 7], &[3, 7], Order::AsInPytorch, fan).expect("a weight");
        builder.constant("b".to_owned(), &[3], Order::AsInPytorch, 0.5).expect("a bias");
        let parameters = &builder.parameters;
        parameters[0].values().slice_set(&of_lanes("p", &[1, 3, 7]), 0, 0).expect("the same shape");
        let gradients = [of_lanes("weight", &[1, 3, 7]), of_lanes("bias", &[1, 3])];
        let prepared = form(lanes, parameters, &gradients).expect("prepared");
        let lane = |lane| prepared.iter().flat_map(|g| flat(&g.get(lane).expect("there"))).collect();
        (0..lanes.len()).map(lane).collect()
    }

    fn norm(numbers: &[f64]) -> f64 {
        numbers.iter().map(|number| number * number).sum::<f64>().sqrt()
    }

    #[test]
    fn both_forms_agree_and_lanes_do_not_see_each_other() {
        let lanes = [
            OFF,
            GradientSettings { l1: 0.1, ..OFF },
            GradientSettings { clip_value: 0.5, ..OFF },
            GradientSettings { clip_norm: 1.0, ..OFF },
            GradientSettings { clip_norm: 1e3, ..OFF },
            GradientSettings { l1: 0.1, clip_value: 0.7, clip_norm: 0.5 },
        ];
        let (fused_lanes, composed_lanes) = (lanes_of(fused, &lanes), lanes_of(composed, &lanes));
        for (settings, (together, by_candle)) in lanes.iter().zip(fused_lanes.iter().zip(&composed_lanes)) {
            assert_close(&format!("{settings:?}, composed"), by_candle, together, 1e-6);
            assert_eq!(lanes_of(fused, &[*settings])[0], *together, "{settings:?}, alone");
        }
        assert_eq!(fused_lanes[0], fused_lanes[4], "a norm below the bound is left alone");
    }

    #[test]
    fn clipped_gradients_keep_their_bounds() {
        let off = lanes_of(fused, &[OFF]).remove(0);
        assert!(norm(&off) > 2.0 && off.iter().any(|g| g.abs() > 0.9), "nothing to clip");
        let by_value = lanes_of(fused, &[GradientSettings { clip_value: 0.5, ..OFF }]).remove(0);
        let expected: Vec<f64> = off.iter().map(|g| g.clamp(-0.5, 0.5)).collect();
        assert_eq!(by_value, expected);
        let by_norm = lanes_of(fused, &[GradientSettings { clip_norm: 0.5, ..OFF }]).remove(0);
        assert!((norm(&by_norm) - 0.5).abs() < 1e-6, "{}", norm(&by_norm));
    }

    #[test]
    fn the_l1_penalty_pulls_weights_towards_0_and_leaves_biases() {
        let (off, pulled) =
            (lanes_of(fused, &[OFF]), lanes_of(fused, &[GradientSettings { l1: 0.25, ..OFF }]));
        let weights = flat(&numbers("p", &[1, 3, 7]));
        let mut expected: Vec<f64> = off[0].clone();
        expected.iter_mut().zip(&weights).for_each(|(g, p)| *g += 0.25 * p.signum());
        assert_close("weights and biases", &pulled[0], &expected, 1e-7);
    }
}
