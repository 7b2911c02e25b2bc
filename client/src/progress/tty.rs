//! Progress as a live view that is drawn again and again.

use super::color::{Color, Colors, paint};
use super::interval::{self, Interval};
use super::log::Keep;
use super::plain::amount;
use super::step::Step;
use super::time::Time;
use super::trace::{StepId, Trace};
use kiln_proto::control::StatusResponse;
use std::io::{self, Write};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Rows of output that are shown of a step that runs.
const LOG_ROWS: usize = 6;
/// Columns that stand before and after a row of output.
const LOG_MARGIN: usize = 10;
/// The view has not shown a step's lines one by one, so all of them are shown if it fails, as far
/// as memory allows.
const KEEP: Keep = Keep { lines: 2000, bytes: 2 << 20 };

/// The size of the user's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// The view.
#[derive(Debug)]
pub(crate) struct Tty {
    trace: Trace,
    colors: Colors,
    log_rows: usize,
    /// The widths of the lines that the terminal shows, in order to find the first one again.
    drawn: Vec<usize>,
}

/// One line of the view, before it is cut to the terminal.
#[derive(Debug)]
struct Line {
    name: String,
    amount: Option<String>,
    intervals: Vec<Interval>,
    state: State,
    /// The step, if the line is one's own.
    step: Option<StepId>,
    shows_log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Done,
    Canceled,
    Failed,
}

impl Tty {
    /// `log_rows` is how many rows of output are shown of a step that runs.
    pub(crate) fn new(colors: Colors, log_rows: Option<usize>) -> Self {
        let log_rows = log_rows.filter(|&rows| rows > 0).unwrap_or(LOG_ROWS);
        Self { trace: Trace::new(KEEP, true), colors, log_rows, drawn: Vec::new() }
    }

    pub(crate) fn update(&mut self, status: &StatusResponse, now: Time) {
        self.trace.update(status, now);
        for id in std::mem::take(&mut self.trace.fresh) {
            self.trace.step_mut(id).log.skip();
        }
    }

    /// Draws the view over the last one.
    pub(crate) fn refresh(
        &mut self,
        size: Size,
        now: Time,
        out: &mut impl Write,
    ) -> io::Result<()> {
        self.draw(size, now, false, out)
    }

    /// Draws the last view, and the lines of steps that failed.
    pub(crate) fn finish(&mut self, size: Size, now: Time, out: &mut impl Write) -> io::Result<()> {
        self.draw(size, now, true, out)?;
        self.trace.write_failures(out)?;
        out.flush()
    }

    fn draw(
        &mut self,
        size: Size,
        now: Time,
        is_last: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        // A line that is wider than the terminal has become takes several rows.
        let columns = size.columns.max(1);
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
        self.drawn.clear();

        let back = if up > 0 { format!("\x1b[{up}A") } else { String::new() };
        let mut frame = format!("\x1b[?25l{back}\r");
        let header = self.header(now, is_last);
        self.push(&mut frame, &cut(&header, columns), None);
        for line in self.lines(size, is_last) {
            self.push_line(&mut frame, &line, columns, now);
        }
        frame.push_str("\x1b[J\x1b[?25h");
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    fn header(&self, now: Time, is_last: bool) -> String {
        let total = self.trace.visible().count();
        let completed = self.trace.visible().filter(|(_, step)| step.completed().is_some()).count();
        let seconds = self.trace.start().map_or(0.0, |start| now.seconds_since(start)).max(0.0);
        let finished =
            if is_last && completed > 0 && completed == total { " FINISHED" } else { "" };
        format!("[+] Building {seconds:.1}s ({completed}/{total}){finished}")
    }

    /// The lines that fit the terminal, all of them in the last view.
    fn lines(&self, size: Size, is_last: bool) -> Vec<Line> {
        let mut lines: Vec<Line> =
            self.trace.started.iter().flat_map(|&id| self.step_lines(id)).collect();
        let hidden_rows = self.choose_logs(&mut lines, size);
        if is_last {
            for line in &mut lines {
                line.shows_log = false;
            }
            return lines;
        }
        fit(lines, size.rows.saturating_sub(2 + hidden_rows))
    }

    fn step_lines(&self, id: StepId) -> Vec<Line> {
        let step = self.trace.step(id);
        let offset = self.trace.offset();
        let shift = |interval: Interval| interval.plus(offset);
        let mut lines = vec![Line {
            name: printable(&title(step)),
            amount: None,
            intervals: step.intervals().iter().copied().map(shift).collect(),
            state: state(step),
            step: Some(id),
            shows_log: false,
        }];
        for (name, part) in &step.parts {
            let Some(start) = part.started else { continue };
            lines.push(Line {
                name: printable(&format!("=> {name}")),
                amount: amount(part),
                intervals: vec![shift(Interval { start, stop: part.completed })],
                state: if part.completed.is_some() { State::Done } else { State::Running },
                step: None,
                shows_log: false,
            });
        }
        for warning in &step.warnings {
            lines.push(Line {
                name: printable(&format!("WARN: {}", String::from_utf8_lossy(warning))),
                amount: None,
                intervals: step.latest().into_iter().map(shift).collect(),
                state: State::Canceled,
                step: None,
                shows_log: false,
            });
        }
        lines
    }

    /// Chooses the steps whose output is shown, those that print most, and says how many rows
    /// that takes.
    fn choose_logs(&self, lines: &mut [Line], size: Size) -> usize {
        let running = lines.iter().filter(|line| line.state == State::Running).count();
        let height = self.log_rows.min(size.rows.saturating_sub(LOG_ROWS + 1)).max(LOG_ROWS);
        let mut free = size.rows.saturating_sub(2 + running);
        let mut taken = 0;
        let mut candidates: Vec<(u64, usize)> = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.state == State::Running)
            .filter_map(|(index, line)| Some((self.trace.terminal(line.step?)?.written, index)))
            .filter(|&(written, _)| written > 0)
            .collect();
        candidates.sort_by_key(|&(written, _)| std::cmp::Reverse(written));
        for (_, index) in candidates {
            if free <= height + 3 {
                break;
            }
            free -= height + 3;
            lines[index].shows_log = true;
            let terminal = lines[index].step.and_then(|id| self.trace.terminal(id));
            taken += terminal.map_or(0, |terminal| terminal.last_rows(height, 1).len());
        }
        taken
    }

