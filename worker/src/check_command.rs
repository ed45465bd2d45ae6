//! `fittingroom-worker check`: whether a device computes what the CPU does, and how fast it trains.
//!
//! The CPU is the reference: its operations are proven against PyTorch and finite differences.

mod compare;
mod speed;

use std::io::Write;

use clap::builder::PossibleValuesParser;

use self::compare::Comparison;
use crate::train::TrainError;
use crate::train::device::{DeviceChoice, Opened, UnusableDevice};

/// Settings of `fittingroom-worker check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  fittingroom-worker check --device cuda:0

Every model is compared with the CPU: its logits, the gradient of every parameter, and its weights \
after a few steps of every optimizer. Then a table shows how many images a second the device trains on, \
several trials at once (lanes) where they are of the same shape. Images and weights are drawn: no dataset \
is needed.")]
pub struct CheckArgs {
    /// What to check: cpu, cuda:N, metal or auto
    #[arg(long, env = "FITTINGROOM_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,

    /// Only this model
    #[arg(long, env = "FITTINGROOM_MODEL", value_parser = PossibleValuesParser::new(compare::choices("model")))]
    pub model: Option<String>,

    /// Measure only with this many trials trained at once
    #[arg(long, env = "FITTINGROOM_LANES", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub lanes: Option<u64>,

    /// Measure only; leave out the comparison
    #[arg(long, env = "FITTINGROOM_NO_COMPARE", conflicts_with = "no_speed")]
    pub no_compare: bool,

    /// Compare only; leave out the table of speeds
    #[arg(long, env = "FITTINGROOM_NO_SPEED")]
    pub no_speed: bool,

    /// One JSON object per line of the tables
    #[arg(long, env = "FITTINGROOM_JSON")]
    pub json: bool,
}

/// Why a check did not end well.
#[derive(Debug, thiserror::Error)]
pub enum CheckCommandError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] UnusableDevice),
    /// Something could not be computed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The device does not compute what the CPU does.
    #[error(
        "{device} differs from the CPU by more than rounding in {failed} of {compared} comparisons: do not train on it"
    )]
    Differs {
        /// The device.
        device: DeviceChoice,
        /// How many comparisons failed.
        failed: usize,
        /// How many there were.
        compared: usize,
    },
    /// The results cannot be written.
    #[error("the results cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

/// Compares the device with the CPU, then measures it. Results go to `out`, all else to `notes`.
pub fn run(args: &CheckArgs, out: &mut dyn Write, notes: &mut dyn Write) -> Result<(), CheckCommandError> {
    let opened = args.device.open()?;
    if let Some(note) = &opened.note {
        writeln!(notes, "{note}")?;
    }
    let is_asked_for = |model: &str| args.model.as_deref().is_none_or(|only| only == model);
    if !args.no_compare {
        let mut comparisons = compare::comparisons();
        comparisons.retain(|comparison| is_asked_for(comparison.model()));
        compare_all(&comparisons, &opened, args.json, out, notes)?;
    }
    if !args.no_speed {
        writeln!(notes, "measuring {}", opened.choice)?;
        if !args.json {
            writeln!(out, "{}", speed::HEADING)?;
        }
        for load in speed::loads(args.lanes).filter(|load| is_asked_for(load.model())) {
            let speed = load.measure(&opened)?;
            match args.json {
                true => writeln!(out, "{}", serde_json::json!(speed))?,
                false => writeln!(out, "{speed}")?,
            }
            out.flush()?;
        }
    }
    Ok(())
}

fn compare_all(
    comparisons: &[Comparison],
    opened: &Opened,
    as_json: bool,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), CheckCommandError> {
    writeln!(notes, "comparing {} with the CPU", opened.choice)?;
    let mut failed = 0;
    for comparison in comparisons {
        let difference = comparison.run(&opened.device)?;
        failed += usize::from(!difference.is_rounding());
        if as_json {
            let line = serde_json::json!({ "comparison": comparison.name(), "difference": difference });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{:<44}{difference}", comparison.name())?;
        }
        out.flush()?;
    }
    if failed > 0 {
        return Err(CheckCommandError::Differs {
            device: opened.choice,
            failed,
            compared: comparisons.len(),
        });
    }
    Ok(())
}
