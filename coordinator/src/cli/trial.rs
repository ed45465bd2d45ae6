//! `fittingroom trial`: everything that happened to one trial.

use clap::Args;
use fittingroom_common::checkpoint::CheckpointPlace;
use fittingroom_common::id::{Name, TrialId};
use fittingroom_common::trial::Report;
use fittingroom_common::view::{AttemptHistory, TrialHistory};

use super::client::{Client, Coordinator};
use super::error::CliError;
use super::flags::JsonFlag;
use super::json;
use super::output::{Form, Output};
use super::{table, text};

/// Shows one trial with every epoch of its attempts.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  fittingroom trial quickstart 7")]
pub(crate) struct TrialArgs {
    /// The search
    name: Name,
    /// The trial's number, as the leaderboard shows it
    number: u64,
    #[command(flatten)]
    json: JsonFlag,
}

/// Runs the command.
pub(crate) async fn run(
    args: TrialArgs,
    coordinator: &Coordinator,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut client = Client::connect(coordinator).await?;
    let history = client.trial(&args.name, TrialId::new(args.number)).await?;
    match args.json.form() {
        Form::Json => output.json(&json::History::new(args.name.as_str(), &history)),
        Form::Text => output.line(&render(&args.name, &history, output.width())),
    }
}

fn render(name: &Name, history: &TrialHistory, width: Option<u16>) -> String {
    let row = &history.row;
    let mut shown = format!("trial {} of {name}: {}", row.trial, row.state);
    if let Some(rank) = row.rank {
        shown.push_str(&format!(", rank {rank}"));
    }
    if let Some(failure) = &row.failure {
        shown.push_str(&format!(" ({})", text::clean(&failure.to_string())));
    }
    shown.push('\n');
    for (parameter, value) in row.hyperparameters.iter() {
        shown.push_str(&format!("  {:<20} {value}\n", parameter.name()));
    }
    let seeds = history.seeds;
    shown.push_str(&format!(
        "  replicate {}; seeds: split {}, order {}, trial {}\n",
        history.replicate, seeds.split, seeds.order, seeds.trial
    ));
    if let Some(test) = row.test {
        shown.push_str(&format!(
            "  on the test set: accuracy {}, loss {}\n",
            text::percent(test.accuracy),
            text::loss(test.loss)
        ));
    }
    for attempt in &history.attempts {
        shown.push('\n');
        shown.push_str(&render_attempt(attempt, width));
    }
    shown
}

fn render_attempt(attempt: &AttemptHistory, width: Option<u16>) -> String {
    let (worker, slot) = &attempt.place;
    let mut shown = format!("attempt {} on {worker}/{slot}, begun {}", attempt.number, attempt.started);
    if let Some(ended) = attempt.ended {
        let took = text::duration(ended.since(attempt.started));
        shown.push_str(&format!(", ended after {took}"));
    }
    shown.push('\n');
    if let Some(CheckpointPlace { epoch, step }) = attempt.resumed_from.map(|it| it.place) {
        shown.push_str(&match step {
            0 => format!("continued from epoch {epoch}\n"),
            _ => format!("continued from epoch {epoch}, {step} steps into the next\n"),
        });
    }
    if let Some(failure) = &attempt.failure {
        shown.push_str(&format!("failed: {}\n", text::clean(&failure.to_string())));
    }
    if attempt.epochs.is_empty() {
        shown.push_str("no epoch reported\n");
        return shown;
    }
    let accuracies: Vec<f64> = attempt.epochs.iter().map(|report| report.validation.accuracy.get()).collect();
    if accuracies.len() > 1 {
        shown.push_str(&format!("validation accuracy  {}\n", sparkline(&accuracies)));
    }
    shown.push_str(&render_epochs(&attempt.epochs, width));
    shown
}