    fn push_line(&mut self, frame: &mut String, line: &Line, columns: usize, now: Time) {
        let seconds = interval::seconds(&line.intervals, now);
        let timer = format!("{:.1}s", if seconds < 0.05 { 0.0 } else { seconds });
        let Some(text) = layout(&line.name, line.amount.as_deref(), &timer, columns) else {
            return;
        };
        let color = match line.state {
            State::Running => None,
            State::Done => self.colors.run.clone(),
            State::Canceled => self.colors.cancel.clone(),
            State::Failed => self.colors.error.clone(),
        };
        self.push(frame, &text, color.as_ref());
        let terminal = line.step.and_then(|id| self.trace.terminal(id)).filter(|_| line.shows_log);
        let Some(terminal) = terminal else { return };
        let width = columns.saturating_sub(LOG_MARGIN);
        for row in terminal.last_rows(self.log_rows, width) {
            let row = cut(&format!(" => => # {row}"), columns);
            self.drawn.push(row.width());
            frame.push_str(&self.colors.faint(&row));
            frame.push_str("\x1b[K\n");
        }
    }

    fn push(&mut self, frame: &mut String, text: &str, color: Option<&Color>) {
        self.drawn.push(text.width());
        frame.push_str(&paint(color, text));
        frame.push_str("\x1b[K\n");
    }
}

fn title(step: &Step) -> String {
    let state = if step.is_cached {
        "CACHED "
    } else if step.is_canceled() {
        "CANCELED "
    } else if step.has_failed() {
        "ERROR "
    } else {
        ""
    };
    format!("{state}{}", step.name)
}

fn state(step: &Step) -> State {
    if step.is_running() {
        State::Running
    } else if step.is_canceled() {
        State::Canceled
    } else if step.has_failed() {
        State::Failed
    } else {
        State::Done
    }
}

/// Names come from the daemon: a control character in one must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// ` => NAME AMOUNT      TIMER`, or nothing if the terminal is too narrow.
fn layout(name: &str, amount: Option<&str>, timer: &str, columns: usize) -> Option<String> {
    const PREFIX: &str = " => ";
    let mut left = columns.checked_sub(PREFIX.len() + timer.len() + 3)?;
    let mut shown = String::new();
    if let Some(amount) = amount
        && left + amount.len() > 20
        && left > amount.len()
    {
        left -= amount.len() + 1;
        shown = format!(" {amount}");
    }
    if left < 12 {
        return None;
    }
    let text = format!("{PREFIX}{}{shown}", cut(name, left));
    let gap = columns.saturating_sub(text.width() + timer.len() + 1).max(1);
    Some(format!("{text}{:gap$}{timer}", ""))
}

/// The beginning of a text, as far as it fits.
fn cut(text: &str, columns: usize) -> String {
    let mut width = 0;
    text.chars()
        .take_while(|c| {
            width += c.width().unwrap_or(0);
            width <= columns
        })
        .collect()
}

/// The last lines that fit; lines that still run take the place of ones that do not.
fn fit(lines: Vec<Line>, limit: usize) -> Vec<Line> {
    let Some(excess) = lines.len().checked_sub(limit).filter(|&excess| excess > 0) else {
        return lines;
    };
    let mut early = lines;
    let late = early.split_off(excess);
    let mut running: Vec<Line> =
        early.into_iter().filter(|line| line.state == State::Running).collect();
    let removable = late.iter().filter(|line| line.state != State::Running).count();
    let mut to_drop = running.len().min(removable);
    let mut shown = running.split_off(running.len() - to_drop);
    shown.extend(late.into_iter().filter(|line| {
        let drops = line.state != State::Running && to_drop > 0;
        to_drop -= usize::from(drops);
        !drops
    }));
    shown
}
