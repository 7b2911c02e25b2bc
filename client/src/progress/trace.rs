//! What is known of a build: its steps, from what the daemon told.

use super::log::Keep;
use super::step::Step;
use super::term::Terminal;
use super::time::{ClockOffset, Time};
use kiln_proto::control::{StatusResponse, Vertex};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

/// A step's position among the steps.
pub(crate) type StepId = usize;

/// All steps of a build.
#[derive(Debug)]
pub(crate) struct Trace {
    steps: Vec<Step>,
    by_digest: HashMap<String, StepId>,
    groups: HashMap<String, Group>,
    /// Steps in the order in which they started.
    pub(crate) started: Vec<StepId>,
    /// Steps of which something was told since they were shown.
    pub(crate) fresh: BTreeSet<StepId>,
    /// When the build started, by the daemon's clock.
    start: Option<Time>,
    /// Makes the daemon's moments comparable to this machine's.
    offset: Option<ClockOffset>,
    keep: Keep,
    /// The screens of steps, for views that show them.
    terminals: Option<HashMap<StepId, Terminal>>,
}

#[derive(Debug)]
struct Group {
    step: StepId,
    members: HashMap<String, Vertex>,
}

impl Trace {
    /// `has_terminals` keeps a screen of each step's output.
    pub(crate) fn new(keep: Keep, has_terminals: bool) -> Self {
        Self {
            steps: Vec::new(),
            by_digest: HashMap::new(),
            groups: HashMap::new(),
            started: Vec::new(),
            fresh: BTreeSet::new(),
            start: None,
            offset: None,
            keep,
            terminals: has_terminals.then(HashMap::new),
        }
    }

    pub(crate) fn step(&self, id: StepId) -> &Step {
        &self.steps[id]
    }

    pub(crate) fn step_mut(&mut self, id: StepId) -> &mut Step {
        &mut self.steps[id]
    }

    /// All steps that are to be shown.
    pub(crate) fn visible(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.steps.iter().enumerate().filter(|(_, step)| !step.is_hidden)
    }

    pub(crate) fn terminal(&self, id: StepId) -> Option<&Terminal> {
        self.terminals.as_ref()?.get(&id)
    }

    /// When the build started, by this machine's clock.
    pub(crate) fn start(&self) -> Option<Time> {
        self.start.map(|start| start.plus(self.offset()))
    }

    pub(crate) fn offset(&self) -> ClockOffset {
        self.offset.unwrap_or_default()
    }

    /// Takes in what the daemon told.
    pub(crate) fn update(&mut self, status: &StatusResponse, now: Time) {
        let mut groups = BTreeSet::new();
        for vertex in &status.vertexes {
            if self.start.is_none() {
                self.start = vertex.started.as_ref().map(Time::from);
            }
            match &vertex.progress_group {
                Some(group) => {
                    self.update_member(vertex, &group.id, &group.name);
                    groups.insert(group.id.clone());
                }
                None => self.update_vertex(vertex, now),
            }
        }
        for group in groups {
            self.update_group(&group, now);
        }
        for part in &status.statuses {
            if let Some(&id) = self.by_digest.get(&part.vertex) {
                self.steps[id].update_part(part, now);
                self.fresh.insert(id);
            }
        }
        for warning in &status.warnings {
            if let Some(&id) = self.by_digest.get(&warning.vertex) {
                self.steps[id].warnings.push(warning.short.clone());
                self.steps[id].touch(now);
            }
        }
        for log in &status.logs {
            let Some(&id) = self.by_digest.get(&log.vertex) else { continue };
            if let Some(terminals) = &mut self.terminals {
                terminals.entry(id).or_default().write(&log.msg);
            }
            let step = &mut self.steps[id];
            let at = log.timestamp.as_ref().map_or(now, Time::from);
            let started = step.latest().map(|interval| interval.start);
            step.log.push(&log.msg, at, started, self.keep);
            step.touch(now);
            self.fresh.insert(id);
        }
    }

