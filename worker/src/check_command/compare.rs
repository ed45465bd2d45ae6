//! The same few steps of training on the CPU and on a device, side by side.

use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use fittingroom_common::hyperparameter::{Domain, Hyperparameters, Parameter};
use fittingroom_common::rng::Stream;
use fittingroom_common::trial::Seeds;
use rand::Rng;

use crate::train::TrainError;
use crate::train::hyper::{Group, SettingsError};
use crate::train::model::{ImageShape, Model};
use crate::train::ops::Tape;
use crate::train::ops::cross_entropy::cross_entropy;
use crate::train::optim::Optimizer;
use crate::train::rng::Moment;

/// How far from the CPU's a tensor may be, relative to its norm. Rounding alone leaves about 1e-6; but it
/// can also send a ReLU or a pooling another way, which changes gradients by far more: up to 0.013 was
/// seen in deep networks on an H100. A mistake in an operation is far beyond: a halved gradient is at 0.5.
const TOLERANCE: f64 = 0.05;
/// A tensor this small beside the largest is 0 but for rounding, as the gradient of a bias is that a
/// normalisation takes away again: distances are relative to this then.
const NOTHING: f64 = 1e-2;
const IMAGES: ImageShape = ImageShape { height: 28, width: 28, classes: 10 };
const BATCH: usize = 16;
const LANES: u64 = 2;
const STEPS: usize = 3;

/// One set of hyperparameters to compare.
pub(super) struct Comparison {
    settings: Vec<(&'static str, &'static str)>,
}

/// The largest distances from the CPU's tensors, relative to their norms.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Difference {
    logits: f64,
    gradients: f64,
    weights: f64,
}

/// The words that a hyperparameter can be.
pub(super) fn choices(name: &str) -> &'static [&'static str] {
    match Parameter::find(name).map(|parameter| parameter.definition().domain) {
        Ok(Domain::Choice(words)) => words,
        Ok(Domain::Number { .. } | Domain::Integer { .. } | Domain::Flag | Domain::Sizes { .. }) | Err(_) => {
            &[]
        }
    }
}

/// Every model with every normalisation, and every optimizer.
pub(super) fn comparisons() -> Vec<Comparison> {
    let models = choices("model").iter().flat_map(|&model| {
        choices("normalization")
            .iter()
            .map(move |&norm| vec![("model", model), ("normalization", norm), ("optimizer", "sgd")])
    });
    let optimizers =
        choices("optimizer").iter().map(|&optimizer| vec![("model", "fcn"), ("optimizer", optimizer)]);
    models.chain(optimizers).map(|settings| Comparison { settings }).collect()
}

impl Comparison {
    /// Which model it compares.
    pub(super) fn model(&self) -> &'static str {
        self.settings.iter().find(|(name, _)| *name == "model").map_or("", |(_, model)| model)
    }

    /// Its settings, for people.
    pub(super) fn name(&self) -> String {
        self.settings.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(", ")
    }

    /// Runs it on the CPU and on the device.
    pub(super) fn run(&self, device: &Device) -> Result<Difference, TrainError> {
        let group = self.group()?;
        let (expected, found) = (Steps::take(&group, &Device::Cpu)?, Steps::take(&group, device)?);
        Ok(Difference {
            logits: distance(&expected.logits, &found.logits),
            gradients: distance(&expected.gradients, &found.gradients),
            weights: distance(&expected.weights, &found.weights),
        })
    }

    fn group(&self) -> Result<Group, SettingsError> {
        // Adam divides by the gradient's own size: with its usual epsilon the rounding of a gradient
        // near 0 would become the whole of a step.
        let common =
            [("dropout", "0.25"), ("label_smoothing", "0.1"), ("epsilon", "0.001"), ("momentum", "0.9")];
        let mut hyperparameters = Hyperparameters::defaults();
        for (name, value) in common.iter().chain(&self.settings) {
            let parameter = Parameter::find(name)?;
            hyperparameters.set(parameter, &parameter.parse(value)?)?;
        }
        let trials: Vec<_> = (0..LANES)
            .map(|lane| (hyperparameters.clone(), Seeds { trial: lane, ..Seeds::from_one(0) }))
            .collect();
        Group::of(&trials)
    }
}

/// What a few steps of training lead to.
struct Steps {
    /// Before the first step.
    logits: Vec<Vec<f32>>,
    /// Of the first step.
    gradients: Vec<Vec<f32>>,
    /// After the last.
    weights: Vec<Vec<f32>>,
}

