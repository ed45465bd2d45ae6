//! The live screen of a search: how far it is, what runs now, and the ranking.

use std::io;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use fittingroom_common::view::{LeaderboardView, SearchState, TrialRow};
use futures_util::StreamExt;
use ratatui::Frame;
use ratatui::layout::{Alignment as Aligned, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Gauge, Paragraph, Row, Table};
use tokio::sync::mpsc;

use super::counts;
use super::estimate::{estimate, share_done};
use crate::cli::error::CliError;
use crate::cli::interrupt::Interrupt;
use crate::cli::table::{self, Alignment, Column};
use crate::cli::text;
use crate::cli::watch::Update;

/// What the screen shows.
#[derive(Default)]
struct Screen {
    /// The newest view; `None` before the first.
    view: Option<Box<LeaderboardView>>,
    /// Why there is no connection, while there is none.
    lost: Option<String>,
}

/// Leaves the screen to the shell again, however it is left.
struct Terminal(ratatui::DefaultTerminal);

impl Terminal {
    /// Takes the screen over. A panic gives it back too, before its message.
    fn take() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows updates on the whole terminal; `true` once the search has ended, `false` if its watcher left.
pub(crate) async fn show(
    mut updates: mpsc::Receiver<Update>,
    mut interrupt: Interrupt,
) -> Result<bool, CliError> {
    let mut terminal = Terminal::take().map_err(CliError::Terminal)?;
    let mut events = EventStream::new();
    let mut screen = Screen::default();
    loop {
        terminal.0.draw(|frame| draw(frame, &screen)).map_err(CliError::Terminal)?;
        tokio::select! {
            () = interrupt.heard() => return Ok(false),
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if asks_to_leave(key) => return Ok(false),
                // A resize needs nothing but the next drawing.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(CliError::Terminal(error)),
                None => return Ok(false),
            },
            update = updates.recv() => {
                let mut next = update;
                // What has piled up meanwhile is drawn at once.
                while let Some(update) = next {
                    match update {
                        Update::Refused(why) => return Err(why),
                        Update::Lost { why, .. } => screen.lost = Some(why.to_string()),
                        Update::View(view) => {
                            screen.lost = None;
                            if view.search.state.has_ended() {
                                return Ok(true);
                            }
                            screen.view = Some(view);
                        }
                    }
                    next = updates.try_recv().ok();
                }
                if updates.is_closed() && updates.is_empty() {
                    return Ok(true);
                }
            }
        }
    }
}

fn asks_to_leave(key: KeyEvent) -> bool {
    let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release
        && (is_control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// Draws the screen, whatever its size.
fn draw(frame: &mut Frame, screen: &Screen) {
    let running = screen.view.as_ref().map_or(0, |view| view.running.len());
    // What runs gets at most a third of the screen; the ranking is what one came for.
    let shown = u16::try_from(running).unwrap_or(u16::MAX).min(frame.area().height / 3);
    let running_height = if shown == 0 { 0 } else { shown + 2 };
    let [header, gauge, facts, running, ranking, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(running_height),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let Some(view) = &screen.view else {
        frame.render_widget(Paragraph::new("waiting for the coordinator…"), header);
        draw_footer(frame, footer, screen);
        return;
    };
    draw_header(frame, header, view);
    draw_gauge(frame, gauge, view);
    frame.render_widget(Paragraph::new(facts_of(view)), facts);
    draw_running(frame, running, view);
    draw_ranking(frame, ranking, view);
    draw_footer(frame, footer, screen);
}

fn draw_header(frame: &mut Frame, area: Rect, view: &LeaderboardView) {
    let search = &view.search;
    let color = match search.state {
        SearchState::Running => Color::Green,
        SearchState::Paused | SearchState::Stopping => Color::Yellow,
        SearchState::Complete => Color::Cyan,
        SearchState::Cancelled | SearchState::Failed => Color::Red,
    };
    let left = Line::from(vec![
        Span::from(search.name.to_string()).bold(),
        Span::from("  "),
        Span::styled(search.state.name(), Style::new().fg(color).bold()),
        Span::from(format!("  {} on {}, ranked by {}", search.method, search.dataset, search.metric)),
    ]);
    let right = format!(
        "{}, {}",
        text::plural(view.workers.into(), "worker"),
        text::plural(view.slots.into(), "slot")
    );
    let width = u16::try_from(right.len()).unwrap_or(0);
    let [left_area, right_area] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(width + 1)]).areas(area);
    frame.render_widget(Paragraph::new(left), left_area);
    frame.render_widget(Paragraph::new(right).alignment(Aligned::Right), right_area);
}

fn draw_gauge(frame: &mut Frame, area: Rect, view: &LeaderboardView) {
    let (ended, total) = (view.search.counts.ended(), view.search.trial_count);
    let running: f64 = view.running.iter().map(share_done).sum();
    let done = (ended as f64 + running) / (total.max(1) as f64);
    let gauge = Gauge::default()
        .gauge_style(Style::new().fg(Color::Green).bg(Color::DarkGray))
        .use_unicode(true)
        .ratio(done.clamp(0.0, 1.0))
        // The numbers stand in the line below, where they can be read on any colour.
        .label("");
    frame.render_widget(gauge, area);
}

/// Two lines: how the search goes, and its best trial so far.
fn facts_of(view: &LeaderboardView) -> Text<'static> {
    let pace = match estimate(view) {
        Some(estimate) => format!(
            "{:.1} trials/min, about {} left",
            estimate.trials_per_minute,
            text::duration(estimate.left)
        ),
        None if view.slots == 0 => "no worker is connected: `fittingroom-worker run` starts one".to_owned(),
        None if view.search.state == SearchState::Running => {
            "no estimate before a trial has ended".to_owned()
        }
        None => text::clean(&view.search.reason),
    };
    let best = view.ranked.first().and_then(|row| {
        let report = row.report.as_ref()?;
        let accuracy = text::percent(report.validation.accuracy);
        let loss = text::loss(report.validation.loss);
        Some(format!("best: trial {} with accuracy {accuracy}, loss {loss}", row.trial))
    });
    Text::from(vec![
        Line::from(format!("{}; {pace}", counts(&view.search))),
        Line::from(best.unwrap_or_default()),
    ])
}

