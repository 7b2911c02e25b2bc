//! Patterns of `#`, `%` and `/`: `*` for any text, `?` for any character, `\` before either.

use std::borrow::Cow;

use regex::{NoExpand, Regex, RegexBuilder};

use super::ExpandErrorKind;

/// Longest pattern accepted; matching costs the pattern's length times the value's.
const LONGEST: usize = 4096;

/// `value` without the shortest or longest prefix that matches.
pub(super) fn trim_prefix(
    value: &str,
    pattern: &str,
    longest: bool,
) -> Result<String, ExpandErrorKind> {
    let matcher = compile(pattern, longest, true)?;
    let cut = matcher.find(value).map_or(0, |found| found.end());
    Ok(value[cut..].to_owned())
}

/// `value` without the shortest or longest suffix that matches.
///
/// Matching runs from the left, so both are turned around for it.
pub(super) fn trim_suffix(
    value: &str,
    pattern: &str,
    longest: bool,
) -> Result<String, ExpandErrorKind> {
    let value: String = value.chars().rev().collect();
    let trimmed = trim_prefix(&value, &reverse(pattern), longest)?;
    Ok(trimmed.chars().rev().collect())
}

/// `value` with the first match replaced, or all of them. `check` is told how long the result
/// will be before it is built.
pub(super) fn replace(
    value: &str,
    pattern: &str,
    replacement: &str,
    all: bool,
    check: impl FnOnce(usize) -> Result<(), ExpandErrorKind>,
) -> Result<String, ExpandErrorKind> {
    let matcher = compile(pattern, true, false)?;
    let most = if all { usize::MAX } else { 1 };
    let (mut count, mut removed) = (0_usize, 0_usize);
    for found in matcher.find_iter(value).take(most) {
        count += 1;
        removed += found.len();
    }
    check((value.len() - removed).saturating_add(count.saturating_mul(replacement.len())))?;
    let limit = usize::from(!all);
    Ok(match matcher.replacen(value, limit, NoExpand(replacement)) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    })
}

/// Turns a pattern around, an escape staying before what it escapes.
fn reverse(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        pieces.push((c, escaped));
    }
    let mut reversed = String::with_capacity(pattern.len());
    for (c, escaped) in pieces.into_iter().rev() {
        reversed.push(c);
        reversed.extend(escaped);
    }
    reversed
}

fn compile(pattern: &str, longest: bool, anchored: bool) -> Result<Regex, ExpandErrorKind> {
    let invalid = |reason: String| {
        let pattern = pattern.chars().take(200).collect();
        ExpandErrorKind::Pattern { pattern, reason }
    };
    if pattern.len() > LONGEST {
        return Err(invalid(format!("it is longer than {LONGEST} bytes")));
    }
    let mut expression = String::with_capacity(pattern.len() + 4);
    if anchored {
        expression.push('^');
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if longest => expression.push_str(".*"),
            '*' => expression.push_str(".*?"),
            '?' => expression.push('.'),
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\' | '}' | '/')) => push_literal(&mut expression, c),
                Some(c) => return Err(invalid(format!("invalid escape '\\{c}'"))),
                None => return Err(invalid("nothing after the last escape".to_owned())),
            },
            c => push_literal(&mut expression, c),
        }
    }
    RegexBuilder::new(&expression)
        .build()
        .map_err(|_| invalid("it is too large to be matched".to_owned()))
}

fn push_literal(expression: &mut String, c: char) {
    expression.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_cut_at_its_shortest_or_longest_match() {
        let cases = [
            ("xxyy", "*x*y", false, "y"),
            ("xxyy", "*x", true, "yy"),
            ("xxyy", "*", false, "xxyy"),
            ("xxyy", "*", true, ""),
            ("xxyy", "", true, "xxyy"),
            ("???y", "?\\?", false, "?y"),
            ("()[]{}^$.*?|\\x", "()[]{\\}^$.\\*\\?|\\\\", false, "x"),
            ("abc", "b", false, "abc"),
        ];
        for (value, pattern, longest, expected) in cases {
            assert_eq!(trim_prefix(value, pattern, longest).unwrap(), expected, "{pattern}");
        }
    }

    #[test]
    fn a_suffix_is_cut_at_its_shortest_or_longest_match() {
        let cases = [
            ("1.2.3", ".*", false, "1.2"),
            ("1.2.3", ".*", true, "1"),
            ("xx**", "\\**", true, "xx"),
            ("a***yy*", "\\**\\*", true, "a"),
            ("日本語", "本?", false, "日"),
            ("xxyy", "x", false, "xxyy"),
        ];
        for (value, pattern, longest, expected) in cases {
            assert_eq!(trim_suffix(value, pattern, longest).unwrap(), expected, "{pattern}");
        }
    }

    #[test]
    fn matches_are_replaced_by_literal_text() {
        let cases = [
            ("/a/foo/b/c.txt", "/?/", "/", false, "/foo/b/c.txt"),
            ("/a/foo/b/c.txt", "/?/", "/", true, "/foo/c.txt"),
            ("aXbX", "X", "$0", true, "a$0b$0"),
            ("xxyy", "", "w", false, "wxxyy"),
            ("a.b", "\\/", "-", true, "a.b"),
        ];
        for (value, pattern, replacement, all, expected) in cases {
            let replaced = replace(value, pattern, replacement, all, |_| Ok(())).unwrap();
            assert_eq!(replaced, expected, "{pattern}");
        }
    }

    #[test]
    fn only_what_is_special_can_be_escaped() {
        for pattern in ["\\", "\\x", "\\\\\\"] {
            assert!(trim_prefix("x", pattern, true).is_err(), "{pattern}");
        }
        assert!(trim_prefix("x", &"*".repeat(1 << 20), true).is_err());
    }

    #[test]
    fn the_length_of_a_replacement_is_checked_before_it_is_made() {
        let value = "a".repeat(1 << 20);
        let result = replace(&value, "a", &value, true, |length| {
            assert_eq!(length, 1 << 40);
            Err(ExpandErrorKind::TooLong { limit: 1 })
        });
        assert!(result.is_err());
    }
}
