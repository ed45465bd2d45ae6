//! Hyperparameters as the engine takes them: typed, and parted into what shapes a model, which all
//! lanes of a group have in common, and what each lane has for itself.

mod augmentation;
mod gradient;
mod initialization;
mod input;
mod model;
mod read;
mod schedule;
mod update;

pub use self::augmentation::Augmentation;
pub use self::gradient::GradientSettings;
pub use self::initialization::{BiasInitialization, FanMode, Initialization};
pub use self::input::InputStandardization;
pub use self::model::{AlexNetGeometry, Architecture, Normalization, Shortcuts};
pub use self::schedule::Schedule;
pub use self::update::{Exempt, MomentumForm, OptimizerKind, UpdateSettings};

use fittingroom_common::hyperparameter::{Hyperparameters, ValueError};
use fittingroom_common::trial::Seeds;

use self::read::Reader;
use super::weights::Start;

/// Trials that are trained at once as one model, one lane each. One lane is the ordinary case.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What all lanes have in common.
    pub shape: GroupShape,
    /// Seed of the split into training and validation images.
    pub split_seed: u64,
    /// The order in which each epoch visits the training images.
    pub order: Visiting,
    /// Seed of the augmentation: what is drawn with it is the same for all lanes.
    pub augmentation_seed: u64,
    /// What each lane has for itself; at least one.
    pub lanes: Vec<Lane>,
}

/// The order in which an epoch visits the training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visiting {
    /// In another random order every epoch.
    Shuffled {
        /// Where the order comes from.
        seed: u64,
    },
    /// By index, the lowest first, so that another program can easily do the same.
    Ascending,
}

/// What trials must have in common to be trained at once.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupShape {
    /// The model.
    pub architecture: Architecture,
    /// Between each linear or convolution layer and its activation.
    pub normalization: Normalization,
    /// How grey values become inputs; the lanes share the batches.
    pub input: InputStandardization,
    /// The update rule.
    pub optimizer: OptimizerKind,
    /// Images per step.
    pub batch_size: usize,
    /// Passes over the training images.
    pub epochs: u32,
    /// What is done to the training images.
    pub augmentation: Augmentation,
}

/// What each trial of a group has for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// Seed of the initial weights and of dropout.
    pub seed: u64,
    /// Where its weights begin.
    pub start: Start,
    /// Distribution of the initial weights.
    pub initialization: Initialization,
    /// Where the biases of linear layers begin.
    pub linear_bias: BiasInitialization,
    /// Where the biases of convolutions begin.
    pub convolution_bias: BiasInitialization,
    /// Probability with which a hidden unit is dropped.
    pub dropout: f64,
    /// Probability with which a channel of a convolution's output is dropped.
    pub spatial_dropout: f64,
    /// Share of the target's probability that is spread over all classes.
    pub label_smoothing: f64,
    /// What is done to gradients before the update.
    pub gradient: GradientSettings,
    /// Numbers of the update rule.
    pub update: UpdateSettings,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// What part of the averaged weights a step keeps; 0 where they are not averaged.
    pub ema_decay: f64,
    /// Epochs without a lower validation loss after which it stops; 0 if it never does.
    pub early_stopping_patience: u32,
}

/// Why hyperparameters cannot be trained with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// The catalogue does not take a name or a value.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A value that the catalogue takes, but no model is built for.
    #[error("the training engine does not know {name} = {value}")]
    Unknown {
        /// The hyperparameter.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A hyperparameter is not in the set.
    #[error("the hyperparameters lack {name}: a complete set is needed")]
    Missing {
        /// The hyperparameter.
        name: &'static str,
    },
    /// Batch normalisation over batches of one image.
    #[error("batch normalization needs batches of at least 2 images, but batch_size is 1")]
    BatchOfOne,
    /// Momentum by name, but not by number.
    #[error(
        "optimizer = {optimizer} with momentum = 0 would be plain sgd: set momentum, to 0.9 for example, or take optimizer = sgd"
    )]
    NoMomentum {
        /// The optimizer.
        optimizer: &'static str,
    },
    /// Lanes that do not fit on one another.
    #[error(
        "trials can be trained together only if their model, inputs, optimizer, batch size, epochs, augmentation and seeds of split and order are the same"
    )]
    Unlike,
    /// A group without trials.
    #[error("there is no trial to train")]
    Empty,
}

impl Group {
    /// The group of a single trial.
    pub fn single(hyperparameters: &Hyperparameters, seeds: Seeds) -> Result<Self, SettingsError> {
        Self::of(&[(hyperparameters.clone(), seeds)])
    }

    /// The group of several trials, each with a complete set of hyperparameters.
    pub fn of(trials: &[(Hyperparameters, Seeds)]) -> Result<Self, SettingsError> {
        let (first, seeds) = trials.first().ok_or(SettingsError::Empty)?;
        let shape = GroupShape::of(first)?;
        let mut lanes = Vec::with_capacity(trials.len());
        for (hyperparameters, of_trial) in trials {
            if GroupShape::of(hyperparameters)? != shape
                || (of_trial.split, of_trial.order) != (seeds.split, seeds.order)
            {
                return Err(SettingsError::Unlike);
            }
            lanes.push(Lane::of(hyperparameters, of_trial.trial)?);
        }
        Ok(Self {
            shape,
            split_seed: seeds.split,
            order: Visiting::Shuffled { seed: seeds.order },
            augmentation_seed: seeds.order,
            lanes,
        })
    }
}