fn draw_running(frame: &mut Frame, area: Rect, view: &LeaderboardView) {
    if area.height < 2 {
        return;
    }
    const BAR: usize = 12;
    let rows: Vec<&TrialRow> = view.running.iter().collect();
    let all: Vec<&TrialRow> = view.ranked.iter().chain(&view.running).collect();
    let parameters = table::varying(&all);
    let mut columns = vec![
        table::numbers("trial"),
        table::words("running on"),
        table::numbers("epoch"),
        table::words("progress"),
        table::numbers("accuracy"),
        table::numbers("loss"),
    ];
    columns.extend(parameters.iter().map(|parameter| table::words(parameter.name())));
    let cells = rows.iter().map(|row| {
        let done = row.report.map_or(0, |report| report.epoch);
        let epoch = row.progress.map_or(done, |progress| progress.epoch.max(done));
        let place = row.place.as_ref().map(|(name, slot)| format!("{name}/{slot}"));
        let mut cells = vec![
            row.trial.to_string(),
            place.unwrap_or_default(),
            format!("{epoch}/{}", row.epochs),
            format!("{} {:3.0} %", bar(share_done(row), BAR), share_done(row) * 100.0),
        ];
        cells.extend(match &row.report {
            Some(report) => [text::percent(report.validation.accuracy), text::loss(report.validation.loss)],
            None => Default::default(),
        });
        cells.extend(parameters.iter().map(|parameter| {
            let value = row.hyperparameters.get(*parameter);
            value.map(ToString::to_string).unwrap_or_default()
        }));
        cells
    });
    let cells: Vec<Vec<String>> = cells.collect();
    frame.render_widget(widget(&columns, &cells, area.width), area);
}

fn draw_ranking(frame: &mut Frame, area: Rect, view: &LeaderboardView) {
    if area.height < 3 {
        return;
    }
    let rows: Vec<&TrialRow> = view.ranked.iter().take(usize::from(area.height) - 2).collect();
    if rows.is_empty() {
        return;
    }
    let (columns, cells) = table::leaderboard(view.search.metric, &rows);
    frame.render_widget(widget(&columns, &cells, area.width), area);
}

fn draw_footer(frame: &mut Frame, area: Rect, screen: &Screen) {
    let line = match &screen.lost {
        Some(why) => Line::from(format!("connection lost, trying again: {why}")).fg(Color::Red),
        None => Line::from("q or Ctrl-C leaves; the search goes on").dim(),
    };
    frame.render_widget(Paragraph::new(line), area);
}

