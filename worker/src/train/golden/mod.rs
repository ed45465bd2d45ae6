//! Comparisons with PyTorch: its numbers lie in `tests/golden/`, beside the script that makes them.
//!
//! The fixtures hold inputs that f32 represents exactly and results in f64, all in PyTorch's
//! layouts. Whatever differs is the engine's fault: tolerances are for rounding alone.

mod batch_norm;
mod group_norm;
mod initializations;
mod mixed_losses;
mod models;
mod ops;
mod optimizers;
mod schedules;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Result, Tensor, Var};
use safetensors::{Dtype, SafeTensors};

use super::ops::testing::flat;
use super::ops::{GradientSlot, InputGradient, Leaf, Tape};
use super::params::Order;
use super::testing::device;

/// What rounding may do to one op, relative to the largest number of a result.
const ROUNDING: [(DType, f64); 2] = [(DType::F64, 1e-13), (DType::F32, 5e-6)];

/// The two forms of an op: on the CPU, and on other devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Fused,
    Composed,
}

/// One tensor as PyTorch has it.
#[derive(Debug)]
struct Golden {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// A file of PyTorch's numbers: tensors by row and name.
#[derive(Debug)]
struct Fixture(BTreeMap<String, Golden>);

impl Fixture {
    /// Reads the bytes of a file.
    fn new(bytes: &[u8]) -> Self {
        let file = SafeTensors::deserialize(bytes).expect("safetensors");
        let tensors = file.iter().map(|(name, view)| {
            assert_eq!(view.dtype(), Dtype::F64, "{name}");
            let values = view.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            (name.to_owned(), Golden { shape: view.shape().to_vec(), values: values.collect() })
        });
        Self(tensors.collect())
    }

    fn find(&self, row: &str, tensor: &str) -> Option<&Golden> {
        self.0.get(&format!("{row}/{tensor}"))
    }

    fn get(&self, row: &str, tensor: &str) -> &Golden {
        self.find(row, tensor).unwrap_or_else(|| panic!("the fixture has no {row}/{tensor}"))
    }

    /// How many tensors a row has.
    fn count(&self, row: &str) -> usize {
        self.0.keys().filter(|key| key.split_once('/').is_some_and(|(of, _)| of == row)).count()
    }

    /// Checks that the rows of a table are all that this file has.
    fn assert_rows<'a>(&self, table: impl IntoIterator<Item = &'a str>) {
        let rows: BTreeSet<&str> = self.0.keys().filter_map(|key| Some(key.split_once('/')?.0)).collect();
        assert_eq!(rows, table.into_iter().collect());
    }
}

/// Reads a file of `tests/golden/`.
macro_rules! fixture {
    ($name:literal) => {
        $crate::train::golden::Fixture::new(include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/",
            $name,
            ".safetensors"
        )))
    };
}
use fixture;

/// How the engine keeps a tensor: the order of its numbers, and its dimensions.
#[derive(Clone, Debug)]
struct Layout {
    order: Order,
    dims: Vec<usize>,
}

impl Layout {
    /// Of activations: PyTorch's `[batch, features]` or `[batch, channels, height, width]`, or one number.
    fn of_activations(shape: &[usize]) -> Self {
        match *shape {
            [batch, channels, height, width] => Self {
                order: Order::ChannelsLast { pixels: height * width, channels },
                dims: vec![1, batch, height, width, channels],
            },
            _ => Self { order: Order::AsInPytorch, dims: [&[1], shape].concat() },
        }
    }

    /// Of a parameter of an op that takes activations of this layout.
    fn of_parameter(shape: &[usize], activations: &Self) -> Self {
        match *shape {
            [outputs, channels, height, width] => Self {
                order: Order::ChannelsLast { pixels: height * width, channels },
                dims: vec![1, outputs, channels * height * width],
            },
            [channels, height, width] => Self {
                order: Order::ChannelsLast { pixels: height * width, channels },
                dims: vec![1, channels * height * width],
            },
            [outputs, inputs] => Self { order: activations.order, dims: vec![1, outputs, inputs] },
            _ => Self { order: Order::AsInPytorch, dims: [&[1], shape].concat() },
        }
    }

