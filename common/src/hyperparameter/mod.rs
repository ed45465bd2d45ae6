//! The catalogue of hyperparameters: every name that a search file, `--set` or the wire may use,
//! with its domain, its default and its meaning. What is not in here does not exist.

mod catalogue;
mod error;
mod set;
mod value;

pub use catalogue::{CATALOGUE, Definition};
pub use error::{ValueError, nearest};
pub use set::Hyperparameters;
pub use value::{Bound, DefaultValue, Domain, Value};

use std::fmt;

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
        CATALOGUE[usize::from(self.0)]
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
