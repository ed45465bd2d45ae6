//! The catalogue of hyperparameters: every name that a search file, `--set` or the wire may use,
//! with its domain, its default and its meaning. What is not in here does not exist.

use std::fmt;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// The value of one hyperparameter. Which kind a hyperparameter takes is said by its [`Domain`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One of the words of a [`Domain::Choice`].
    Choice(&'static str),
    /// A finite number.
    Number(f64),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Flag(bool),
    /// Sizes of layers, from the input's side to the output's.
    Sizes(Box<[u32]>),
}

/// What values a hyperparameter may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Domain {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A finite number between two bounds.
    Number {
        /// The lower bound.
        min: Bound,
        /// The upper bound.
        max: Bound,
    },
    /// A whole number from `min` to `max`, both allowed.
    Integer {
        /// The smallest value.
        min: i64,
        /// The largest value.
        max: i64,
    },
    /// True or false.
    Flag,
    /// 1 to `max_layers` sizes of 1 to `max_size` each.
    Sizes {
        /// The most sizes.
        max_layers: usize,
        /// The largest size.
        max_size: u32,
    },
}

/// One end of a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The bound itself is allowed.
    Included(f64),
    /// The bound itself is not allowed.
    Excluded(f64),
}

/// A default, in a form that can stand in a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DefaultValue {
    /// For [`Domain::Choice`].
    Choice(&'static str),
    /// For [`Domain::Number`].
    Number(f64),
    /// For [`Domain::Integer`].
    Integer(i64),
    /// For [`Domain::Flag`].
    Flag(bool),
    /// For [`Domain::Sizes`].
    Sizes(&'static [u32]),
}

/// One hyperparameter: its name, what it may be, what it is if nothing is said.
#[derive(Debug)]
pub struct Definition {
    /// The name in search files, in `--set`, in exports and on the wire.
    pub name: &'static str,
    /// What values it may take.
    pub domain: Domain,
    /// Its value where a search file does not name it.
    pub default: DefaultValue,
    /// The hyperparameter and those of its values with which this one has an effect; `None` if always.
    pub used_with: Option<(&'static str, &'static [&'static str])>,
    /// One line for people.
    pub meaning: &'static str,
}

const ZERO_TO_BELOW_ONE: Domain = Domain::Number { min: Bound::Included(0.0), max: Bound::Excluded(1.0) };

/// Every hyperparameter, in the order in which they are shown.
pub static CATALOGUE: &[Definition] = &[
    Definition {
        name: "model",
        domain: Domain::Choice(&["fcn", "lenet"]),
        default: DefaultValue::Choice("fcn"),
        used_with: None,
        meaning: "architecture: fcn (fully connected) or lenet (conv 5x5 to 32, pool, conv 5x5 to 64, pool, 256, 128)",
    },
    Definition {
        name: "hidden_sizes",
        domain: Domain::Sizes { max_layers: 64, max_size: 65_536 },
        default: DefaultValue::Sizes(&[256, 128]),
        used_with: Some(("model", &["fcn"])),
        meaning: "units of each hidden layer, as a list: [300, 200]",
    },
    Definition {
        name: "normalization",
        domain: Domain::Choice(&["none", "batch", "layer"]),
        default: DefaultValue::Choice("none"),
        used_with: None,
        meaning: "between each linear or convolution layer and its activation",
    },
    Definition {
        name: "dropout",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "probability with which a hidden unit of a fully connected layer is dropped in training",
    },
    Definition {
        name: "initialization",
        domain: Domain::Choice(&[
            "normal",
            "xavier_normal",
            "xavier_uniform",
            "kaiming_normal",
            "kaiming_uniform",
        ]),
        default: DefaultValue::Choice("kaiming_uniform"),
        used_with: None,
        meaning: "distribution of the initial weights, by PyTorch's names (kaiming: fan_in, gain of ReLU); biases begin at 0",
    },
    Definition {
        name: "initialization_std",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(10.0) },
        default: DefaultValue::Number(0.01),
        used_with: Some(("initialization", &["normal"])),
        meaning: "standard deviation of the normal initialization",
    },
    Definition {
        name: "optimizer",
        domain: Domain::Choice(&["sgd", "rmsprop", "adam", "adamw"]),
        default: DefaultValue::Choice("adam"),
        used_with: None,
        meaning: "update rule, by PyTorch's definitions",
    },
    Definition {
        name: "learning_rate",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(10.0) },
        default: DefaultValue::Number(0.001),
        used_with: None,
        meaning: "step size",
    },
    Definition {
        name: "momentum",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: Some(("optimizer", &["sgd", "rmsprop"])),
        meaning: "momentum factor",
    },
    Definition {
        name: "nesterov",
        domain: Domain::Flag,
        default: DefaultValue::Flag(false),
        used_with: Some(("optimizer", &["sgd"])),
        meaning: "Nesterov's form of momentum",
    },
    Definition {
        name: "rmsprop_alpha",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.99),
        used_with: Some(("optimizer", &["rmsprop"])),
        meaning: "smoothing of RMSProp's mean square",
    },
    Definition {
        name: "beta1",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.9),
        used_with: Some(("optimizer", &["adam", "adamw"])),
        meaning: "smoothing of Adam's first moment",
    },
    Definition {
        name: "beta2",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.999),
        used_with: Some(("optimizer", &["adam", "adamw"])),
        meaning: "smoothing of Adam's second moment",
    },
    Definition {
        name: "epsilon",
        domain: Domain::Number { min: Bound::Excluded(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(1e-8),
        used_with: Some(("optimizer", &["rmsprop", "adam", "adamw"])),
        meaning: "added to the denominator of RMSProp's and Adam's updates",
    },
    Definition {
        name: "weight_decay",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "L2 penalty added to the gradient; with adamw decoupled from it. Applies to every parameter, as in PyTorch",
    },
    Definition {
        name: "label_smoothing",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "share of the target's probability that is spread evenly over all classes in training",
    },
    Definition {
        name: "batch_size",
        domain: Domain::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Integer(128),
        used_with: None,
        meaning: "images per step",
    },
    Definition {
        name: "epochs",
        domain: Domain::Integer { min: 1, max: 100_000 },
        default: DefaultValue::Integer(10),
        used_with: None,
        meaning: "passes over the training images",
    },
];

/// A hyperparameter of the [`CATALOGUE`]: proof that the name exists. Ordered as the catalogue is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parameter(u8);

impl Parameter {
    /// The hyperparameter of this name.
    pub fn find(name: &str) -> Result<Self, ValueError> {
        match CATALOGUE.iter().position(|definition| definition.name == name) {
            Some(index) => Ok(Self(index as u8)),
            None => Err(ValueError::UnknownName {
                name: name.chars().take(80).collect(),
                nearest: nearest(name, CATALOGUE.iter().map(|definition| definition.name)),
            }),
        }
    }

    /// Every hyperparameter, in the catalogue's order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CATALOGUE.len() as u8).map(Self)
    }

    /// What the catalogue says of it.
    pub fn definition(self) -> &'static Definition {
        &CATALOGUE[usize::from(self.0)]
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// Its value where nothing is said.
    pub fn default_value(self) -> Value {
        match self.definition().default {
            DefaultValue::Choice(word) => Value::Choice(word),
            DefaultValue::Number(number) => Value::Number(number),
            DefaultValue::Integer(number) => Value::Integer(number),
            DefaultValue::Flag(flag) => Value::Flag(flag),
            DefaultValue::Sizes(sizes) => Value::Sizes(sizes.into()),
        }
    }

    /// A word as this hyperparameter's value.
    pub fn choice(self, word: &str) -> Result<Value, ValueError> {
        let Domain::Choice(words) = self.definition().domain else {
            return Err(self.wrong_kind(format!("{word:?}")));
        };
        words.iter().find(|known| **known == word).map(|known| Value::Choice(known)).ok_or_else(|| {
            ValueError::UnknownChoice {
                name: self.name(),
                given: word.chars().take(80).collect(),
                known: words,
                nearest: nearest(word, words.iter().copied()),
            }
        })
    }

    /// A number as this hyperparameter's value. A whole number is taken where one is needed.
    pub fn number(self, number: f64) -> Result<Value, ValueError> {
        match self.definition().domain {
            Domain::Number { min, max } => {
                let above = match min {
                    Bound::Included(bound) => number >= bound,
                    Bound::Excluded(bound) => number > bound,
                };
                let below = match max {
                    Bound::Included(bound) => number <= bound,
                    Bound::Excluded(bound) => number < bound,
                };
                if number.is_finite() && above && below {
                    Ok(Value::Number(number))
                } else {
                    Err(self.outside(number.to_string()))
                }
            }
            Domain::Integer { .. } if number.fract() == 0.0 && number.abs() < 9e15 => {
                self.integer(number as i64)
            }
            Domain::Integer { .. } | Domain::Choice(_) | Domain::Flag | Domain::Sizes { .. } => {
                Err(self.wrong_kind(number.to_string()))
            }
        }
    }

    /// A whole number as this hyperparameter's value.
    pub fn integer(self, number: i64) -> Result<Value, ValueError> {
        match self.definition().domain {
            Domain::Integer { min, max } if (min..=max).contains(&number) => Ok(Value::Integer(number)),
            Domain::Integer { .. } => Err(self.outside(number.to_string())),
            Domain::Number { .. } => self.number(number as f64),
            Domain::Choice(_) | Domain::Flag | Domain::Sizes { .. } => {
                Err(self.wrong_kind(number.to_string()))
            }
        }
    }

    /// True or false as this hyperparameter's value.
    pub fn flag(self, flag: bool) -> Result<Value, ValueError> {
        match self.definition().domain {
            Domain::Flag => Ok(Value::Flag(flag)),
            Domain::Choice(_) | Domain::Number { .. } | Domain::Integer { .. } | Domain::Sizes { .. } => {
                Err(self.wrong_kind(flag.to_string()))
            }
        }
    }

    /// A list of layer sizes as this hyperparameter's value.
    pub fn sizes(self, sizes: &[u32]) -> Result<Value, ValueError> {
        let Domain::Sizes { max_layers, max_size } = self.definition().domain else {
            return Err(self.wrong_kind(format!("{sizes:?}")));
        };
        let fits =
            (1..=max_layers).contains(&sizes.len()) && sizes.iter().all(|s| (1..=max_size).contains(s));
        if fits {
            Ok(Value::Sizes(sizes.into()))
        } else {
            Err(self.outside(format!("{:?}", &sizes[..sizes.len().min(16)])))
        }
    }

    /// A value written as text, as in `--set hidden_sizes=300,200` or `--set learning_rate=1e-3`.
    pub fn parse(self, text: &str) -> Result<Value, ValueError> {
        let wrong = || self.wrong_kind(format!("{:?}", text.chars().take(80).collect::<String>()));
        match self.definition().domain {
            Domain::Choice(_) => self.choice(text),
            Domain::Number { .. } => self.number(text.parse().map_err(|_| wrong())?),
            Domain::Integer { .. } => self.integer(text.parse().map_err(|_| wrong())?),
            Domain::Flag => self.flag(text.parse().map_err(|_| wrong())?),
            Domain::Sizes { .. } => {
                let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
                let sizes: Result<Vec<u32>, _> = inside.split(',').map(|size| size.trim().parse()).collect();
                self.sizes(&sizes.map_err(|_| wrong())?)
            }
        }
    }

    /// Takes a value of any kind if it lies in this hyperparameter's domain.
    pub fn check(self, value: &Value) -> Result<Value, ValueError> {
        match value {
            Value::Choice(word) => self.choice(word),
            Value::Number(number) => self.number(*number),
            Value::Integer(number) => self.integer(*number),
            Value::Flag(flag) => self.flag(*flag),
            Value::Sizes(sizes) => self.sizes(sizes),
        }
    }

    fn wrong_kind(self, given: String) -> ValueError {
        ValueError::WrongKind { name: self.name(), given, domain: self.definition().domain }
    }

    fn outside(self, given: String) -> ValueError {
        ValueError::Outside { name: self.name(), given, domain: self.definition().domain }
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a name or a value is not one of the catalogue's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// No hyperparameter has this name.
    #[error("there is no hyperparameter {name:?}{}", suggestion(nearest))]
    UnknownName {
        /// The name as it came.
        name: String,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
    },
    /// The hyperparameter has no such choice.
    #[error("{name} cannot be {given:?}{}; it can be {}", suggestion(nearest), known.join(", "))]
    UnknownChoice {
        /// The hyperparameter.
        name: &'static str,
        /// The word as it came.
        given: String,
        /// The words that it may be.
        known: &'static [&'static str],
        /// The known word that is most like the one given.
        nearest: Option<&'static str>,
    },
    /// The value is of another kind than the hyperparameter takes.
    #[error("{name} cannot be {given}: it takes {domain}")]
    WrongKind {
        /// The hyperparameter.
        name: &'static str,
        /// The value as it came.
        given: String,
        /// What the hyperparameter takes.
        domain: Domain,
    },
    /// The value is of the right kind, but out of range.
    #[error("{name} cannot be {given}: it takes {domain}")]
    Outside {
        /// The hyperparameter.
        name: &'static str,
        /// The value as it came.
        given: String,
        /// What the hyperparameter takes.
        domain: Domain,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// The candidate that `given` was most probably meant to be, if any is near enough.
pub fn nearest(given: &str, candidates: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let given = given.to_lowercase().replace('-', "_").replace("isation", "ization");
    candidates
        .into_iter()
        .map(|candidate| {
            let starts = !given.is_empty() && (candidate.starts_with(&given) || given.starts_with(candidate));
            let likeness = strsim::jaro_winkler(&given, candidate);
            (candidate, if starts { likeness + 1.0 } else { likeness })
        })
        .filter(|(_, likeness)| *likeness > 0.75)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Number { min, max } => {
                match min {
                    Bound::Included(bound) => write!(f, "a number from {bound}")?,
                    Bound::Excluded(bound) => write!(f, "a number above {bound}")?,
                }
                match max {
                    Bound::Included(bound) => write!(f, " up to {bound}"),
                    Bound::Excluded(bound) => write!(f, " to below {bound}"),
                }
            }
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Flag => f.write_str("true or false"),
            Self::Sizes { max_layers, max_size } => {
                write!(f, "a list of 1 to {max_layers} sizes from 1 to {max_size}")
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(word) => f.pad(word),
            Self::Number(number) if *number != 0.0 && !(1e-3..1e6).contains(&number.abs()) => {
                write!(f, "{number:e}")
            }
            Self::Number(number) => number.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Sizes(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
                f.pad(&sizes.join("-"))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Choice(word) => serializer.serialize_str(word),
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Sizes(sizes) => {
                let mut list = serializer.serialize_seq(Some(sizes.len()))?;
                for size in sizes {
                    list.serialize_element(size)?;
                }
                list.end()
            }
        }
    }
}

/// A set of hyperparameters with their values: each at most once, in the catalogue's order, each
/// value in its domain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hyperparameters(Vec<(Parameter, Value)>);

impl Hyperparameters {
    /// No hyperparameters at all.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Every hyperparameter of the catalogue at its default.
    pub fn defaults() -> Self {
        Self(Parameter::all().map(|parameter| (parameter, parameter.default_value())).collect())
    }

    /// Sets one, in place of what it was before.
    pub fn set(&mut self, parameter: Parameter, value: &Value) -> Result<(), ValueError> {
        let value = parameter.check(value)?;
        match self.0.binary_search_by_key(&parameter, |(known, _)| *known) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (parameter, value)),
        }
        Ok(())
    }

    /// The value of one, if it is in the set.
    pub fn get(&self, parameter: Parameter) -> Option<&Value> {
        let index = self.0.binary_search_by_key(&parameter, |(known, _)| *known).ok()?;
        Some(&self.0[index].1)
    }

    /// This set with the values of `over` in place of its own.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        let mut all = self.clone();
        for (parameter, value) in &over.0 {
            match all.0.binary_search_by_key(parameter, |(known, _)| *known) {
                Ok(index) => all.0[index].1 = value.clone(),
                Err(index) => all.0.insert(index, (*parameter, value.clone())),
            }
        }
        all
    }

    /// The hyperparameters and their values, in the catalogue's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Parameter, &Value)> {
        self.0.iter().map(|(parameter, value)| (*parameter, value))
    }

    /// How many are set.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set that a JSON object spells out.
    pub fn from_json(object: &serde_json::Map<String, serde_json::Value>) -> Result<Self, ValueError> {
        let mut all = Self::new();
        for (name, value) in object {
            let parameter = Parameter::find(name)?;
            all.set(parameter, &value_from_json(parameter, value)?)?;
        }
        Ok(all)
    }
}

