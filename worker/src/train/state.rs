//! All that training changes, which is what a checkpoint holds.
//!
//! There is no generator among it: streams are named by epoch, step and layer (see [`super::rng`]),
//! so that the place in training is the place in every stream.
//!
//! Further state that training comes to keep goes into [`State`], its tensors into
//! `State::tensors`, its numbers into `Numbers`: the compiler then asks for them where they are
//! saved and restored.

use std::time::Instant;

use candle_core::{Device, Tensor};
use fittingroom_common::trial::Report;
use serde::{Deserialize, Serialize};

use super::average::Average;
use super::evaluate::{Counted, Tally};
use super::hyper::Group;
use super::lanes::Standing;
use super::model::{ImageShape, Model};
use super::optim::Optimizer;
use super::params::Kind;
use super::schedule::{Place, Scheduler};
use super::{Divergence, Ended, TrainError};

/// What an epoch came to, the lanes in order.
pub type EpochReports = Vec<Result<Report, Ended>>;

/// Where a group's training is.
#[derive(Debug)]
pub struct State {
    /// The model of all lanes.
    pub model: Model,
    /// The optimizer with its moments.
    pub optimizer: Optimizer,
    /// The averaged weights, where a lane asks for them.
    pub average: Option<Average>,
    /// What schedules remember; it follows from the history.
    pub scheduler: Scheduler,
    /// The epoch in progress, from 1.
    pub epoch: u32,
    /// Steps done in it.
    pub step: usize,
    /// What each epoch before it came to.
    pub history: Vec<EpochReports>,
    pub(super) tally: Tally,
    /// Which lanes go on; it follows from the history, but for the weights of those that stopped early.
    pub(super) standing: Standing,
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
    /// For each lane that stopped early, after how many steps.
    pub(super) kept: Vec<Option<u64>>,
    pub(super) seconds: f64,
}

impl State {
    /// The state before the first step.
    pub(super) fn new(group: &Group, images: ImageShape, device: &Device) -> Result<Self, TrainError> {
        let model = Model::new(&group.shape, &group.lanes, images, device)?;
        let optimizer = Optimizer::new(group.shape.optimizer, &group.lanes, &model.parameters)?;
        Ok(Self {
            model,
            optimizer,
            average: Average::new(group, images, device)?,
            scheduler: Scheduler::new(&group.lanes),
            epoch: 1,
            step: 0,
            history: Vec::new(),
            tally: Tally::new(group.lanes.len(), device)?,
            standing: Standing::new(&group.lanes, group.shape.epochs),
            started: Instant::now(),
            earlier_seconds: 0.0,
        })
    }

    /// Takes a step with the gradients that a backward pass left.
    pub(super) fn update(&mut self, place: Place) -> candle_core::Result<()> {
        let rates = self.scheduler.learning_rates(place);
        self.optimizer.step(&self.model.parameters, &rates)?;
        self.model.steps.iter_mut().for_each(|steps| *steps += 1);
        self.step = place.moment.step + 1;
        match &mut self.average {
            Some(average) => average.follow(&self.model),
            None => Ok(()),
        }
    }

    /// The trained model, and which of its lanes hold one.
    pub(super) fn finish(self) -> candle_core::Result<(Model, Vec<Result<(), Divergence>>)> {
        let mut model = self.average.map_or(self.model, |average| average.model);
        let lanes = self.standing.finish(&mut model)?;
        Ok((model, lanes))
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
        let averages = self.average.iter().flat_map(|average| &average.model.named);
        all.extend(averages.map(|it| (format!("average.{}", it.name), it.values.clone())));
        for (lane, kept) in self.standing.kept().enumerate() {
            let values = kept.iter().flat_map(|kept| &kept.values).zip(named);
            all.extend(values.map(|(values, it)| (format!("kept.{lane}.{}", it.name), values.clone())));
        }
        all
    }

    /// Everything else.
    pub(super) fn numbers(&self) -> Result<Numbers, candle_core::Error> {
        Ok(Numbers {
            epoch: self.epoch,
            step: self.step,
            model_steps: self.model.steps.iter().copied().max().unwrap_or_default(),
            optimizer_steps: self.optimizer.steps,
            tally: self.tally.counted()?,
            history: self.history.clone(),
            kept: self.standing.kept().map(|kept| kept.map(|kept| kept.steps)).collect(),
            seconds: self.seconds(),
        })
    }

    /// Takes up everything else.
    pub(super) fn set_numbers(
        &mut self,
        numbers: &Numbers,
        device: &Device,
    ) -> Result<(), candle_core::Error> {
        let Numbers { epoch, step, model_steps, optimizer_steps, tally, history, kept, seconds } = numbers;
        (self.epoch, self.step) = (*epoch, *step);
        self.model.steps.fill(*model_steps);
        if let Some(average) = &mut self.average {
            average.model.steps.fill(*model_steps);
        }
        self.optimizer.steps = *optimizer_steps;
        self.tally = Tally::taken_up(tally, device)?;
        self.history = history.clone();
        self.standing.take_up(history, kept, &self.model)?;
        for reports in history {
            // What a lane that has ended would learn with makes no difference.
            let loss =
                |report: &Result<Report, Ended>| report.map_or(f64::NAN, |it| it.validation.loss.get());
            self.scheduler.observe(reports.iter().map(loss));
        }
        self.earlier_seconds = *seconds;
        Ok(())
    }
}
