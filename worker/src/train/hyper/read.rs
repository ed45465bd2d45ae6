//! Reads typed values out of a set of hyperparameters.

use fittingroom_common::hyperparameter::{Hyperparameters, Parameter, Value};

use super::SettingsError;

pub(super) struct Reader<'a>(pub(super) &'a Hyperparameters);

impl<'a> Reader<'a> {
    fn value(&self, name: &'static str) -> Result<&'a Value, SettingsError> {
        self.0.get(Parameter::find(name)?).ok_or(SettingsError::Missing { name })
    }

    pub(super) fn choice(&self, name: &'static str) -> Result<&'static str, SettingsError> {
        match self.value(name)? {
            Value::Choice(word) => Ok(word),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    pub(super) fn number(&self, name: &'static str) -> Result<f64, SettingsError> {
        match self.value(name)? {
            Value::Number(number) => Ok(*number),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    pub(super) fn integer(&self, name: &'static str) -> Result<i64, SettingsError> {
        match self.value(name)? {
            Value::Integer(number) => Ok(*number),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, SettingsError> {
        match self.value(name)? {
            Value::Flag(flag) => Ok(*flag),
            other => Err(unknown(name, &other.to_string())),
        }
    }

    pub(super) fn sizes(&self, name: &'static str) -> Result<Vec<usize>, SettingsError> {
        match self.value(name)? {
            Value::Sizes(sizes) => Ok(sizes.iter().map(|&size| size as usize).collect()),
            other => Err(unknown(name, &other.to_string())),
        }
    }
}

/// A value that the catalogue takes, but the engine does not know.
pub(super) fn unknown(name: &'static str, value: &str) -> SettingsError {
    SettingsError::Unknown { name, value: value.to_owned() }
}