    fn update_vertex(&mut self, vertex: &Vertex, now: Time) {
        let id = match self.by_digest.get(&vertex.digest) {
            Some(&id) => id,
            None => self.add(&vertex.digest, Step::new(&vertex.name)),
        };
        let step = &mut self.steps[id];
        let was_started = step.is_started();
        let Some(start) = vertex.started.as_ref().map(Time::from) else {
            // Announced again, perhaps by another build that shares it: nothing new.
            if !was_started {
                step.name.clone_from(&vertex.name);
            }
            return;
        };
        let mut is_news = step.ran(start, vertex.completed.as_ref().map(Time::from));
        is_news |= step.name != vertex.name
            || step.is_cached != vertex.cached
            || step.error != vertex.error;
        step.name.clone_from(&vertex.name);
        step.is_cached = vertex.cached;
        step.error.clone_from(&vertex.error);
        if is_news {
            step.touch(now);
            self.fresh.insert(id);
        }
        if !was_started {
            self.note_clock(start, now);
            self.started.push(id);
        }
    }

    fn update_member(&mut self, vertex: &Vertex, group: &str, name: &str) {
        let step = match self.groups.get(group) {
            Some(group) => group.step,
            None => self.add(group, Step::hidden(name)),
        };
        self.by_digest.insert(vertex.digest.clone(), step);
        let group = self
            .groups
            .entry(group.to_owned())
            .or_insert_with(|| Group { step, members: HashMap::new() });
        group.members.insert(vertex.digest.clone(), vertex.clone());
    }

    /// A group is cached if all of its members are, and has failed if one of them has. It is
    /// hidden until a member runs that counts.
    fn update_group(&mut self, group: &str, now: Time) {
        let Some(group) = self.groups.get(group) else { return };
        let id = group.step;
        let step = &mut self.steps[id];
        let (was_hidden, was_started) = (step.is_hidden, step.is_started());
        let mut is_news = false;
        for member in group.members.values() {
            if let Some(start) = member.started.as_ref().map(Time::from) {
                is_news |= step.ran(start, member.completed.as_ref().map(Time::from));
                step.is_hidden &= member.progress_group.as_ref().is_some_and(|group| group.weak);
            }
        }
        let is_cached = group.members.values().all(|member| member.cached);
        let mut errors: Vec<_> =
            group.members.values().map(|m| &m.error).filter(|error| !error.is_empty()).collect();
        errors.sort();
        let error = errors.first().copied().cloned().unwrap_or_default();
        step.is_hidden &= error.is_empty();
        is_news |= step.is_cached != is_cached || step.error != error;
        step.is_cached = is_cached;
        step.error = error;
        let first = step.intervals().first().map(|interval| interval.start);
        let is_revealed = was_hidden && !step.is_hidden;
        if !step.is_hidden && (is_news || is_revealed) {
            step.touch(now);
            self.fresh.insert(id);
        }
        if let Some(first) = first.filter(|_| !was_started) {
            self.note_clock(first, now);
        }
        if is_revealed {
            self.started.push(id);
        }
    }

    fn add(&mut self, digest: &str, step: Step) -> StepId {
        let id = self.steps.len();
        self.steps.push(step);
        self.by_digest.insert(digest.to_owned(), id);
        id
    }

    /// The first start that is told is taken to be now.
    fn note_clock(&mut self, start: Time, now: Time) {
        self.offset.get_or_insert_with(|| now.ahead_of(start));
    }

    /// Shows the last lines of steps that failed.
    pub(crate) fn write_failures(&self, out: &mut impl Write) -> io::Result<()> {
        for &id in &self.started {
            let step = &self.steps[id];
            if !step.has_failed() {
                continue;
            }
            writeln!(out, "------\n > {}:", step.name)?;
            for line in step.log.last_lines(self.keep) {
                out.write_all(line)?;
                writeln!(out)?;
            }
            writeln!(out, "------")?;
        }
        Ok(())
    }
}
