//! Hyperparameters as the engine takes them: typed, and parted into what shapes a model, which all
//! lanes of a group have in common, and what each lane has for itself.

use fittingroom_common::hyperparameter::{Hyperparameters, Parameter, Value, ValueError};

use fittingroom_common::trial::Seeds;

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
    /// The update rule.
    pub optimizer: OptimizerKind,
    /// Images per step.
    pub batch_size: usize,
    /// Passes over the training images.
    pub epochs: u32,
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
    /// Probability with which a hidden unit is dropped.
    pub dropout: f64,
    /// Share of the target's probability that is spread over all classes.
    pub label_smoothing: f64,
    /// Numbers of the update rule.
    pub update: UpdateSettings,
}

/// Numbers of the update rules; each rule uses some of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateSettings {
    /// Step size.
    pub learning_rate: f64,
    /// Momentum factor of sgd and rmsprop.
    pub momentum: f64,
    /// How sgd uses its momentum.
    pub momentum_form: MomentumForm,
    /// Smoothing of rmsprop's mean square.
    pub alpha: f64,
    /// Smoothing of Adam's first moment.
    pub beta1: f64,
    /// Smoothing of Adam's second moment.
    pub beta2: f64,
    /// Added to the denominators of rmsprop and Adam.
    pub epsilon: f64,
    /// L2 penalty; decoupled with adamw.
    pub weight_decay: f64,
}

/// How momentum enters the update of sgd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentumForm {
    /// Polyak's heavy ball.
    Plain,
    /// Nesterov's look-ahead.
    Nesterov,
}

/// A kind of model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Fully connected layers of these sizes.
    Fcn {
        /// Units of each hidden layer, from the input's side.
        hidden: Vec<usize>,
    },
    /// Two convolutions and three fully connected layers.
    LeNet,
}

/// What normalises activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Over the batch.
    Batch,
    /// Over each image's activations.
    Layer,
}

/// An update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Stochastic gradient descent.
    Sgd,
    /// RMSProp.
    RmsProp,
    /// Adam with L2 penalty.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
}

/// A distribution of initial weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialization {
    /// Normal around 0.
    Normal {
        /// Its standard deviation.
        deviation: f64,
    },
    /// Glorot and Bengio's, normal.
    XavierNormal,
    /// Glorot and Bengio's, uniform.
    XavierUniform,
    /// He's, normal.
    KaimingNormal,
    /// He's, uniform.
    KaimingUniform,
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
    /// Lanes that do not fit on one another.
    #[error(
        "trials can be trained together only if their model, optimizer, batch size, epochs and seeds of split and order are the same"
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
        Ok(Self { shape, split_seed: seeds.split, order: Visiting::Shuffled { seed: seeds.order }, lanes })
    }
}

impl GroupShape {
    /// What a complete set of hyperparameters says of the shape.
    pub fn of(hyperparameters: &Hyperparameters) -> Result<Self, SettingsError> {
        let read = Reader(hyperparameters);
        let architecture = match read.choice("model")? {
            "fcn" => Architecture::Fcn { hidden: read.sizes("hidden_sizes")? },
            "lenet" => Architecture::LeNet,
            other => return Err(unknown("model", other)),
        };
        let normalization = match read.choice("normalization")? {
            "none" => Normalization::None,
            "batch" => Normalization::Batch,
            "layer" => Normalization::Layer,
            other => return Err(unknown("normalization", other)),
        };
        let optimizer = match read.choice("optimizer")? {
            "sgd" => OptimizerKind::Sgd,
            "rmsprop" => OptimizerKind::RmsProp,
            "adam" => OptimizerKind::Adam,
            "adamw" => OptimizerKind::AdamW,
            other => return Err(unknown("optimizer", other)),
        };
        let batch_size = read.integer("batch_size")? as usize;
        if batch_size == 1 && normalization == Normalization::Batch {
            return Err(SettingsError::BatchOfOne);
        }
        let epochs = read.integer("epochs")? as u32;
        Ok(Self { architecture, normalization, optimizer, batch_size, epochs })
    }

