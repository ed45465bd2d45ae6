//! All that training changes, which is what a checkpoint holds.
//!
//! There is no generator among it: streams are named by epoch, step and layer (see [`super::rng`]),
//! so that the place in training is the place in every stream.
//!
//! Further state that training comes to keep goes into [`State`], its tensors into
//! [`State::tensors`], its numbers into [`Numbers`]: the compiler then asks for them where they are
//! saved and restored.

use std::time::Instant;

use candle_core::{Device, Tensor};
use fittingroom_common::trial::Report;
use serde::{Deserialize, Serialize};

use super::evaluate::{Counted, Tally};
use super::hyper::Group;
use super::model::{ImageShape, Model};
use super::optim::Optimizer;
use super::params::Kind;
use super::{Divergence, TrainError};

/// What an epoch came to, the lanes in order.
pub type EpochReports = Vec<Result<Report, Divergence>>;

/// Where a group's training is.
#[derive(Debug)]
pub struct State {
    /// The model of all lanes.
    pub model: Model,
    /// The optimizer with its moments.
    pub optimizer: Optimizer,
    /// The epoch in progress, from 1.
    pub epoch: u32,
    /// Steps done in it.
    pub step: usize,
    /// What each epoch before it came to.
    pub history: Vec<EpochReports>,
    pub(super) tally: Tally,
    lanes: usize,
    started: Instant,
    earlier_seconds: f64,
}

/// What a checkpoint holds beside tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Numbers {
    pub(super) epoch: u32,
    pub(super) step: usize,
    pub(super) model_steps: u64,
    pub(super) optimizer_steps: u64,
    pub(super) tally: Counted,
    pub(super) history: Vec<EpochReports>,
    pub(super) seconds: f64,
}

impl State {
    /// The state before the first step.
    pub(super) fn new(group: &Group, images: ImageShape, device: &Device) -> Result<Self, TrainError> {
        let model = Model::new(&group.shape, &group.lanes, images, device)?;
        let optimizer = Optimizer::new(group.shape.optimizer, &group.lanes, &model.parameters)?;
        let lanes = group.lanes.len();
        Ok(Self {
            model,
            optimizer,
            epoch: 1,
            step: 0,
            history: Vec::new(),
            tally: Tally::new(lanes, device)?,
            lanes,
            started: Instant::now(),
            earlier_seconds: 0.0,
        })
    }

    /// Which lanes are still trained.
    pub fn lanes(&self) -> Vec<Result<(), Divergence>> {
        match self.history.last() {
            Some(reports) => reports.iter().map(|report| report.map(|_| ())).collect(),
            None => vec![Ok(()); self.lanes],
        }
    }

    /// Seconds spent so far, those before each interruption included, those between not.
    pub fn seconds(&self) -> f64 {
        self.earlier_seconds + self.started.elapsed().as_secs_f64()
    }

    /// Every tensor by name, all lanes of it, shared with the model and the optimizer: what is
    /// written into them is restored.
    pub(super) fn tensors(&self) -> Vec<(String, Tensor)> {
        let named = &self.model.named;
        let mut all: Vec<_> =
            named.iter().map(|it| (format!("model.{}", it.name), it.values.clone())).collect();
        let parameters = named.iter().filter(|it| it.kind == Kind::Parameter);
        for (parameter, moments) in parameters.zip(&self.optimizer.state) {
            for (number, moment) in moments.iter().enumerate() {
                all.push((format!("optimizer.{number}.{}", parameter.name), moment.clone()));
            }
        }
        all
    }

    /// Everything else.
    pub(super) fn numbers(&self) -> Result<Numbers, candle_core::Error> {
        Ok(Numbers {
            epoch: self.epoch,
            step: self.step,
            model_steps: self.model.steps,
            optimizer_steps: self.optimizer.steps,
            tally: self.tally.counted()?,
            history: self.history.clone(),
            seconds: self.seconds(),
        })
    }

    /// Takes up everything else.
    pub(super) fn set_numbers(
        &mut self,
        numbers: &Numbers,
        device: &Device,
    ) -> Result<(), candle_core::Error> {
        let Numbers { epoch, step, model_steps, optimizer_steps, tally, history, seconds } = numbers;
        (self.epoch, self.step) = (*epoch, *step);
        self.model.steps = *model_steps;
        self.optimizer.steps = *optimizer_steps;
        self.tally = Tally::taken_up(tally, device)?;
        self.history = history.clone();
        self.earlier_seconds = *seconds;
        Ok(())
    }
}