fn value_from_json(parameter: Parameter, json: &serde_json::Value) -> Result<Value, ValueError> {
    use serde_json::Value as Json;
    let wrong = || parameter.wrong_kind(json.to_string().chars().take(80).collect());
    match json {
        Json::String(word) => parameter.choice(word),
        Json::Bool(flag) => parameter.flag(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => parameter.integer(whole),
            None => parameter.number(number.as_f64().ok_or_else(wrong)?),
        },
        Json::Array(sizes) => {
            let sizes: Option<Vec<u32>> =
                sizes.iter().map(|size| size.as_u64().and_then(|size| u32::try_from(size).ok())).collect();
            parameter.sizes(&sizes.ok_or_else(wrong)?)
        }
        Json::Null | Json::Object(_) => Err(wrong()),
    }
}

impl fmt::Display for Hyperparameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (parameter, value)) in self.iter().enumerate() {
            write!(f, "{}{}={value}", if index == 0 { "" } else { " " }, parameter.name())?;
        }
        Ok(())
    }
}

impl Serialize for Hyperparameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (parameter, value) in self.iter() {
            map.serialize_entry(parameter.name(), value)?;
        }
        map.end()
    }
}

impl<'de> serde::Deserialize<'de> for Hyperparameters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = serde_json::Map::deserialize(deserializer)?;
        Self::from_json(&object).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_lies_in_its_domain() {
        for parameter in Parameter::all() {
            assert_eq!(parameter.check(&parameter.default_value()), Ok(parameter.default_value()));
            if let Some((controller, values)) = parameter.definition().used_with {
                let controller = Parameter::find(controller).expect("the controller exists");
                for value in values {
                    assert!(controller.choice(value).is_ok(), "{parameter:?} is used with {value}");
                }
            }
        }
    }

    #[test]
    fn a_slip_of_the_keyboard_is_answered_with_the_nearest_name() {
        for (given, meant) in [
            ("learning_rat", "learning_rate"),
            ("lerning_rate", "learning_rate"),
            ("init", "initialization"),
            ("initialisation", "initialization"),
            ("batchsize", "batch_size"),
            ("optimiser", "optimizer"),
        ] {
            match Parameter::find(given) {
                Err(ValueError::UnknownName { nearest, .. }) => {
                    assert_eq!(nearest, Some(meant), "for {given}")
                }
                other => panic!("{given}: {other:?}"),
            }
        }
        let optimizer = Parameter::find("optimizer").expect("known");
        assert_eq!(
            optimizer.choice("addam").expect_err("unknown").to_string(),
            r#"optimizer cannot be "addam"; did you mean "adam"?; it can be sgd, rmsprop, adam, adamw"#
        );
    }

    #[test]
    fn values_outside_the_domain_are_refused() {
        for (name, text) in [
            ("learning_rate", "0"),
            ("learning_rate", "nan"),
            ("learning_rate", "fast"),
            ("dropout", "1"),
            ("epochs", "0"),
            ("epochs", "1.5"),
            ("nesterov", "yes"),
            ("hidden_sizes", "[]"),
            ("hidden_sizes", "300,0"),
            ("model", "transformer"),
        ] {
            let parameter = Parameter::find(name).expect("known");
            assert!(parameter.parse(text).is_err(), "{name}={text} was accepted");
        }
    }

    #[test]
    fn json_reads_back_what_it_wrote() {
        let mut all = Hyperparameters::defaults();
        let sizes = Parameter::find("hidden_sizes").expect("known");
        all.set(sizes, &sizes.parse("[300, 200]").expect("good")).expect("fits");
        let json = serde_json::to_string(&all).expect("serialises");
        assert_eq!(serde_json::from_str::<Hyperparameters>(&json).expect("reads"), all);
    }
}