/// A table whose columns are as wide as their widest cell. Columns at the right that have no room are left out.
fn widget<'a>(columns: &'a [Column], rows: &'a [Vec<String>], room: u16) -> Table<'a> {
    const SPACING: u16 = 2;
    let mut widths = Vec::new();
    let mut used = 0u16;
    for (index, column) in columns.iter().enumerate() {
        let heading = column.heading.lines().map(|line| line.chars().count());
        let cells = rows.iter().filter_map(|row| Some(row.get(index)?.chars().count()));
        let widest = heading.chain(cells).max().unwrap_or(0);
        let width = u16::try_from(widest).unwrap_or(u16::MAX);
        used = used.saturating_add(width);
        if used > room {
            break;
        }
        used = used.saturating_add(SPACING);
        widths.push(Constraint::Length(width));
    }
    let columns = &columns[..widths.len()];
    let lines = columns.iter().map(|column| column.heading.lines().count()).max();
    let header_height = u16::try_from(lines.unwrap_or(1)).unwrap_or(1);
    let header = columns.iter().map(|column| {
        // Headings stand on the cells below them.
        let above = "\n".repeat(usize::from(header_height).saturating_sub(column.heading.lines().count()));
        Cell::from(Text::from(format!("{above}{}", column.heading)).alignment(aligned(column)))
    });
    let header = Row::new(header).height(header_height).style(Style::new().bold());
    let rows = rows.iter().map(|row| {
        Row::new(
            row.iter()
                .zip(columns)
                .map(|(cell, column)| Cell::from(Text::from(cell.as_str()).alignment(aligned(column)))),
        )
    });
    Table::new(rows, widths).header(header).column_spacing(SPACING)
}

fn aligned(column: &Column) -> Aligned {
    match column.alignment {
        Alignment::Left => Aligned::Left,
        Alignment::Right => Aligned::Right,
    }
}

/// A bar of so many characters, filled to a share.
fn bar(share: f64, characters: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * characters as f64 * 8.0).round() as usize;
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let (full, part) = (eighths / 8, PARTS[eighths % 8]);
    let filled = full + usize::from(!part.is_empty());
    format!("{}{part}{}", "█".repeat(full), "░".repeat(characters - filled))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::samples::view;

    fn drawn(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
        terminal.draw(|frame| draw(frame, screen)).expect("draws");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    fn showing(view: LeaderboardView) -> Screen {
        Screen { view: Some(Box::new(view)), lost: None }
    }

    #[test]
    fn the_screen_shows_progress_running_trials_and_the_ranking() {
        assert_eq!(
            drawn(&showing(view()), 104, 16),
            [
                "quickstart  RUNNING  random on fashion-mnist, ranked by validation_accuracy            1 worker, 2 slots",
                "████████▊",
                "3 of 40 trials ended (2 complete, 1 failed), 1 running; 1.0 trials/min, about 36m 47s left",
                "best: trial 3 with accuracy 91.23 %, loss 0.3456",
                "trial  running on  epoch  progress            accuracy    loss  optimizer  learning_rate",
                "    2  node-1/0     4/10  ████▎░░░░░░░  35 %   85.00 %  0.3456  sgd        0.001",
                "",
                "                                validation  validation",
                "rank  trial  state                accuracy        loss  epoch  optimizer  learning_rate  worker    time",
                "   1      3  COMPLETE              91.23 %      0.3456  10/10  adam       1e-4           node-1  1m 12s",
                "   2      0  COMPLETE              90.00 %      0.3456  10/10  sgd        0.1            node-1  1m 12s",
                "   3      1  FAILED (diverged)                           0/10  adam       0.01           node-1",
                "",
                "",
                "",
                "q or Ctrl-C leaves; the search goes on",
            ]
        );
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (10, 3), (20, 5), (300, 4), (40, 60)] {
            drawn(&showing(view()), width, height);
            drawn(&Screen::default(), width, height);
        }
    }

    #[test]
    fn a_narrow_screen_shows_whole_columns_only() {
        let lines = drawn(&showing(view()), 50, 16);
        assert_eq!(lines[8], "rank  trial  state                accuracy");
    }

    #[test]
    fn a_lost_connection_is_said_and_the_last_view_stays() {
        let mut screen = showing(view());
        screen.lost = Some("no coordinator answers".to_owned());
        let lines = drawn(&screen, 80, 12);
        assert!(lines[0].starts_with("quickstart  RUNNING"), "{lines:?}");
        assert_eq!(lines[11], "connection lost, trying again: no coordinator answers");
    }

    #[test]
    fn bars_fill_evenly() {
        for (share, shown) in [(0.0, "░░░░"), (0.5, "██░░"), (0.53, "██▏░"), (1.0, "████"), (7.0, "████")]
        {
            assert_eq!(bar(share, 4), shown, "for {share}");
        }
    }

    #[test]
    fn only_the_named_keys_leave() {
        let key = |code, modifiers| asks_to_leave(KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
    }
}
