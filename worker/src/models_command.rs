//! `fittingroom-worker models`: what models there are and how large they are.

use std::io::Write;

use fittingroom_common::hyperparameter::{Domain, Hyperparameters, Parameter, ValueError};

use crate::train::hyper::{GroupShape, SettingsError};
use crate::train::model::{ImageShape, ModelError, Outline};

/// What the table is of: grey images of the size of Fashion-MNIST's, in as many classes.
const IMAGES: ImageShape = ImageShape { height: 28, width: 28, classes: 10 };

/// Settings of `fittingroom-worker models`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  fittingroom-worker models

For each model with its default hyperparameters, and grey images of 28x28 in ten classes: the shapes
that an image goes through (layers that leave the shape as it is are not shown), the parameters, and the
multiply-adds of one image forward, in products of weights and activations. A step of training does about three
times as many.")]
pub struct ModelsArgs {
    /// One JSON array with an object for each model
    #[arg(long, env = "FITTINGROOM_JSON")]
    pub json: bool,
}

/// Why the table was not printed.
#[derive(Debug, thiserror::Error)]
pub enum ModelsCommandError {
    /// The catalogue does not take its own values.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The engine does not take the catalogue's defaults.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The table cannot be written.
    #[error("the table cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

/// A line of the table.
#[derive(Debug, serde::Serialize)]
struct Row {
    model: &'static str,
    /// Those that have an effect on this model's shape.
    hyperparameters: Hyperparameters,
    #[serde(flatten)]
    outline: Outline,
}

/// Writes the table.
pub fn run(args: &ModelsArgs, out: &mut dyn Write) -> Result<(), ModelsCommandError> {
    let rows = rows()?;
    if args.json {
        writeln!(out, "{}", serde_json::json!(rows))?;
        return Ok(());
    }
    let cells: Vec<[String; 4]> = rows.iter().map(Row::cells).collect();
    let header = ["model", "parameters", "multiply-adds", "shapes"].map(str::to_owned);
    let width = |column: usize| cells.iter().chain([&header]).map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    for [model, parameters, multiply_adds, shapes] in [&header].into_iter().chain(&cells) {
        writeln!(out, "{model:first$}  {parameters:>second$}  {multiply_adds:>third$}  {shapes}")?;
    }
    Ok(())
}

/// Every model by its defaults, and by each other value of the choices that it alone has.
fn rows() -> Result<Vec<Row>, ModelsCommandError> {
    let model = Parameter::find("model")?;
    let Domain::Choice(names) = model.definition().domain else {
        return Ok(Vec::new());
    };
    let mut rows = Vec::new();
    for name in names {
        let shaping = shaping(name);
        let mut defaults = Hyperparameters::defaults();
        defaults.set(model, &model.choice(name)?)?;
        rows.push(Row::of(name, &shaping, &defaults)?);
        for parameter in &shaping {
            let Domain::Choice(words) = parameter.definition().domain else {
                continue;
            };
            for word in words {
                let value = parameter.choice(word)?;
                if value != parameter.default_value() {
                    let mut other = defaults.clone();
                    other.set(*parameter, &value)?;
                    rows.push(Row::of(name, &shaping, &other)?);
                }
            }
        }
    }
    Ok(rows)
}

/// The hyperparameters that shape this model: its own, but for those that are drawn in training.
fn shaping(name: &str) -> Vec<Parameter> {
    let of_model =
        |parameter: &Parameter| match (parameter.definition().used_with, parameter.definition().domain) {
            (_, Domain::Number { .. }) | (None, _) => false,
            (Some((controller, values)), _) => controller == "model" && values.contains(&name),
        };
    Parameter::all().filter(of_model).collect()
}

impl Row {
    fn of(
        model: &'static str,
        shaping: &[Parameter],
        all: &Hyperparameters,
    ) -> Result<Self, ModelsCommandError> {
        let mut hyperparameters = Hyperparameters::new();
        for parameter in shaping {
            if let Some(value) = all.get(*parameter) {
                hyperparameters.set(*parameter, value)?;
            }
        }
        Ok(Self { model, hyperparameters, outline: Outline::of(&GroupShape::of(all)?, IMAGES)? })
    }

    fn cells(&self) -> [String; 4] {
        let shape = |sizes: &Vec<usize>| sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let shapes: Vec<String> = self.outline.shapes.iter().map(shape).collect();
        [
            format!("{} {}", self.model, self.hyperparameters).trim_end().to_owned(),
            grouped(self.outline.parameters),
            grouped(self.outline.multiply_adds),
            shapes.join(" "),
        ]
    }
}

/// A number with a comma after every three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(json: bool) -> String {
        let mut out = Vec::new();
        run(&ModelsArgs { json }, &mut out).expect("a table");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_model_has_a_line_with_its_numbers() {
        let table = output(false);
        let lines: Vec<&str> = table.lines().collect();
        for (start, numbers) in [
            ("fcn hidden_sizes=256-128 ", " 235,146 "),
            ("dnn depth=4 width=256 residual=false ", " 400,906 "),
            ("cnn hidden_sizes=256-128 channels=32-64-128 kernel_size=3 ", " 422,026 "),
            ("lenet ", " 889,354 "),
            ("alexnet alexnet_geometry=adapted classifier_units=4096 ", " 23,271,114 "),
            ("alexnet alexnet_geometry=original classifier_units=4096 ", " 1,060,924,256 "),
            ("vgg ", " 2,329,546 "),
            ("resnet channels=32-64-128 blocks=2 ", " 694,922 "),
            ("wide_resnet blocks=2 widen_factor=2 ", " 690,698 "),
        ] {
            let line = lines.iter().find(|line| line.starts_with(start));
            assert!(line.is_some_and(|line| line.contains(numbers)), "{start}{numbers}:\n{table}");
        }
        assert_eq!(lines.len(), 1 + 9, "{table}");
        assert!(table.contains(" 28x28x1 28x28x32 14x14x64 7x7x128 128 10\n"), "{table}");
    }

    #[test]
    fn json_has_the_same_as_numbers() {
        let rows: serde_json::Value = serde_json::from_str(&output(true)).expect("one document");
        let lenet = rows.as_array().and_then(|rows| rows.iter().find(|row| row["model"] == "lenet"));
        assert_eq!(
            lenet,
            Some(&serde_json::json!({
                "model": "lenet",
                "hyperparameters": {},
                "shapes": [[28, 28, 1], [28, 28, 32], [14, 14, 32], [14, 14, 64], [7, 7, 64], [256], [128], [10]],
                "parameters": 889_354,
                "multiply_adds": 11_499_264,
            }))
        );
    }

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