    /// PyTorch's values in the engine's order.
    fn numbers(&self, golden: &Golden) -> Vec<f64> {
        // Orders are of f32, so it is the places that are put in order.
        let places: Vec<f32> = (0..golden.values.len()).map(|place| place as f32).collect();
        self.order.to_engine(&places).into_iter().map(|place| golden.values[place as usize]).collect()
    }

    fn tensor(&self, golden: &Golden, dtype: DType) -> Tensor {
        Tensor::from_vec(self.numbers(golden), self.dims.as_slice(), device())
            .and_then(|tensor| tensor.to_dtype(dtype))
            .expect("the shape fits")
    }
}

/// Checks an op's result and all of its gradients against a row of a fixture.
fn check_op(
    fixture: &Fixture,
    row: &str,
    form: Form,
    (dtype, tolerance): (DType, f64),
    op: impl FnOnce(Form, &Tensor, &[Leaf<'_>], Option<&mut Tape>) -> Result<Tensor>,
) {
    let variable = |name: &str, layout: &Layout| {
        Var::from_tensor(&layout.tensor(fixture.get(row, name), dtype)).expect("a variable")
    };
    let x_layout = Layout::of_activations(&fixture.get(row, "x").shape);
    let x = variable("x", &x_layout);
    let parameters: Vec<(&str, Layout, Var)> = ["weight", "bias"]
        .into_iter()
        .filter_map(|name| {
            let layout = Layout::of_parameter(&fixture.find(row, name)?.shape, &x_layout);
            let variable = variable(name, &layout);
            Some((name, layout, variable))
        })
        .collect();
    let slots = [GradientSlot::default(), GradientSlot::default()];
    let leaves: Vec<Leaf<'_>> = parameters
        .iter()
        .zip(&slots)
        .map(|((_, _, variable), gradient)| Leaf { tensor: variable, gradient })
        .collect();

    let mut tape = Tape::taking(InputGradient::Wanted);
    let y = op(form, &x, &leaves, Some(&mut tape)).expect(row);
    let y_layout = Layout::of_activations(&fixture.get(row, "y").shape);
    let dy = y_layout.tensor(fixture.get(row, "dy"), dtype);
    let (dx, mut store) = match form {
        Form::Fused => (tape.play(dy).expect("gradients"), None),
        Form::Composed => {
            let mut store = (&y * dy).and_then(|y| y.sum_all()?.backward()).expect("gradients");
            (store.remove(&x), Some(store))
        }
    };

    let what = |name: &str| format!("{row}, {form:?}, {dtype:?}: {name}");
    let check = |name: &str, given: &Tensor, layout: &Layout| {
        assert_eq!(given.dims(), layout.dims, "{}", what(name));
        assert_near(&what(name), &flat(given), &layout.numbers(fixture.get(row, name)), tolerance);
    };
    check("y", &y, &y_layout);
    check("dx", &dx.expect("a gradient"), &x_layout);
    for ((name, layout, variable), slot) in parameters.iter().zip(&slots) {
        let gradient = slot.take().or_else(|| store.as_mut()?.remove(variable)).expect("a gradient");
        check(&format!("d{name}"), &gradient, layout);
    }
}

/// Compares numbers one by one, relative to the largest of those expected, however small it is.
fn assert_near(what: &str, given: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(given.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |largest, number| largest.max(number.abs()));
    for (index, (given, expected)) in given.iter().zip(expected).enumerate() {
        let error = (given - expected).abs() / largest.max(f64::MIN_POSITIVE);
        assert!(error <= tolerance, "{what}, at {index}: {given}, not {expected}: off by {error:e}");
    }
}
