//! Excerpts of the files that errors and warnings are about.

use kiln_proto::pb;
use std::fmt::Write as _;

/// Lines of a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Lines {
    /// Lines as they come from the wire; negative ones are none.
    pub(crate) fn new(start: i64, end: i64) -> Self {
        let line = |number: i64| usize::try_from(number).unwrap_or(0);
        Self { first: line(start), last: line(end).max(line(start)) }
    }
}

impl From<&pb::Range> for Lines {
    fn from(range: &pb::Range) -> Self {
        let line = |position: Option<&pb::Position>| position.map_or(0, |p| i64::from(p.line));
        Self::new(line(range.start.as_ref()), line(range.end.as_ref()))
    }
}

/// The lines, marked, and a few around them; empty if the file has no such lines.
pub(crate) fn excerpt(filename: &str, text: &str, ranges: &[Lines]) -> String {
    const AROUND: usize = 2;
    const RULE: &str = "--------------------";
    let lines: Vec<&str> = text.split('\n').collect();
    let Some(first) = ranges.iter().map(|range| range.first).min() else {
        return String::new();
    };
    let last = ranges.iter().map(|range| range.last).max().unwrap_or(first).min(lines.len());
    if first < 1 || first > lines.len() {
        return String::new();
    }
    // A single line gets twice the room, and what one side has no use for goes to the other.
    let room = if first == last { 2 * AROUND } else { AROUND };
    let (mut start, mut end, mut used) = (first, last, 0);
    while used < room {
        if start > 1 {
            start -= 1;
            used += 1;
        }
        if end < lines.len() {
            end += 1;
            used += 1;
        }
        used += 1;
    }
    let mut excerpt = format!("{filename}:{first}\n{RULE}\n");
    for number in start..=end {
        let is_meant = ranges.iter().any(|range| (range.first..=range.last).contains(&number));
        let mark = if is_meant { ">>>" } else { "   " };
        let line = lines.get(number - 1).copied().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(excerpt, " {number:3} | {mark} {line}");
    }
    excerpt.push_str(RULE);
    excerpt.push('\n');
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "FROM a\nRUN b\nRUN false\nRUN c\nRUN d\nRUN e\n";

    #[test]
    fn an_excerpt_marks_the_lines_that_are_meant() {
        let text = excerpt("Dockerfile", FILE, &[Lines::new(3, 3)]);
        assert_eq!(
            text,
            "\
Dockerfile:3
--------------------
   1 |     FROM a
   2 |     RUN b
   3 | >>> RUN false
   4 |     RUN c
   5 |     RUN d
--------------------
"
        );
    }

    #[test]
    fn lines_that_are_not_there_make_no_excerpt() {
        for ranges in
            [vec![], vec![Lines::new(0, 3)], vec![Lines::new(9, 9)], vec![Lines::new(-1, 2)]]
        {
            assert_eq!(excerpt("Dockerfile", FILE, &ranges), "");
        }
        let past_the_end = excerpt("Dockerfile", "FROM a", &[Lines::new(1, i64::MAX)]);
        assert!(past_the_end.contains(">>> FROM a"));
    }
}
