//! Progress line by line, for logs: `#8 [stage-0 3/5] RUN touch foo.txt`.
//!
//! Steps run at the same time and share one output, so one step has the word until it is done, is
//! silent for long, or another one has had more to say for some time.

use super::interval;
use super::log::Keep;
use super::step::{Part, Step};
use super::time::Time;
use super::trace::{StepId, Trace};
use crate::units;
use kiln_proto::control::StatusResponse;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write};

/// A step with something to say does not wait longer than this, in seconds.
const MAX_DELAY: f64 = 10.0;
/// A step keeps the word at least this long, in seconds, if others speak as much as it does.
const ANTI_FLICKER: f64 = 5.0;
/// A part is told again when it has come this far since (of 1), or after this many seconds.
const PART_STEP: f64 = 0.05;
const PART_SECONDS: f64 = 5.0;
/// Lines that are shown again when their step fails.
const KEEP: Keep = Keep { lines: 10, bytes: 1 << 20 };

/// The view.
#[derive(Debug)]
pub(crate) struct Plain {
    trace: Trace,
    /// The step that has the word.
    current: Option<StepId>,
    /// What was last told of parts.
    told: HashMap<(StepId, String), (i64, Time)>,
    /// The numbers that steps are known by.
    numbers: HashMap<StepId, usize>,
    truncates_names: bool,
    has_begun: bool,
}

/// What a step has to say, and for how long it has waited.
struct Claim {
    waiting: f64,
    speed: f64,
}

impl Plain {
    /// `truncates_names` cuts the names of steps.
    pub(crate) fn new(truncates_names: bool) -> Self {
        Self {
            trace: Trace::new(KEEP, false),
            current: None,
            told: HashMap::new(),
            numbers: HashMap::new(),
            truncates_names,
            has_begun: false,
        }
    }

    pub(crate) fn update(&mut self, status: &StatusResponse, now: Time) {
        self.trace.update(status, now);
    }

    /// Shows what is new.
    pub(crate) fn refresh(&mut self, now: Time, out: &mut impl Write) -> io::Result<()> {
        let mut text = Vec::new();
        self.print(now, &mut text);
        if text.is_empty() {
            return Ok(());
        }
        out.write_all(&text)?;
        out.flush()
    }

    /// Shows what is left, and the last lines of steps that failed.
    pub(crate) fn finish(&mut self, now: Time, out: &mut impl Write) -> io::Result<()> {
        self.refresh(now, out)?;
        self.trace.write_failures(out)?;
        out.flush()
    }

    fn print(&mut self, now: Time, out: &mut Vec<u8>) {
        let (mut completed, mut running) = (Vec::new(), BTreeSet::new());
        for &id in &self.trace.fresh {
            let step = self.trace.step(id);
            match step.completed() {
                _ if step.is_hidden => {}
                Some(stop) => completed.push((stop, id)),
                None => drop(running.insert(id)),
            }
        }
        let current = self.current;
        // The one that has the word ends first, then the others in the order of their ends.
        completed.sort_by_key(|&(stop, id)| (Some(id) != current, stop));
        for &(_, id) in &completed {
            self.print_step(id, out);
        }
        let current_is_done = completed.iter().any(|&(_, id)| Some(id) == current);

        if running.is_empty() {
            if current.is_some_and(|id| self.trace.step(id).is_running()) {
                return;
            }
            let open = self.trace.visible().find(|(_, step)| step.is_running());
            if let Some((id, _)) = open {
                self.print_step(id, out);
            }
            return;
        }
        if let Some(current) = current
            && running.contains(&current)
        {
            self.print_step(current, out);
        }
        running.extend(current);
        let claims = self.claims(&running, now);
        let Some(loudest) = loudest(&claims, current) else { return };
        match current.filter(|_| !current_is_done) {
            None => self.print_step(loudest, out),
            Some(current) => {
                let is_overdue =
                    |(id, claim): &(StepId, Claim)| *id != current && claim.waiting > MAX_DELAY;
                if let Some((id, _)) = claims.iter().find(|&claim| is_overdue(claim)) {
                    self.print_step(*id, out);
                } else if has_had_its_share(&claims, current) {
                    self.print_step(loudest, out);
                }
            }
        }
    }

    fn claims(&self, steps: &BTreeSet<StepId>, now: Time) -> Vec<(StepId, Claim)> {
        steps
            .iter()
            .filter_map(|&id| {
                let step = self.trace.step(id);
                let waiting = now.seconds_since(step.waiting_since?);
                Some((id, Claim { waiting, speed: step.events as f64 / waiting.max(1e-9) }))
            })
            .collect()
    }

    fn print_step(&mut self, id: StepId, out: &mut Vec<u8>) {
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(id).or_insert(next);
        if self.current != Some(id) {
            self.take_the_word(id, number, out);
        }
        let mut text = String::new();
        let has_open_part = self.print_parts(id, number, &mut text);
        let step = self.trace.step_mut(id);
        for warning in step.warnings.drain(..) {
            let warning = String::from_utf8_lossy(&warning);
            push(&mut text, format_args!("#{number} WARN: {warning}\n"));
        }
        out.extend_from_slice(text.as_bytes());
        print_log(step, number, out);

        self.current = Some(id);
        if let Some(stop) = step.completed().filter(|_| !has_open_part) {
            self.current = None;
            step.events = 0;
            if step.log.has_open_line() {
                out.push(b'\n');
            }
            out.extend_from_slice(ending(step, stop, number).as_bytes());
        }
        self.trace.fresh.remove(&id);
    }

