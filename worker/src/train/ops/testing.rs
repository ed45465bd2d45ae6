//! What proves an op: finite differences in f64, and its composed form in f64 and f32.

use candle_core::{DType, Device, Result, Tensor, Var};
use fittingroom_common::rng::Stream;
use rand::Rng;

use super::{GradientSlot, Leaf};

type WeightedForm<'a> = dyn Fn(&Tensor, Leaf<'_>, Leaf<'_>) -> Result<Tensor> + 'a;
type ComposedForm<'a> = dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + 'a;

/// One row of a table of checks.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) x: &'a [usize],
    pub(crate) weight: &'a [usize],
    pub(crate) bias: &'a [usize],
    pub(crate) fused: &'a WeightedForm<'a>,
    pub(crate) composed: &'a ComposedForm<'a>,
}

/// Numbers from -1 to 1, the same for the same name, no two of a tensor alike.
pub(crate) fn numbers(name: &str, shape: &[usize]) -> Tensor {
    let mut generator = Stream::new(1).named(name).generator();
    let count: usize = shape.iter().product();
    let numbers: Vec<f64> = (0..count).map(|_| generator.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).expect("the shape fits")
}

/// Checks an op of activations, weight and bias.
pub(crate) fn check_weighted(case: Case<'_>) {
    let inputs = [
        numbers("x", case.x),
        numbers("weight", case.weight),
        numbers("bias", case.bias),
    ];
    let fused = |inputs: &[Tensor]| {
        let slots = [GradientSlot::default(), GradientSlot::default()];
        let leaf = |index: usize| Leaf {
            tensor: &inputs[index],
            gradient: &slots[index - 1],
        };
        let y = (case.fused)(&inputs[0], leaf(1), leaf(2)).expect(case.name);
        (y, slots)
    };
    let composed = |inputs: &[Tensor]| (case.composed)(&inputs[0], &inputs[1], &inputs[2]).expect(case.name);

    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 2e-5)] {
        let (fused_y, fused_gradients) = gradients(&inputs, dtype, |inputs| fused(inputs));
        let (composed_y, composed_gradients) =
            gradients(&inputs, dtype, |inputs| (composed(inputs), Default::default()));
        assert_close(
            &format!("{}: result in {dtype:?}", case.name),
            &fused_y,
            &composed_y,
            tolerance,
        );
        for (which, (fused, composed)) in fused_gradients.iter().zip(&composed_gradients).enumerate() {
            assert_close(
                &format!("{}: gradient {which} in {dtype:?}", case.name),
                fused,
                composed,
                tolerance,
            );
        }
        if dtype == DType::F64 {
            check_differences(case.name, &inputs, &fused_gradients, |inputs| fused(inputs).0);
        }
    }
}

/// Checks an op of one input.
pub(crate) fn check_unary(
    name: &str,
    x: &Tensor,
    fused: &dyn Fn(&Tensor) -> Result<Tensor>,
    composed: &dyn Fn(&Tensor) -> Result<Tensor>,
) {
    let inputs = [x.clone()];
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 2e-5)] {
        let run = |form: &dyn Fn(&Tensor) -> Result<Tensor>| {
            gradients(&inputs, dtype, |inputs| {
                (form(&inputs[0]).expect(name), Default::default())
            })
        };
        let ((fused_y, fused_gradients), (composed_y, composed_gradients)) = (run(fused), run(composed));
        assert_close(
            &format!("{name}: result in {dtype:?}"),
            &fused_y,
            &composed_y,
            tolerance,
        );
        assert_close(
            &format!("{name}: gradient in {dtype:?}"),
            &fused_gradients[0],
            &composed_gradients[0],
            tolerance,
        );
        if dtype == DType::F64 {
            check_differences(name, &inputs, &fused_gradients, |inputs| {
                fused(&inputs[0]).expect(name)
            });
        }
    }
}

/// A scalar that depends on every number of a result, each with another weight.
fn objective(y: &Tensor) -> Tensor {
    let weights = numbers("objective", y.dims()).to_dtype(y.dtype()).expect("float");
    (y * weights)
        .and_then(|product| product.sum_all())
        .expect("a sum")
}

fn gradients(
    inputs: &[Tensor],
    dtype: DType,
    form: impl Fn(&[Tensor]) -> (Tensor, [GradientSlot; 2]),
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let variables: Vec<Var> = inputs
        .iter()
        .map(|input| Var::from_tensor(&input.to_dtype(dtype).expect("float")).expect("a variable"))
        .collect();
    let tensors: Vec<Tensor> = variables
        .iter()
        .map(|variable| variable.as_tensor().clone())
        .collect();
    let (y, slots) = form(&tensors);
    let mut store = objective(&y).backward().expect("a gradient");
    let gradients = tensors.iter().enumerate().map(|(index, tensor)| {
        let short_cut = index.checked_sub(1).and_then(|index| slots[index].take());
        flat(
            &short_cut
                .or_else(|| store.remove(tensor))
                .expect("every input gets a gradient"),
        )
    });
    let gradients = gradients.collect();
    (flat(&y), gradients)
}

fn check_differences(
    name: &str,
    inputs: &[Tensor],
    gradients: &[Vec<f64>],
    form: impl Fn(&[Tensor]) -> Tensor,
) {
    const STEP: f64 = 1e-6;
    for (which, input) in inputs.iter().enumerate() {
        let values = flat(input);
        for index in 0..values.len() {
            let at = |shift: f64| {
                let mut values = values.clone();
                values[index] += shift;
                let mut inputs = inputs.to_vec();
                inputs[which] =
                    Tensor::from_vec(values, input.shape(), &Device::Cpu).expect("the shape fits");
                objective(&form(&inputs)).to_scalar::<f64>().expect("a scalar")
            };
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let given = gradients[which][index];
            let difference = (slope - given).abs();
            assert!(
                difference <= 1e-6 * (1.0 + slope.abs()),
                "{name}: gradient {which} at {index} is {given}, but the slope is {slope}"
            );
        }
    }
}

/// All numbers of a tensor, as f64.
pub(crate) fn flat(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor
        .to_dtype(DType::F64)
        .expect("float")
        .flatten_all()
        .expect("flat");
    tensor.to_vec1().expect("f64")
}

/// Compares numbers one by one, relative to the largest of them.
pub(crate) fn assert_close(what: &str, given: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(given.len(), expected.len(), "{what}");
    let scale = expected
        .iter()
        .fold(1.0f64, |scale, number| scale.max(number.abs()));
    for (index, (given, expected)) in given.iter().zip(expected).enumerate() {
        assert!(
            (given - expected).abs() <= tolerance * scale,
            "{what}, at {index}: {given}, not {expected}"
        );
    }
}
