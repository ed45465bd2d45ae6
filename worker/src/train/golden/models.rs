//! Whole models and the ops that only some of them have.
//!
//! Weights, images and gradients of whole models are too many for a fixture. So both sides fill weights
//! and images with the same [`pattern`], and of each gradient the fixture has its length and its
//! products with four patterns, which no mistake leaves as they were.

use candle_core::Tensor;
use fittingroom_common::trial::Seeds;

use super::{Form, ROUNDING, assert_near, check_op, device, fixture};
use crate::train::model::{ImageShape, Model};
use crate::train::ops::Tape;
use crate::train::ops::average_pool::{self, average_pool};
use crate::train::ops::cross_entropy::cross_entropy;
use crate::train::ops::response_norm::{self, response_norm};
use crate::train::ops::testing::flat;
use crate::train::ops::upsample::{self, upsample};
use crate::train::params::Kind;
use crate::train::rng::Moment;
use crate::train::testing::{Settings, group};

/// What rounding may do to whole models in f32, relative to the length of a gradient.
const MODEL_ROUNDING: f64 = 5e-6;
/// The same for gradients on a GPU, which rounds otherwise than the CPU for which the problems were chosen:
/// there a ReLU or a pooling that is near the edge may go the other way.
const GPU_ROUNDING: f64 = 1e-3;
/// A gradient shorter than this part of the longest is zero but for rounding: biases before batch
/// normalisation have no effect.
const NO_EFFECT: f64 = 1e-9;

#[derive(Clone, Copy, Debug)]
enum Op {
    AveragePool,
    ResponseNorm,
    Upsample(usize, usize),
}

const OPS: [(&str, Op); 6] = [
    ("global average pool", Op::AveragePool),
    ("local response norm", Op::ResponseNorm),
    ("local response norm of few channels", Op::ResponseNorm),
    ("bilinear to 9x7", Op::Upsample(9, 7)),
    ("bilinear to 13x4", Op::Upsample(13, 4)),
    ("bilinear to 2x3", Op::Upsample(2, 3)),
];

#[test]
fn results_and_gradients_of_the_models_ops_are_pytorchs() {
    let fixture = fixture!("model_ops");
    fixture.assert_rows(OPS.map(|(row, _)| row));
    for (row, op) in OPS {
        for form in [Form::Fused, Form::Composed] {
            for rounding in ROUNDING {
                check_op(&fixture, row, form, rounding, |form, x, _, tape| match (op, form) {
                    (Op::AveragePool, Form::Fused) => average_pool(x, tape),
                    (Op::AveragePool, Form::Composed) => average_pool::composed(x),
                    (Op::ResponseNorm, Form::Fused) => response_norm(x, tape),
                    (Op::ResponseNorm, Form::Composed) => response_norm::composed(x),
                    (Op::Upsample(height, width), Form::Fused) => upsample(x, height, width, tape),
                    (Op::Upsample(height, width), Form::Composed) => upsample::composed(x, height, width),
                });
            }
        }
    }
}

const UNITS: (&str, &str) = ("classifier_units", "24");

