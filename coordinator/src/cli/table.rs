//! Tables: the one look of them all, and the columns of the leaderboard.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use fittingroom_common::hyperparameter::Parameter;
use fittingroom_common::trial::Metric;
use fittingroom_common::view::{TrialRow, TrialState};

use super::text;

/// A column's heading, and where its cells are aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// What stands above the cells; may have two lines.
    pub(crate) heading: String,
    /// Where the cells are aligned.
    pub(crate) alignment: Alignment,
}

/// Where the cells of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alignment {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column of words.
pub(crate) fn words(heading: impl Into<String>) -> Column {
    Column { heading: heading.into(), alignment: Alignment::Left }
}

/// A column of numbers.
pub(crate) fn numbers(heading: impl Into<String>) -> Column {
    Column { heading: heading.into(), alignment: Alignment::Right }
}

/// Lays out rows below their headings, within a terminal's width if there is one.
pub(crate) fn lay_out(columns: &[Column], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.force_no_tty();
    match width {
        Some(width) => table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table.set_header(columns.iter().map(|column| column.heading.as_str()));
    for (index, column) in columns.iter().enumerate() {
        let Some(laid_out) = table.column_mut(index) else {
            continue;
        };
        laid_out.set_padding((0, 1));
        if column.alignment == Alignment::Right {
            laid_out.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.add_rows(rows);
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The hyperparameters in which these trials differ; all that the search names if there is but one trial.
pub(crate) fn varying(rows: &[&TrialRow]) -> Vec<Parameter> {
    Parameter::all()
        .filter(|parameter| {
            let mut values = rows.iter().map(|row| row.hyperparameters.get(*parameter));
            match (values.next(), rows.len()) {
                (None, _) => false,
                (Some(only), 1) => only.is_some(),
                (Some(first), _) => values.any(|value| value != first),
            }
        })
        .collect()
}

/// The hyperparameters that these trials have in common, with their values; empty for a single trial.
pub(crate) fn fixed(rows: &[&TrialRow]) -> String {
    let differing = varying(rows);
    let fixed: Vec<String> = rows
        .iter()
        .take(1)
        .flat_map(|row| row.hyperparameters.iter())
        .filter(|(parameter, _)| !differing.contains(parameter))
        .map(|(parameter, value)| format!("{}={value}", parameter.name()))
        .collect();
    fixed.join(" ")
}

/// The columns of a leaderboard and its cells.
pub(crate) fn leaderboard(metric: Metric, rows: &[&TrialRow]) -> (Vec<Column>, Vec<Vec<String>>) {
    let parameters = varying(rows);
    let is_tested = rows.iter().any(|row| test_of(row).is_some());
    let (first, second) = match metric {
        Metric::ValidationAccuracy => ("accuracy", "loss"),
        Metric::ValidationLoss => ("loss", "accuracy"),
    };
    let mut columns = vec![
        numbers("rank"),
        numbers("trial"),
        words("state"),
        numbers(format!("validation\n{first}")),
        numbers(format!("validation\n{second}")),
    ];
    if is_tested {
        columns.push(numbers("test\naccuracy"));
    }
    columns.push(numbers("epoch"));
    columns.extend(parameters.iter().map(|parameter| words(parameter.name())));
    columns.extend([words("worker"), numbers("time")]);
    let cells = rows.iter().map(|row| cells(metric, row, &parameters, is_tested)).collect();
    (columns, cells)
}

fn cells(metric: Metric, row: &TrialRow, parameters: &[Parameter], is_tested: bool) -> Vec<String> {
    let (accuracy, loss) = match &row.report {
        Some(report) => (text::percent(report.validation.accuracy), text::loss(report.validation.loss)),
        None => Default::default(),
    };
    let mut cells =
        vec![row.rank.map(|rank| rank.to_string()).unwrap_or_default(), row.trial.to_string(), state(row)];
    cells.extend(match metric {
        Metric::ValidationAccuracy => [accuracy, loss],
        Metric::ValidationLoss => [loss, accuracy],
    });
    if is_tested {
        cells.push(test_of(row).unwrap_or_default());
    }
    cells.push(format!("{}/{}", epochs_done(row), row.epochs));
    cells.extend(parameters.iter().map(|parameter| {
        let value = row.hyperparameters.get(*parameter);
        value.map(ToString::to_string).unwrap_or_default()
    }));
    cells.push(row.place.as_ref().map(|(name, _)| name.to_string()).unwrap_or_default());
    cells.push(row.report.map(|report| text::seconds(report.seconds)).unwrap_or_default());
    cells
}

/// The state, and why if it is a failure.
fn state(row: &TrialRow) -> String {
    match (row.state, &row.failure) {
        (TrialState::Failed, Some(failure)) => format!("{} ({})", row.state, failure.reason),
        (state, _) => state.to_string(),
    }
}

fn epochs_done(row: &TrialRow) -> u32 {
    row.report.map_or(0, |report| report.epoch)
}

/// The accuracy on the test set, where it is known.
fn test_of(row: &TrialRow) -> Option<String> {
    row.test.or_else(|| row.report.and_then(|report| report.test)).map(|test| text::percent(test.accuracy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::{complete, diverged, running, waiting};

    #[test]
    fn a_leaderboard_shows_what_differs() {
        let rows = [complete(3, 1, 0.9123), complete(0, 2, 0.9), diverged(1), running(2), waiting(4)];
        let rows: Vec<&TrialRow> = rows.iter().collect();
        let (columns, cells) = leaderboard(Metric::ValidationAccuracy, &rows);
        assert_eq!(
            lay_out(&columns, cells, None),
            "\
rank  trial  state              validation  validation  epoch  optimizer  learning_rate  worker    time
                                  accuracy        loss
────────────────────────────────────────────────────────────────────────────────────────────────────────
   1      3  COMPLETE              91.23 %      0.3456  10/10  adam       1e-4           node-1  1m 12s
   2      0  COMPLETE              90.00 %      0.3456  10/10  sgd        0.1            node-1  1m 12s
   3      1  FAILED (diverged)                           0/10  adam       0.01           node-1
          2  RUNNING               85.00 %      0.3456   3/10  sgd        0.001          node-1     21s
          4  WAITING                                     0/10  sgd        0.1
"
        );
    }

    #[test]
    fn the_metric_that_ranks_comes_first() {
        let row = complete(3, 1, 0.9123);
        let (columns, cells) = leaderboard(Metric::ValidationLoss, &[&row]);
        assert_eq!(columns[3].heading, "validation\nloss");
        assert_eq!(cells[0][3], "0.3456");
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let row = complete(3, 1, 0.9123);
        let (columns, cells) = leaderboard(Metric::ValidationAccuracy, &[&row]);
        let text = lay_out(&columns, cells, Some(60));
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(60), "{text}");
    }
}
