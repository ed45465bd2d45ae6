//! How many images a second a device trains on.

use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};

use fittingroom_common::dataset::{Dataset, Part, Shape};
use fittingroom_common::hyperparameter::{Hyperparameters, Parameter};
use fittingroom_common::trial::Seeds;

use crate::train::data::Placed;
use crate::train::device::{DeviceChoice, Opened};
use crate::train::hyper::{Group, SettingsError};
use crate::train::{Progress, Testing, TrainError, train};

/// Steps of the epoch that is measured, of one lane; the epoch before it warms the device up.
const STEPS: usize = 64;
/// Fewest steps of several lanes.
const FEWEST_STEPS: usize = 4;

/// The heading of the table.
pub(super) const HEADING: &str = "model        batch  lanes   images/s   utilization";

/// What is measured: a model, its batch, and how many are trained at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    model: &'static str,
    batch: usize,
    lanes: u64,
}

/// What a device made of a load.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Speed {
    model: &'static str,
    batch: usize,
    lanes: u64,
    /// Images a second, those of all lanes together; `None` where the memory does not suffice.
    images_per_second: Option<f64>,
    /// Mean share of the time in which the GPU was busy, from 0 to 1; `None` where nobody can tell.
    utilization: Option<f64>,
}

/// The table's rows, or those of so many lanes.
pub(super) fn loads(lanes: Option<u64>) -> impl Iterator<Item = Load> {
    let models = [("fcn", 128), ("fcn", 512), ("lenet", 128), ("resnet", 128), ("alexnet", 128)];
    let lanes = lanes.map_or_else(|| vec![1, 4, 16, 64], |lanes| vec![lanes]);
    models.into_iter().flat_map(move |(model, batch)| {
        lanes.clone().into_iter().map(move |lanes| Load { model, batch, lanes })
    })
}

impl Load {
    /// Which model it trains.
    pub(super) fn model(&self) -> &'static str {
        self.model
    }

    /// Trains for two epochs and measures the second.
    pub(super) fn measure(self, opened: &Opened) -> Result<Speed, TrainError> {
        let dataset = drawn(self.batch * (STEPS / self.lanes as usize).max(FEWEST_STEPS));
        let placed = Placed::new(dataset, &opened.device)?;
        let monitor = Monitor::start(opened.choice);
        let mut images_per_second = None;
        let trained = train(&self.group()?, &placed, Testing::Never, &mut |progress| {
            if let Progress::Epoch([Ok(report), ..]) = progress {
                images_per_second = Some(report.images_per_second * self.lanes as f64);
            }
            ControlFlow::Continue(())
        });
        match trained {
            Ok(_) => {}
            Err(TrainError::OutOfMemory(_)) => images_per_second = None,
            Err(error) => return Err(error),
        }
        let utilization = monitor.and_then(Monitor::mean);
        Ok(Speed { model: self.model, batch: self.batch, lanes: self.lanes, images_per_second, utilization })
    }

    fn group(self) -> Result<Group, SettingsError> {
        let mut hyperparameters = Hyperparameters::defaults();
        let batch = self.batch.to_string();
        for (name, value) in
            [("model", self.model), ("batch_size", &batch), ("epochs", "2"), ("normalization", "batch")]
        {
            let parameter = Parameter::find(name)?;
            hyperparameters.set(parameter, &parameter.parse(value)?)?;
        }
        let lanes = 0..self.lanes;
        let trials: Vec<_> = lanes
            .map(|lane| (hyperparameters.clone(), Seeds { trial: lane, ..Seeds::from_one(0) }))
            .collect();
        Group::of(&trials)
    }
}

/// Images of which this many are left to train on when a tenth was put aside to validate.
fn drawn(training: usize) -> Dataset {
    let shape =
        Shape { height: 28, width: 28, classes: 10, train_images: training * 10 / 9, test_images: 10 };
    let part = |images: usize| Part {
        pixels: (0..images * shape.pixels()).map(|pixel| (pixel * 31 % 251) as u8).collect(),
        labels: (0..images).map(|image| (image % shape.classes) as u8).collect(),
    };
    Dataset { train: part(shape.train_images), test: part(shape.test_images), shape }
}

/// Watches how busy a GPU is.
struct Monitor(Child);

impl Monitor {
    fn start(choice: DeviceChoice) -> Option<Self> {
        let DeviceChoice::Cuda(number) = choice else {
            return None;
        };
        let mut command = Command::new("nvidia-smi");
        command.args(["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]);
        command
            .args(["-i", &number.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().ok().map(Self)
    }

    /// Ends it. The mean is of the second half, in which the device was warm.
    fn mean(mut self) -> Option<f64> {
        self.0.kill().ok()?;
        let mut text = String::new();
        self.0.stdout.take()?.read_to_string(&mut text).ok()?;
        self.0.wait().ok()?;
        let shares: Vec<f64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let warm = &shares[shares.len() / 2..];
        (!warm.is_empty()).then(|| warm.iter().sum::<f64>() / warm.len() as f64 / 100.0)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {:>5} {:>6} ", self.model, self.batch, self.lanes)?;
        match self.images_per_second {
            Some(images_per_second) => write!(f, "{images_per_second:>10.0}")?,
            None => return write!(f, "out of memory"),
        }
        let utilization =
            self.utilization.map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0));
        write!(f, "   {utilization:>11}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_trained_and_measured() {
        let load = Load { model: "fcn", batch: 16, lanes: 2 };
        let opened = DeviceChoice::Cpu.open().expect("the CPU");
        let speed = load.measure(&opened).expect("it trains");
        assert!(speed.images_per_second.is_some_and(|speed| speed > 0.0), "{speed:?}");
        assert_eq!(speed.utilization, None);
        let line = speed.to_string();
        assert_eq!(line.chars().count(), HEADING.chars().count(), "{line:?} under {HEADING:?}");
    }
}
