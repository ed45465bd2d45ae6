//! Initial weights: PyTorch's formulas exactly, and the moments and bounds of what a model draws.

use fittingroom_common::trial::Seeds;

use super::{assert_near, device, fixture};
use crate::train::init::{Distribution, Fan, TRUNCATION, orthogonal};
use crate::train::model::{ImageShape, Model};
use crate::train::ops::testing::flat;
use crate::train::testing::{Settings, group};

const TABLE: [(&str, Settings<'_>); 11] = [
    ("normal", &[("initialization", "normal"), ("initialization_std", "0.02")]),
    ("xavier_normal", &[("initialization", "xavier_normal")]),
    ("xavier_uniform", &[("initialization", "xavier_uniform")]),
    ("kaiming_normal", &[("initialization", "kaiming_normal")]),
    ("kaiming_uniform", &[("initialization", "kaiming_uniform")]),
    ("uniform", &[("initialization", "uniform"), ("initialization_bound", "0.07")]),
    ("truncated_normal", &[("initialization", "truncated_normal"), ("initialization_std", "1.5")]),
    (
        "xavier_uniform, gain of tanh",
        &[("initialization", "xavier_uniform"), ("initialization_gain", "1.6666666666666667")],
    ),
    ("kaiming_normal, fan_out", &[("initialization", "kaiming_normal"), ("initialization_fan", "fan_out")]),
    (
        // The gain is a factor beside that of ReLU, the square root of 2.
        "kaiming_uniform, gain of a linear layer",
        &[("initialization", "kaiming_uniform"), ("initialization_gain", "0.7071067811865476")],
    ),
    ("pytorch_default", &[("initialization", "pytorch_default")]),
];
const ORTHOGONAL: [&str; 4] =
    ["orthogonal, wide", "orthogonal, tall", "orthogonal, square", "orthogonal, of a convolution"];
const LAYERS: [&str; 4] = ["conv1", "conv2", "fc1", "fc3"];
const IMAGES: ImageShape = ImageShape { height: 28, width: 28, classes: 10 };

#[test]
fn formulas_moments_and_bounds_are_pytorchs() {
    let fixture = fixture!("initializations");
    let rows = TABLE.map(|(name, _)| LAYERS.map(|layer| format!("{name}, {layer}")));
    fixture.assert_rows(rows.iter().flatten().map(String::as_str).chain(ORTHOGONAL));
    for ((name, settings), rows) in TABLE.into_iter().zip(&rows) {
        let group = group(&[(&[&[("model", "lenet")], settings].concat(), Seeds::from_one(7))]);
        let model = Model::new(&group.shape, &group.lanes, IMAGES, device()).expect("a model");
        let draws = |tensor: String| {
            flat(&model.named.iter().find(|named| named.name == tensor).expect("there").values)
        };
        for (layer, row) in LAYERS.into_iter().zip(rows) {
            let [inputs, outputs] = fixture.get(row, "fans").values[..] else { panic!("{row}: two fans") };
            let [deviation, bound] = fixture.get(row, "formula").values[..] else { panic!("{row}: two") };
            let fan = Fan { inputs: inputs as usize, outputs: outputs as usize };
            match group.lanes[0].initialization.distribution(fan) {
                Distribution::Normal(ours) => {
                    assert_near(row, &[ours], &[deviation], 1e-15);
                    assert!(bound.is_infinite(), "{row}");
                }
                Distribution::Uniform(ours) => assert_near(row, &[ours], &[bound], 1e-15),
                Distribution::TruncatedNormal(_) => assert_eq!(TRUNCATION, bound, "{row}"),
                other => panic!("{row}: {other:?}"),
            }
            let weight = draws(format!("{layer}.weight"));
            check_moments(&format!("{row}, ours"), weight.len(), &moments(&weight), [deviation, bound]);
            let pytorch = &fixture.get(row, "drawn").values;
            check_moments(&format!("{row}, PyTorch's"), weight.len(), pytorch, [deviation, bound]);
            let bias = draws(format!("{layer}.bias"));
            match fixture.find(row, "bias_drawn") {
                Some(pytorch) => {
                    assert_eq!(name, "pytorch_default");
                    for (who, moments) in [("ours", &moments(&bias)), ("PyTorch's", &pytorch.values)] {
                        check_moments(
                            &format!("{row}, bias, {who}"),
                            bias.len(),
                            moments,
                            [deviation, bound],
                        );
                    }
                }
                None => assert!(bias.iter().all(|bias| *bias == 0.0), "{row}"),
            }
        }
    }
}

/// Checks mean, standard deviation, least and largest of some draws against a distribution's
/// deviation and bound.
fn check_moments(what: &str, count: usize, moments: &[f64], [deviation, bound]: [f64; 2]) {
    let [mean, spread, least, largest] = moments[..] else { panic!("{what}: four moments") };
    // Five standard errors: of the mean, and of the deviation of a normal distribution, which is
    // known less well than that of the others.
    let count = count as f64;
    let (mean_error, deviation_error) = (5.0 / count.sqrt(), 5.0 / (2.0 * count).sqrt());
    assert!(mean.abs() <= mean_error * deviation, "{what}: mean {mean}");
    assert_near(&format!("{what}: deviation"), &[spread], &[deviation], deviation_error);
    for extreme in [-least, largest] {
        if bound.is_finite() {
            // Rounding to f32 may lift a draw above the bound. That no draw falls into the outermost
            // 15 / count of the range has a chance of e^-15 if they are uniform, and about e^-8 if
            // they are the truncated ones of the table.
            assert!(extreme <= bound * (1.0 + 1e-7), "{what}: {extreme} above {bound}");
            assert!(extreme >= bound * (1.0 - 30.0 / count), "{what}: only {extreme}");
        } else {
            // The largest of n normal numbers lies near the square root of 2 ln n.
            let usual = deviation * (2.0 * count.ln()).sqrt();
            assert_near(&format!("{what}: extreme"), &[extreme], &[usual], 0.4);
        }
    }
}

#[test]
fn orthogonal_weights_are_what_pytorch_makes_of_the_same_draws() {
    let fixture = fixture!("initializations");
    for row in ORTHOGONAL {
        let [draw, weight] = ["draw", "weight"].map(|name| fixture.get(row, name));
        let [rows, columns] = weight.shape[..] else { panic!("{row}: a matrix") };
        let gain = fixture.get(row, "gain").values[0];
        // The engine draws the vectors one after the other; unless the matrix is wide, they are its columns.
        let vectors = if rows < columns { draw.values.clone() } else { transposed(&draw.values, columns) };
        let ours: Vec<f64> =
            orthogonal(vectors, rows, columns).into_iter().map(|value| gain * value).collect();
        assert_near(row, &ours, &weight.values, 1e-13);
    }
}

fn transposed(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

/// Mean, standard deviation, least and largest.
fn moments(draws: &[f64]) -> Vec<f64> {
    let count = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / count;
    let squares = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>();
    let least = draws.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = draws.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    vec![mean, (squares / (count - 1.0)).sqrt(), least, largest]
}
