//! Initial weights: PyTorch's formulas exactly, and the moments and bounds of what a model draws.

use candle_core::Device;
use fittingroom_common::trial::Seeds;

use super::{assert_near, fixture};
use crate::train::init::{Distribution, Fan};
use crate::train::model::{ImageShape, Model};
use crate::train::ops::testing::flat;
use crate::train::testing::group;

const TABLE: [&str; 5] = ["normal", "xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform"];
const LAYERS: [&str; 4] = ["conv1", "conv2", "fc1", "fc3"];
const IMAGES: ImageShape = ImageShape { height: 28, width: 28, classes: 10 };

#[test]
fn formulas_moments_and_bounds_are_pytorchs() {
    let fixture = fixture!("initializations");
    let rows = TABLE.map(|name| LAYERS.map(|layer| format!("{name}, {layer}")));
    fixture.assert_rows(rows.iter().flatten().map(String::as_str));
    for (name, rows) in TABLE.into_iter().zip(&rows) {
        let settings = &[("model", "lenet"), ("initialization", name), ("initialization_std", "0.02")];
        let group = group(&[(settings, Seeds::from_one(7))]);
        let model = Model::new(&group.shape, &group.lanes, IMAGES, &Device::Cpu).expect("a model");
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
            }

            let weight = format!("{layer}.weight");
            let named = model.named.iter().find(|named| named.name == weight).expect("a weight");
            let pytorch = &fixture.get(row, "drawn").values;
            let draws = flat(&named.values);
            // Five standard errors: of the mean, and of the deviation of a normal distribution,
            // which is known less well than that of a uniform one.
            let count = draws.len() as f64;
            let (mean_error, deviation_error) = (5.0 / count.sqrt(), 5.0 / (2.0 * count).sqrt());
            for (who, moments) in [("ours", &moments(&draws)), ("PyTorch's", pytorch)] {
                let [mean, spread, least, largest] = moments[..] else { panic!("{row}: four moments") };
                assert!(mean.abs() <= mean_error * deviation, "{row}, {who}: mean {mean}");
                assert_near(&format!("{row}, {who}: deviation"), &[spread], &[deviation], deviation_error);
                for extreme in [-least, largest] {
                    if bound.is_finite() {
                        // Rounding to f32 may lift a draw above the bound. That no draw falls into
                        // the outermost 15 / count of the range has a chance of e^-15.
                        assert!(extreme <= bound * (1.0 + 1e-7), "{row}, {who}: {extreme} above {bound}");
                        assert!(extreme >= bound * (1.0 - 30.0 / count), "{row}, {who}: only {extreme}");
                    } else {
                        // The largest of n normal numbers lies near the square root of 2 ln n.
                        let usual = deviation * (2.0 * count.ln()).sqrt();
                        assert_near(&format!("{row}, {who}: extreme"), &[extreme], &[usual], 0.4);
                    }
                }
            }
        }
    }
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