impl GroupShape {
    /// What a complete set of hyperparameters says of the shape.
    pub fn of(hyperparameters: &Hyperparameters) -> Result<Self, SettingsError> {
        let read = Reader(hyperparameters);
        let architecture = Architecture::of(&read)?;
        let normalization = Normalization::of(&read)?;
        let batch_size = read.integer("batch_size")? as usize;
        if batch_size == 1 && normalization == Normalization::Batch {
            return Err(SettingsError::BatchOfOne);
        }
        let epochs = read.integer("epochs")? as u32;
        Ok(Self {
            architecture,
            normalization,
            input: InputStandardization::of(&read)?,
            optimizer: OptimizerKind::of(&read)?,
            batch_size,
            epochs,
            augmentation: Augmentation::of(&read)?,
        })
    }

    /// The fewest images that a step can be made of: one image has no variance to normalise by.
    pub fn smallest_batch(&self) -> usize {
        match self.normalization {
            Normalization::Batch => 2,
            Normalization::None
            | Normalization::Layer
            | Normalization::Group { .. }
            | Normalization::Instance => 1,
        }
    }
}

impl Lane {
    fn of(hyperparameters: &Hyperparameters, seed: u64) -> Result<Self, SettingsError> {
        let read = Reader(hyperparameters);
        let initialization = Initialization::of(&read)?;
        Ok(Self {
            seed,
            start: Start::Drawn,
            initialization,
            linear_bias: BiasInitialization::of(&read, "initial_linear_bias", initialization)?,
            convolution_bias: BiasInitialization::of(&read, "initial_convolution_bias", initialization)?,
            dropout: read.number("dropout")?,
            spatial_dropout: read.number("spatial_dropout")?,
            label_smoothing: read.number("label_smoothing")?,
            gradient: GradientSettings::of(&read)?,
            update: UpdateSettings::of(&read)?,
            schedule: Schedule::of(&read)?,
            ema_decay: read.number("ema_decay")?,
            early_stopping_patience: read.integer("early_stopping_patience")? as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use fittingroom_common::hyperparameter::{CATALOGUE, Domain};

    use super::*;

    fn with(settings: &[(&str, &str)]) -> Hyperparameters {
        crate::train::testing::hyperparameters(settings)
    }

    #[test]
    fn every_choice_of_the_catalogue_can_be_trained_with() {
        for definition in CATALOGUE.iter() {
            if let Domain::Choice(words) = definition.domain {
                for word in words {
                    // Some optimizers are refused without.
                    let settings = [(definition.name, *word), ("momentum", "0.9")];
                    let group = Group::single(&with(&settings), Seeds::from_one(1));
                    assert!(group.is_ok(), "{} = {word}: {group:?}", definition.name);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let seeds = Seeds::from_one(1);
        let (defaults, sgd) = (Hyperparameters::defaults(), with(&[("optimizer", "sgd")]));
        let flipped = with(&[("flip", "true")]);
        let other_split = Seeds { split: 0, ..seeds };
        for (name, trials, error) in [
            ("no trial", vec![], SettingsError::Empty),
            ("other optimizers", vec![(defaults.clone(), seeds), (sgd, seeds)], SettingsError::Unlike),
            (
                "another augmentation",
                vec![(defaults.clone(), seeds), (flipped, seeds)],
                SettingsError::Unlike,
            ),
            ("other splits", vec![(defaults.clone(), seeds), (defaults, other_split)], SettingsError::Unlike),
            (
                "nothing to normalise over",
                vec![(with(&[("normalization", "batch"), ("batch_size", "1")]), seeds)],
                SettingsError::BatchOfOne,
            ),
            (
                "momentum without momentum",
                vec![(with(&[("optimizer", "nesterov")]), seeds)],
                SettingsError::NoMomentum { optimizer: "nesterov" },
            ),
            (
                "an incomplete set",
                vec![(Hyperparameters::new(), seeds)],
                SettingsError::Missing { name: "model" },
            ),
        ] {
            assert_eq!(Group::of(&trials), Err(error), "{name}");
        }
    }
    #[test]
    fn momentum_has_the_names_of_the_field() {
        let update = |settings: &[(&str, &str)]| {
            let settings = [settings, &[("momentum", "0.9")]].concat();
            let group = Group::single(&with(&settings), Seeds::from_one(1)).expect("good");
            (group.shape.optimizer, group.lanes[0].update)
        };
        for (name, meant) in [
            ("momentum", &[("optimizer", "sgd")][..]),
            ("nesterov", &[("optimizer", "sgd"), ("nesterov", "true")]),
        ] {
            assert_eq!(update(&[("optimizer", name)]), update(meant), "{name}");
        }
    }
}
