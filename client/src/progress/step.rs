//! One step of a build, as far as the daemon has told.

use super::interval::{self, Interval};
use super::log::Log;
use super::time::Time;
use bytes::Bytes;
use indexmap::IndexMap;
use kiln_proto::control::VertexStatus;
use std::collections::{BTreeMap, BTreeSet};

/// How an error ends that is only the consequence of another one.
const CANCELED: &str = "context canceled";

/// A vertex, or a group of vertices that is shown as one.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) is_cached: bool,
    pub(crate) error: String,
    /// A group of which no member has started that counts.
    pub(crate) is_hidden: bool,
    /// By start, so that what is told again of a run replaces what was told before.
    runs: BTreeMap<Time, Option<Time>>,
    merged: Vec<Interval>,
    /// Transfers and the like, in the order in which they started.
    pub(crate) parts: IndexMap<String, Part>,
    /// Parts of which something was told since they were shown.
    pub(crate) fresh_parts: BTreeSet<String>,
    /// Short texts of warnings.
    pub(crate) warnings: Vec<Bytes>,
    pub(crate) log: Log,
    /// Events since the step was shown last, for fairness between steps.
    pub(crate) events: u64,
    /// When the first of them came.
    pub(crate) waiting_since: Option<Time>,
}

/// A part of a step that counts something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) current: i64,
    pub(crate) total: i64,
    pub(crate) timestamp: Time,
    pub(crate) started: Option<Time>,
    pub(crate) completed: Option<Time>,
}

impl Part {
    fn new(status: &VertexStatus, now: Time) -> Self {
        Self {
            current: status.current,
            total: status.total,
            timestamp: status.timestamp.as_ref().map_or(now, Time::from),
            started: status.started.as_ref().map(Time::from),
            completed: status.completed.as_ref().map(Time::from),
        }
    }
}

impl Step {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(crate) fn hidden(name: &str) -> Self {
        Self { is_hidden: true, ..Self::new(name) }
    }

    /// Notes a run, and says whether that is news.
    pub(crate) fn ran(&mut self, start: Time, stop: Option<Time>) -> bool {
        let is_news = self.runs.insert(start, stop) != Some(stop);
        if is_news {
            let runs = self.runs.iter().map(|(&start, &stop)| Interval { start, stop });
            self.merged = interval::merge(runs);
        }
        is_news
    }

    /// When the step ran, in order and without overlaps.
    pub(crate) fn intervals(&self) -> &[Interval] {
        &self.merged
    }

    pub(crate) fn latest(&self) -> Option<Interval> {
        self.merged.last().copied()
    }

    pub(crate) fn is_started(&self) -> bool {
        !self.merged.is_empty()
    }

    pub(crate) fn completed(&self) -> Option<Time> {
        self.latest()?.stop
    }

    pub(crate) fn is_running(&self) -> bool {
        self.latest().is_some_and(|interval| interval.stop.is_none())
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.error.ends_with(CANCELED)
    }

    /// Whether the step failed by itself.
    pub(crate) fn has_failed(&self) -> bool {
        !self.error.is_empty() && !self.is_canceled()
    }

    /// Counts an event.
    pub(crate) fn touch(&mut self, now: Time) {
        if self.events == 0 {
            self.waiting_since = Some(now);
        }
        self.events += 1;
    }

    /// Notes what a part has come to. Parts that have not started are not shown.
    pub(crate) fn update_part(&mut self, status: &VertexStatus, now: Time) {
        let part = Part::new(status, now);
        if part.started.is_some() || self.parts.contains_key(&status.id) {
            self.parts.insert(status.id.clone(), part);
            self.fresh_parts.insert(status.id.clone());
        }
        self.touch(now);
    }
}