impl Steps {
    fn take(group: &Group, device: &Device) -> Result<Self, TrainError> {
        let (images, labels) = batch(device)?;
        let rates: Vec<f64> = group.lanes.iter().map(|lane| lane.update.learning_rate).collect();
        let smoothing: Vec<f64> = group.lanes.iter().map(|lane| lane.label_smoothing).collect();
        let mut model = Model::new(&group.shape, &group.lanes, IMAGES, device)?;
        let mut optimizer = Optimizer::new(group.shape.optimizer, &group.lanes, &model.parameters)?;
        let mut steps = Self { logits: Vec::new(), gradients: Vec::new(), weights: Vec::new() };
        let pass = |model: &Model, step| {
            let mut tape = Tape::new();
            let logits = model.train(&images, Moment { epoch: 1, step }, &mut tape)?;
            let loss = cross_entropy(&logits, &labels, &smoothing, Some(&mut tape))?;
            tape.backward(&loss)?;
            Ok::<_, candle_core::Error>(logits)
        };
        let logits = pass(&model, 0)?;
        steps.logits.push(numbers(&logits)?);
        for parameter in &model.parameters {
            if let Some(gradient) = parameter.take_gradient() {
                steps.gradients.push(numbers(&gradient)?);
            }
        }
        for step in 0..STEPS {
            pass(&model, step)?;
            optimizer.step(&model.parameters, &rates)?;
            model.steps.iter_mut().for_each(|steps| *steps += 1);
        }
        for parameter in &model.parameters {
            steps.weights.push(numbers(parameter.values())?);
        }
        Ok(steps)
    }
}

/// Images like standardised photographs of nothing, and their classes.
fn batch(device: &Device) -> candle_core::Result<(Tensor, Arc<[u8]>)> {
    let mut generator = Stream::new(0).named("check").generator();
    let pixels: Vec<f32> =
        (0..BATCH * IMAGES.height * IMAGES.width).map(|_| generator.random_range(-1.5..1.5)).collect();
    let images = Tensor::from_vec(pixels, (1, BATCH, IMAGES.height, IMAGES.width, 1), device)?;
    Ok((images, (0..BATCH).map(|image| (image % IMAGES.classes) as u8).collect()))
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// How far tensors are from those expected: the largest distance of all, each relative to the norm of
/// the tensor. The norm, because where a rounding sends one ReLU or pooling another way a few numbers
/// change and the rest do not. NaN stays NaN.
fn distance(expected: &[Vec<f32>], found: &[Vec<f32>]) -> f64 {
    if !expected.iter().map(Vec::len).eq(found.iter().map(Vec::len)) {
        return f64::INFINITY;
    }
    let norm =
        |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|number| number * number).sum::<f64>().sqrt();
    let norms: Vec<f64> =
        expected.iter().map(|it| norm(&mut it.iter().map(|&number| f64::from(number)))).collect();
    let largest = norms.iter().fold(f64::MIN_POSITIVE, |largest, norm| largest.max(*norm));
    let distances = expected.iter().zip(found).zip(&norms).map(|((expected, found), size)| {
        let apart = expected.iter().zip(found).map(|(expected, found)| f64::from(expected - found));
        norm(&mut apart.into_iter()) / size.max(largest * NOTHING)
    });
    distances.fold(0.0, |most, distance| if most.is_nan() || distance <= most { most } else { distance })
}

impl Difference {
    /// Whether rounding explains it.
    pub(super) fn is_rounding(&self) -> bool {
        [self.logits, self.gradients, self.weights].iter().all(|difference| *difference <= TOLERANCE)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { logits, gradients, weights } = self;
        let verdict = if self.is_rounding() { "same" } else { "DIFFERS" };
        write!(f, "{verdict:<8} logits {logits:.1e}  gradients {gradients:.1e}  weights {weights:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_the_same_as_itself() {
        let comparison = Comparison { settings: vec![("model", "fcn"), ("normalization", "batch")] };
        let difference = comparison.run(&Device::Cpu).expect("the CPU trains");
        assert_eq!((difference.logits, difference.gradients, difference.weights), (0.0, 0.0, 0.0));
        assert!(difference.is_rounding());
    }

    #[test]
    fn whatever_is_more_than_rounding_shows() {
        let expected = [vec![3.0, -4.0], vec![1.0, 0.0], vec![0.0, 0.0]];
        let with = |index: usize, numbers: &[f32]| {
            let mut found = expected.to_vec();
            found[index] = numbers.to_vec();
            found
        };
        for (name, found, expected_distance) in [
            ("equal", expected.to_vec(), 0.0),
            ("a number of the largest tensor", with(0, &[3.0, -4.5]), 0.1),
            ("a number of a small tensor", with(1, &[0.5, 0.0]), 0.5),
            ("rounding of a tensor of zeros", with(2, &[0.0, 1e-6]), 2e-5),
            ("numbers in place of zeros", with(2, &[0.0, 0.01]), 0.2),
            ("a tensor is missing", expected[..2].to_vec(), f64::INFINITY),
            ("numbers are missing", with(0, &[3.0]), f64::INFINITY),
        ] {
            let found = distance(&expected, &found);
            assert!(
                found == expected_distance || (found - expected_distance).abs() < 1e-7,
                "{name}: {found}"
            );
            let difference = Difference { weights: found, ..Difference::default() };
            assert_eq!(difference.is_rounding(), expected_distance < 1e-4, "{name}");
        }
        let weights = distance(&expected, &with(0, &[f32::NAN, -4.0]));
        assert!(!Difference { weights, ..Difference::default() }.is_rounding(), "NaN");
    }

    #[test]
    fn every_model_normalization_and_optimizer_is_compared() {
        let names: Vec<String> = comparisons().iter().map(Comparison::name).collect();
        for name in ["fcn, none, sgd", "lenet, layer, sgd", "fcn, adamw"] {
            assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
        }
        for comparison in comparisons() {
            assert!(comparison.group().is_ok(), "{}", comparison.name());
        }
    }
}