fn render_epochs(epochs: &[Report], width: Option<u16>) -> String {
    let is_tested = epochs.iter().any(|report| report.test.is_some());
    let mut columns = vec![
        table::numbers("epoch"),
        table::numbers("training\naccuracy"),
        table::numbers("training\nloss"),
        table::numbers("validation\naccuracy"),
        table::numbers("validation\nloss"),
    ];
    if is_tested {
        columns.extend([table::numbers("test\naccuracy"), table::numbers("test\nloss")]);
    }
    columns.extend([table::numbers("images/s"), table::numbers("time")]);
    let rows = epochs.iter().map(|report| {
        let mut scores = vec![Some(report.train), Some(report.validation)];
        if is_tested {
            scores.push(report.test);
        }
        let mut cells = vec![report.epoch.to_string()];
        for score in scores {
            cells.push(score.map(|score| text::percent(score.accuracy)).unwrap_or_default());
            cells.push(score.map(|score| text::loss(score.loss)).unwrap_or_default());
        }
        cells.push(text::grouped(report.images_per_second as u64));
        cells.push(text::seconds(report.seconds));
        cells
    });
    table::lay_out(&columns, rows.collect(), width)
}

/// The course of a number in one line, at most 60 characters wide; each stands for the highest of its epochs.
fn sparkline(numbers: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDEST: usize = 60;
    let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let each = numbers.len().div_ceil(WIDEST).max(1);
    numbers
        .chunks(each)
        .map(|chunk| {
            let peak = chunk.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let share = if high > low { (peak - low) / (high - low) } else { 0.0 };
            LEVELS[((share * 7.0).round() as usize).min(7)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use fittingroom_common::checkpoint::Checkpoint;
    use fittingroom_common::id::{ArtifactHash, AttemptNumber, SlotNumber};
    use fittingroom_common::time::Timestamp;
    use fittingroom_common::trial::{Failure, FailureReason, Seeds};

    use super::*;
    use crate::cli::samples::{complete, report};

    fn history() -> TrialHistory {
        let attempt = |number, epochs, failure, resumed_from| AttemptHistory {
            number,
            place: (Name::sanitised("node-1"), SlotNumber::new(0)),
            started: Timestamp::from_millis(1_795_350_951_000),
            ended: Some(Timestamp::from_millis(1_795_351_023_000)),
            epochs,
            failure,
            resumed_from,
        };
        let place = CheckpointPlace { epoch: 0, step: 120 };
        let checkpoint = Checkpoint { place, hash: ArtifactHash::of(b"checkpoint") };
        let lost = Failure::new(FailureReason::WorkerLost, "silent for\n30 s");
        TrialHistory {
            row: complete(3, 1, 0.9123),
            seeds: Seeds { split: 1, order: 2, trial: 3 },
            replicate: 0,
            attempts: vec![
                attempt(AttemptNumber::new(1), Vec::new(), Some(lost), None),
                attempt(AttemptNumber::new(2), vec![report(1, 0.8), report(2, 0.9)], None, Some(checkpoint)),
            ],
        }
    }

    #[test]
    fn a_trial_tells_of_every_attempt_and_epoch() {
        assert_eq!(
            render(&Name::sanitised("quickstart"), &history(), None),
            "\
trial 3 of quickstart: COMPLETE, rank 1
  optimizer            adam
  learning_rate        1e-4
  batch_size           64
  replicate 0; seeds: split 1, order 2, trial 3

attempt 1 on node-1/0, begun 2026-11-22T12:35:51Z, ended after 1m 12s
failed: worker_lost: silent for 30 s
no epoch reported

attempt 2 on node-1/0, begun 2026-11-22T12:35:51Z, ended after 1m 12s
continued from epoch 0, 120 steps into the next
validation accuracy  ▁█
epoch  training  training  validation  validation  images/s  time
       accuracy      loss    accuracy        loss
──────────────────────────────────────────────────────────────────
    1   95.00 %    0.2500     80.00 %      0.3456     9,000    7s
    2   95.00 %    0.2500     90.00 %      0.3456     9,000   14s
"
        );
    }

    #[test]
    fn a_sparkline_spans_its_numbers() {
        for (numbers, shown) in [(vec![0.0, 0.5, 1.0], "▁▅█"), (vec![3.0, 3.0], "▁▁"), (vec![], "")]
        {
            assert_eq!(sparkline(&numbers), shown);
        }
        let long: Vec<f64> = (0..1_000).map(f64::from).collect();
        assert!(sparkline(&long).chars().count() <= 60);
    }
}