    /// The fewest images that a step can be made of: one image has no variance to normalise by.
    pub fn smallest_batch(&self) -> usize {
        match self.normalization {
            Normalization::Batch => 2,
            Normalization::None | Normalization::Layer => 1,
        }
    }
}

impl Lane {
    fn of(hyperparameters: &Hyperparameters, seed: u64) -> Result<Self, SettingsError> {
        let read = Reader(hyperparameters);
        let initialization = match read.choice("initialization")? {
            "normal" => Initialization::Normal { deviation: read.number("initialization_std")? },
            "xavier_normal" => Initialization::XavierNormal,
            "xavier_uniform" => Initialization::XavierUniform,
            "kaiming_normal" => Initialization::KaimingNormal,
            "kaiming_uniform" => Initialization::KaimingUniform,
            other => return Err(unknown("initialization", other)),
        };
        let update = UpdateSettings {
            learning_rate: read.number("learning_rate")?,
            momentum: read.number("momentum")?,
            momentum_form: match read.flag("nesterov")? {
                true => MomentumForm::Nesterov,
                false => MomentumForm::Plain,
            },
            alpha: read.number("rmsprop_alpha")?,
            beta1: read.number("beta1")?,
            beta2: read.number("beta2")?,
            epsilon: read.number("epsilon")?,
            weight_decay: read.number("weight_decay")?,
        };
        Ok(Self {
            seed,
            start: Start::Drawn,
            initialization,
            dropout: read.number("dropout")?,
            label_smoothing: read.number("label_smoothing")?,
            update,
        })
    }
}

fn unknown(name: &'static str, value: &str) -> SettingsError {
    SettingsError::Unknown { name, value: value.to_owned() }
}

struct Reader<'a>(&'a Hyperparameters);

impl<'a> Reader<'a> {
    fn value(&self, name: &'static str) -> Result<&'a Value, SettingsError> {
        self.0.get(Parameter::find(name)?).ok_or(SettingsError::Missing { name })
    }

    fn choice(&self, name: &'static str) -> Result<&'static str, SettingsError> {
        match self.value(name)? {
            Value::Choice(word) => Ok(word),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    fn number(&self, name: &'static str) -> Result<f64, SettingsError> {
        match self.value(name)? {
            Value::Number(number) => Ok(*number),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    fn integer(&self, name: &'static str) -> Result<i64, SettingsError> {
        match self.value(name)? {
            Value::Integer(number) => Ok(*number),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, SettingsError> {
        match self.value(name)? {
            Value::Flag(flag) => Ok(*flag),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    fn sizes(&self, name: &'static str) -> Result<Vec<usize>, SettingsError> {
        match self.value(name)? {
            Value::Sizes(sizes) => Ok(sizes.iter().map(|&size| size as usize).collect()),
            other => Err(unknown(name, &other.to_string())),
        }
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
        for definition in CATALOGUE {
            if let Domain::Choice(words) = definition.domain {
                for word in words {
                    let group = Group::single(&with(&[(definition.name, word)]), Seeds::from_one(1));
                    assert!(group.is_ok(), "{} = {word}: {group:?}", definition.name);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let seeds = Seeds::from_one(1);
        let (defaults, sgd) = (Hyperparameters::defaults(), with(&[("optimizer", "sgd")]));
        let other_split = Seeds { split: 0, ..seeds };
        for (name, trials, error) in [
            ("no trial", vec![], SettingsError::Empty),
            ("other optimizers", vec![(defaults.clone(), seeds), (sgd, seeds)], SettingsError::Unlike),
            ("other splits", vec![(defaults.clone(), seeds), (defaults, other_split)], SettingsError::Unlike),
            (
                "nothing to normalise over",
                vec![(with(&[("normalization", "batch"), ("batch_size", "1")]), seeds)],
                SettingsError::BatchOfOne,
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
}
