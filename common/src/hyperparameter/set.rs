//! Sets of hyperparameters with their values.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Parameter, Value, ValueError};

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