    /// Takes the word from the step that has it, and tells whose lines follow.
    fn take_the_word(&mut self, id: StepId, number: usize, out: &mut Vec<u8>) {
        let mut text = String::new();
        if let Some(last) = self.current {
            let last_number = self.numbers.get(&last).copied().unwrap_or_default();
            let last = self.trace.step_mut(last);
            if last.log.has_open_line() {
                text.push('\n');
            }
            last.log.interrupt();
            last.events = 0;
            push(&mut text, format_args!("#{last_number} ...\n"));
        }
        if std::mem::replace(&mut self.has_begun, true) {
            text.push('\n');
        }
        let name = &self.trace.step(id).name;
        if self.truncates_names && name.chars().count() > 72 {
            let short: String = name.chars().take(72).collect();
            push(&mut text, format_args!("#{number} {short}...\n"));
        } else {
            push(&mut text, format_args!("#{number} {name}\n"));
        }
        out.extend_from_slice(text.as_bytes());
    }

    /// Whether a part that was told of is still open.
    fn print_parts(&mut self, id: StepId, number: usize, text: &mut String) -> bool {
        let mut has_open_part = false;
        let step = self.trace.step_mut(id);
        let fresh = std::mem::take(&mut step.fresh_parts);
        for (name, part) in step.parts.iter().filter(|(name, _)| fresh.contains(*name)) {
            let key = (id, name.clone());
            if let Some(&(current, at)) = self.told.get(&key)
                && part.completed.is_none()
                && !has_moved(part, current, at)
            {
                continue;
            }
            self.told.insert(key, (part.current, part.timestamp));
            has_open_part |= part.completed.is_none();
            push(text, format_args!("#{number} {name}{}\n", progress(part)));
        }
        has_open_part
    }
}

/// Writing to a string cannot fail.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

fn has_moved(part: &Part, current: i64, at: Time) -> bool {
    let moved = if part.total > 0 {
        part.current.saturating_sub(current) as f64 / part.total as f64
    } else {
        0.0
    };
    moved >= PART_STEP || part.timestamp.seconds_since(at) >= PART_SECONDS
}

/// How far a part has come: ` 1.2MB / 3.4MB 0.1s done`.
fn progress(part: &Part) -> String {
    let mut text = amount(part).map_or_else(String::new, |amount| format!(" {amount}"));
    let end = part.completed.unwrap_or(part.timestamp);
    if let Some(seconds) = part.started.map(|start| end.seconds_since(start))
        && seconds > 0.01
    {
        push(&mut text, format_args!(" {seconds:.1}s"));
    }
    if part.completed.is_some() {
        text.push_str(" done");
    }
    text
}

/// How much a part has done, of how much: `1.2MB / 3.4MB`.
pub(super) fn amount(part: &Part) -> Option<String> {
    let current = units::bytes(part.current);
    match (part.current, part.total) {
        (0, 0) => None,
        (_, 0) => Some(current),
        (_, total) => Some(format!("{current} / {}", units::bytes(total))),
    }
}

fn print_log(step: &mut Step, number: usize, out: &mut Vec<u8>) {
    for piece in step.log.take() {
        if !piece.continues {
            out.extend_from_slice(format!("#{number} ").as_bytes());
        }
        out.extend_from_slice(&piece.text);
        if piece.is_whole {
            out.push(b'\n');
        }
    }
}

/// How a step ended.
fn ending(step: &Step, stop: Time, number: usize) -> String {
    if step.is_canceled() {
        format!("#{number} CANCELED\n")
    } else if step.has_failed() {
        format!("#{number} ERROR: {}\n", step.error)
    } else if step.is_cached {
        format!("#{number} CACHED\n")
    } else {
        let seconds = interval::seconds(step.intervals(), stop);
        format!("#{number} DONE {seconds:.1}s\n")
    }
}

/// The step that has waited too long, or else the one with most to say.
fn loudest(claims: &[(StepId, Claim)], current: Option<StepId>) -> Option<StepId> {
    let is_overdue =
        |(id, claim): &(StepId, Claim)| Some(*id) != current && claim.waiting > MAX_DELAY;
    claims
        .iter()
        .rfind(|&claim| is_overdue(claim))
        .or_else(|| claims.iter().max_by(|(_, a), (_, b)| a.speed.total_cmp(&b.speed)))
        .map(|(id, _)| *id)
}

/// Whether the step that has the word has had it long enough, by its share of what is said.
fn has_had_its_share(claims: &[(StepId, Claim)], current: StepId) -> bool {
    let sum: f64 = claims.iter().map(|(_, claim)| claim.speed).sum();
    claims.iter().find(|(id, _)| *id == current).is_some_and(|(_, claim)| {
        let share = claim.speed / sum;
        ANTI_FLICKER / (1.0 - share) < claim.waiting
    })
}