const MODELS: [(&str, Settings<'_>); 10] = [
    ("dnn", &[("model", "dnn"), ("depth", "3"), ("width", "20"), ("normalization", "layer")]),
    (
        "dnn with shortcuts",
        &[
            ("model", "dnn"),
            ("depth", "3"),
            ("width", "20"),
            ("residual", "true"),
            ("normalization", "batch"),
        ],
    ),
    ("cnn", &[("model", "cnn"), ("channels", "16,20"), ("hidden_sizes", "24"), ("normalization", "batch")]),
    (
        "cnn of even windows",
        &[("model", "cnn"), ("channels", "5,6,7"), ("kernel_size", "4"), ("hidden_sizes", "24,12")],
    ),
    ("alexnet", &[("model", "alexnet"), UNITS]),
    ("the original alexnet", &[("model", "alexnet"), ("alexnet_geometry", "original"), UNITS]),
    ("vgg", &[("model", "vgg"), ("normalization", "batch")]),
    ("resnet", &[("model", "resnet"), ("channels", "6,6,9"), ("normalization", "batch")]),
    ("resnet without norms", &[("model", "resnet"), ("channels", "6,6,9")]),
    (
        "wide_resnet",
        &[("model", "wide_resnet"), ("blocks", "1"), ("widen_factor", "2"), ("normalization", "batch")],
    ),
];

#[test]
fn logits_and_gradients_of_whole_models_are_pytorchs() {
    let fixture = fixture!("models");
    fixture.assert_rows(MODELS.map(|(row, _)| row));
    for (row, settings) in MODELS {
        let group = group(&[(settings, Seeds::from_one(1))]);
        let images = ImageShape { height: 28, width: 28, classes: 10 };
        let model = Model::new(&group.shape, &group.lanes, images, device()).expect(row);
        for named in model.named.iter().filter(|named| named.kind == Kind::Parameter) {
            let count: usize = named.shape.iter().product();
            let (middle, width) = match named.name.rsplit_once('.') {
                Some((layer, "weight")) if layer.starts_with("norm") => (1.0, 0.5),
                Some((_, "bias")) => (0.0, 0.25),
                _ => (0.0, weight_width(count / named.shape[0])),
            };
            let values: Vec<f32> =
                pattern(&named.name, count).map(|number| middle + width * number).collect();
            named.set_lane(0, &values).expect("it fits");
        }
        let batch = fixture.get(row, "logits").shape[0];
        let x: Vec<f32> = pattern("images", batch * 28 * 28).map(|number| 4.0 * number).collect();
        let x = Tensor::from_vec(x, (1, batch, 28, 28, 1), device()).expect("images");
        let labels: Vec<u8> = (0..batch).map(|image| (image * 3 % 10) as u8).collect();

        let mut tape = Tape::new();
        let logits = model.train(&x, Moment { epoch: 1, step: 0 }, &mut tape).expect(row);
        assert_near(
            &format!("{row}: logits"),
            &flat(&logits),
            &fixture.get(row, "logits").values,
            MODEL_ROUNDING,
        );
        let loss = cross_entropy(&logits, &labels.into(), &[0.0], Some(&mut tape)).expect("a loss");
        tape.backward(&loss).expect("gradients");

        let parameters = model.named.iter().filter(|named| named.kind == Kind::Parameter);
        let gradients = model.parameters.iter().zip(parameters).map(|(parameter, named)| {
            let gradient = parameter.take_gradient().expect("a gradient");
            let gradient = gradient.flatten_all().and_then(|gradient| gradient.to_vec1::<f32>());
            (named.name.as_str(), named.order.to_pytorch(&gradient.expect("f32")))
        });
        let gradients: Vec<(&str, Vec<f32>)> = gradients.collect();
        assert_eq!(fixture.count(row), gradients.len() + 1, "{row}: tensors");
        let expected = |name: &str| &fixture.get(row, &format!("d{name}")).values;
        let longest = gradients.iter().fold(0.0f64, |longest, (name, _)| longest.max(expected(name)[0]));
        for (name, gradient) in &gradients {
            let expected = expected(name);
            let scale = if expected[0] < NO_EFFECT * longest { longest } else { expected[0] };
            for (which, (given, expected)) in probes(name, gradient).iter().zip(expected).enumerate() {
                let error = (given - expected).abs() / scale;
                assert!(
                    error <= if device().is_cpu() { MODEL_ROUNDING } else { GPU_ROUNDING },
                    "{row}, {name}, number {which}: {given}, not {expected}: off by {error:e}"
                );
            }
        }
    }
}

/// The width of a weight's pattern: a power of two, so that products with it are exact, near that of He's uniform
/// initialisation.
fn weight_width(inputs: usize) -> f32 {
    2f32.powi((2.0 * (6.0 / inputs as f64).sqrt()).log2().round() as i32)
}

/// A gradient's length, and its products with four patterns.
fn probes(name: &str, gradient: &[f32]) -> [f64; 5] {
    let dot = |numbers: &mut dyn Iterator<Item = f32>| -> f64 {
        gradient.iter().zip(numbers).map(|(gradient, number)| f64::from(*gradient) * f64::from(number)).sum()
    };
    std::array::from_fn(|which| match which {
        0 => dot(&mut gradient.iter().copied()).sqrt(),
        _ => dot(&mut pattern(&format!("{name}, probe {which}"), gradient.len())),
    })
}

/// Numbers from -0.5 to 0.5 that every language computes alike: 16 bits of a hash of name and place
/// (FNV-1a, and the last step of MurmurHash3).
fn pattern(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..count as u32).map(move |place| {
        let mut hash = seed.wrapping_add(place.wrapping_mul(0x9e37_79b9));
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^= hash >> 16;
        (hash >> 16) as f32 / 65536.0 - 0.5
    })
}
