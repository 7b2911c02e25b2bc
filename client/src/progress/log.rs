//! What a step printed.

use super::time::Time;
use std::collections::VecDeque;

/// Lines that are shown again when their step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// How many.
    pub(crate) lines: usize,
    /// How many bytes at most.
    pub(crate) bytes: usize,
}

/// Lines are cut into pieces of this size, so that output without a line's end is shown too.
const LONGEST_LINE: usize = 1 << 20;

/// A step's lines, each with the time at which it began.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Lines that have not been shown, of which the last may have no end yet.
    fresh: VecDeque<Vec<u8>>,
    /// Whether the last line has no end yet.
    is_open: bool,
    /// How much of the first fresh line has been shown.
    shown: usize,
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
}

/// A piece of a log that is to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Whether it goes on where the last piece ended.
    pub(crate) continues: bool,
    /// Whether the line ends with it.
    pub(crate) is_whole: bool,
    pub(crate) text: Vec<u8>,
}

impl Log {
    /// Adds output that came `at` a moment, of a step that started at another.
    pub(crate) fn push(&mut self, data: &[u8], at: Time, started: Option<Time>, keep: Keep) {
        for line in data.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            let is_continued =
                self.is_open && self.fresh.back().is_some_and(|last| last.len() < LONGEST_LINE);
            if is_continued && let Some(last) = self.fresh.back_mut() {
                last.extend_from_slice(text);
            } else {
                if self.is_open {
                    self.close(keep);
                }
                let mut prefixed = stamp(at, started).into_bytes();
                prefixed.extend_from_slice(text);
                self.fresh.push_back(prefixed);
            }
            self.is_open = true;
            if ends {
                self.close(keep);
            }
        }
    }

    /// Ends the last line.
    fn close(&mut self, keep: Keep) {
        self.is_open = false;
        let Some(last) = self.fresh.back() else { return };
        self.kept_bytes += last.len();
        self.kept.push_back(last.clone());
        while self.kept.len() > keep.lines || (self.kept_bytes > keep.bytes && self.kept.len() > 1)
        {
            self.kept_bytes -= self.kept.pop_front().map_or(0, |line| line.len());
        }
    }

    pub(crate) fn has_open_line(&self) -> bool {
        self.is_open && !self.fresh.is_empty()
    }

    /// The next show begins its line anew: something else was shown in between.
    pub(crate) fn interrupt(&mut self) {
        self.shown = 0;
    }

    /// Takes what has not been shown.
    pub(crate) fn take(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(line) = self.fresh.pop_front() {
            let is_whole = !(self.fresh.is_empty() && self.is_open);
            let text = line.get(self.shown..).unwrap_or_default().to_vec();
            let continues = self.shown > 0;
            if is_whole {
                self.shown = 0;
                pieces.push(Piece { continues, is_whole, text });
            } else {
                if self.shown < line.len() {
                    pieces.push(Piece { continues, is_whole, text });
                }
                self.shown = line.len();
                self.fresh.push_front(line);
                break;
            }
        }
        pieces
    }

    /// Forgets lines that were not shown, in views that do not show them line by line.
    pub(crate) fn skip(&mut self) {
        while self.fresh.len() > usize::from(self.is_open) {
            self.fresh.pop_front();
        }
    }

    /// The last lines, for a step that failed.
    pub(crate) fn last_lines(&self, keep: Keep) -> impl Iterator<Item = &[u8]> {
        let open = self.fresh.back().filter(|_| self.is_open);
        let excess = (self.kept.len() + usize::from(open.is_some())).saturating_sub(keep.lines);
        self.kept.iter().chain(open).skip(excess).map(Vec::as_slice)
    }
}

/// Seconds since the step's start, more exact for short times.
fn stamp(at: Time, started: Option<Time>) -> String {
    let seconds = started.map_or(0.0, |started| at.seconds_since(started));
    let decimals = if seconds < 10.0 {
        3
    } else if seconds < 100.0 {
        2
    } else {
        1
    };
    format!("{seconds:.decimals$} ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Timestamp;

    const KEEP: Keep = Keep { lines: 2, bytes: 100 };

    fn at(milliseconds: i64) -> Time {
        let nanos = (milliseconds % 1000 * 1_000_000) as i32;
        Time::from(&Timestamp { seconds: milliseconds / 1000, nanos })
    }

    fn push(log: &mut Log, text: &str) {
        log.push(text.as_bytes(), at(40), Some(at(0)), KEEP);
    }

    fn take(log: &mut Log) -> Vec<(bool, String, bool)> {
        log.take()
            .into_iter()
            .map(|p| (p.continues, String::from_utf8(p.text).unwrap(), p.is_whole))
            .collect()
    }

    #[test]
    fn a_line_in_pieces_has_one_stamp() {
        let mut log = Log::default();
        push(&mut log, "a");
        assert_eq!(take(&mut log), [(false, "0.040 a".to_owned(), false)]);
        assert_eq!(take(&mut log), []);
        push(&mut log, "b\nc\n");
        assert_eq!(
            take(&mut log),
            [(true, "b".to_owned(), true), (false, "0.040 c".to_owned(), true)]
        );
    }

    #[test]
    fn a_line_that_was_interrupted_is_shown_from_its_start() {
        let mut log = Log::default();
        push(&mut log, "a");
        take(&mut log);
        log.interrupt();
        push(&mut log, "b");
        assert_eq!(take(&mut log), [(false, "0.040 ab".to_owned(), false)]);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut log = Log::default();
        push(&mut log, "1\n2\n3\nopen");
        take(&mut log);
        let last: Vec<_> = log.last_lines(KEEP).collect();
        assert_eq!(last, [&b"0.040 3"[..], b"0.040 open"]);
        push(&mut log, &"x".repeat(200));
        push(&mut log, "\n");
        assert_eq!(log.last_lines(KEEP).count(), 1);
    }

    #[test]
    fn stamps_are_shorter_for_longer_times() {
        for (milliseconds, expected) in
            [(1, "0.001 "), (12_345, "12.35 "), (123_456, "123.5 "), (-5, "-0.005 ")]
        {
            assert_eq!(stamp(at(milliseconds), Some(at(0))), expected);
        }
    }
}
