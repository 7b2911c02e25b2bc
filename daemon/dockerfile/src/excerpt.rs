use std::fmt::Write as _;

use crate::Location;

const RULE: &str = "--------------------\n";

/// Those of `lines`, a file's, around `locations`, marked, in the form that BuildKit's clients
/// print.
///
/// Two or so lines of context are shown on each side. Empty when `locations` is empty or names
/// lines that the file does not have.
///
/// ```
/// use kiln_dockerfile::{Location, excerpt};
///
/// let lines = ["FROM alpine", "RUN false", ""];
/// assert_eq!(
///     excerpt("Dockerfile", &lines, &[Location::line(2)]),
///     "Dockerfile:2\n\
///      --------------------\n\
///      \x20  1 |     FROM alpine\n\
///      \x20  2 | >>> RUN false\n\
///      \x20  3 |     \n\
///      --------------------\n"
/// );
/// ```
pub fn excerpt(filename: &str, lines: &[&str], locations: &[Location]) -> String {
    let last = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let (Some(first), Some(end)) =
        (locations.iter().map(|l| l.start).min(), locations.iter().map(|l| l.end).max())
    else {
        return String::new();
    };
    if first == 0 || first > last {
        return String::new();
    }
    let (start, end) = with_context(first, end.min(last), last);

    let mut out = format!("{filename}:{first}\n{RULE}");
    for (number, line) in (start..=end).zip(&lines[start as usize - 1..]) {
        let marked = locations.iter().any(|l| l.lines().contains(&number));
        let marker = if marked { ">>>" } else { "   " };
        let _ = writeln!(out, " {number:3} | {marker} {line}");
    }
    out.push_str(RULE);
    out
}

/// Widens a range of lines by its context, without leaving the file.
///
/// Each turn costs one unit plus one for each side that grew, which is how BuildKit shares a
/// small budget between both sides.
fn with_context(mut start: u32, mut end: u32, last: u32) -> (u32, u32) {
    let budget = if start == end { 4 } else { 2 };
    let mut spent = 0;
    while spent < budget {
        if start > 1 {
            start -= 1;
            spent += 1;
        }
        if end < last {
            end += 1;
            spent += 1;
        }
        spent += 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: [&str; 9] = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];

    fn numbers(locations: &[Location]) -> Vec<u32> {
        excerpt("Dockerfile", &FILE, locations)
            .lines()
            .filter_map(|line| line.split(" | ").next()?.trim().parse().ok())
            .collect()
    }

    #[test]
    fn one_line_has_two_lines_around_it() {
        assert_eq!(numbers(&[Location::line(5)]), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn several_lines_have_one_line_around_them() {
        assert_eq!(numbers(&[Location::new(4, 6)]), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn context_ends_with_the_file() {
        assert_eq!(numbers(&[Location::line(1)]), [1, 2, 3]);
        assert_eq!(numbers(&[Location::line(9)]), [7, 8, 9]);
        assert_eq!(numbers(&[Location::new(8, 400)]), [7, 8, 9]);
    }

    #[test]
    fn lines_that_are_not_there_give_nothing() {
        assert_eq!(excerpt("Dockerfile", &FILE, &[]), "");
        assert_eq!(excerpt("Dockerfile", &FILE, &[Location::line(10)]), "");
        assert_eq!(excerpt("Dockerfile", &FILE, &[Location::line(0)]), "");
    }

    #[test]
    fn every_named_line_is_marked() {
        insta::assert_snapshot!(
            excerpt("Dockerfile", &FILE, &[Location::line(2), Location::new(4, 5)]),
            @r"
        Dockerfile:2
        --------------------
           1 |     1
           2 | >>> 2
           3 |     3
           4 | >>> 4
           5 | >>> 5
           6 |     6
        --------------------
        "
        );
    }
}
