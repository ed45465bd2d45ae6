//! What proves an op: finite differences in f64, and its composed form in f64 and f32.

use std::slice;

use candle_core::{DType, Device, Result, Tensor, Var};
use fittingroom_common::rng::Stream;
use rand::Rng;

use super::{GradientSlot, InputGradient, Leaf, Tape};

type WeightedForm<'a> = dyn Fn(&Tensor, Leaf<'_>, Leaf<'_>, Option<&mut Tape>) -> Result<Tensor> + 'a;
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
    let inputs = [numbers("x", case.x), numbers("weight", case.weight), numbers("bias", case.bias)];
    let slots = [GradientSlot::default(), GradientSlot::default()];
    let fused = |inputs: &[Tensor], tape: Option<&mut Tape>| {
        let weight = Leaf { tensor: &inputs[1], gradient: &slots[0] };
        let bias = Leaf { tensor: &inputs[2], gradient: &slots[1] };
        (case.fused)(&inputs[0], weight, bias, tape).expect(case.name)
    };
    let composed = |inputs: &[Tensor]| (case.composed)(&inputs[0], &inputs[1], &inputs[2]).expect(case.name);
    check(case.name, &inputs, &slots, &fused, &composed);
}

/// Checks an op of one input.
pub(crate) fn check_unary(
    name: &str,
    x: &Tensor,
    fused: &dyn Fn(&Tensor, Option<&mut Tape>) -> Result<Tensor>,
    composed: &dyn Fn(&Tensor) -> Result<Tensor>,
) {
    let fused = |inputs: &[Tensor], tape: Option<&mut Tape>| fused(&inputs[0], tape).expect(name);
    let composed = |inputs: &[Tensor]| composed(&inputs[0]).expect(name);
    check(name, slice::from_ref(x), &[], &fused, &composed);
}

/// `slots`: where the fused form's gradients land, of all inputs but the first.
fn check(
    name: &str,
    inputs: &[Tensor],
    slots: &[GradientSlot],
    fused: &dyn Fn(&[Tensor], Option<&mut Tape>) -> Tensor,
    composed: &dyn Fn(&[Tensor]) -> Tensor,
) {
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 2e-5)] {
        let inputs: Vec<Tensor> = inputs.iter().map(|input| input.to_dtype(dtype).expect("float")).collect();

        let mut tape = Tape::taking(InputGradient::Wanted);
        let y = fused(&inputs, Some(&mut tape));
        let dx = tape.play(weights_of(&y)).expect("a gradient").expect("that of the input is wanted");
        let of_slots = slots.iter().map(|slot| flat(&slot.take().expect("every input gets a gradient")));
        let gradients: Vec<Vec<f64>> = [flat(&dx)].into_iter().chain(of_slots).collect();

        let variables: Vec<Var> =
            inputs.iter().map(|input| Var::from_tensor(input).expect("a variable")).collect();
        let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let composed_y = composed(&tensors);
        let mut store = objective(&composed_y).backward().expect("a gradient");
        let composed_gradients =
            tensors.iter().map(|tensor| flat(&store.remove(tensor).expect("every input gets a gradient")));

        assert_close(&format!("{name}: result in {dtype:?}"), &flat(&y), &flat(&composed_y), tolerance);
        for (which, (fused, composed)) in gradients.iter().zip(composed_gradients).enumerate() {
            assert_close(&format!("{name}: gradient {which} in {dtype:?}"), fused, &composed, tolerance);
        }
        if dtype == DType::F64 {
            check_differences(name, &inputs, &gradients, |inputs| fused(inputs, None));
        }
    }
}

/// A scalar that depends on every number of a result, each with another weight.
fn objective(y: &Tensor) -> Tensor {
    (y * weights_of(y)).and_then(|product| product.sum_all()).expect("a sum")
}

/// The gradient of the [`objective`].
fn weights_of(y: &Tensor) -> Tensor {
    numbers("objective", y.dims()).to_dtype(y.dtype()).expect("float")
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
    let tensor = tensor.to_dtype(DType::F64).expect("float").flatten_all().expect("flat");
    tensor.to_vec1().expect("f64")
}

/// Compares numbers one by one, relative to the largest of them.
pub(crate) fn assert_close(what: &str, given: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(given.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0f64, |scale, number| scale.max(number.abs()));
    for (index, (given, expected)) in given.iter().zip(expected).enumerate() {
        assert!((given - expected).abs() <= tolerance * scale, "{what}, at {index}: {given}, not {expected}");
    }
}
