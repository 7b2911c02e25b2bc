//! Go's `filepath.Match`: one wildcard against one name.

use thiserror::Error;

/// A wildcard that cannot be read: an open or empty `[…]`, or a `\` with nothing after it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid wildcard {pattern:?}")]
pub struct BadGlob {
    /// The wildcard as it was given.
    pub pattern: String,
}

/// Says whether the whole of `name` matches `pattern`.
///
/// `*` is any run of characters but `/`, `?` is one character but `/`, `[a-z]` and `[^a-z]` are one
/// character of a set, `\c` is `c` itself.
///
/// # Errors
/// [`BadGlob`] for a malformed pattern, whether or not matching came as far as the bad part.
pub fn glob_match(pattern: &str, name: &str) -> Result<bool, BadGlob> {
    let parsed = parse(pattern).ok_or_else(|| BadGlob { pattern: pattern.to_owned() })?;
    Ok(matches(&parsed, name))
}

/// Fails where [`glob_match`] would.
pub(super) fn check(pattern: &str) -> Result<(), BadGlob> {
    glob_match(pattern, "").map(drop)
}

enum Part {
    Star,
    AnyChar,
    Char(char),
    Set(CharSet),
}

/// A `[…]`: characters and ranges, perhaps negated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CharSet {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl CharSet {
    pub(super) fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|&(low, high)| low <= c && c <= high) != self.negated
    }

    /// Reads the rest of a set, whose `[` has been taken.
    pub(super) fn parse(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Self> {
        let negated = chars.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
                return Some(Self { negated, ranges });
            }
            let low = set_char(chars)?;
            let high = match chars.next_if_eq(&'-') {
                Some(_) => set_char(chars)?,
                None => low,
            };
            ranges.push((low, high));
        }
    }
}

fn set_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

fn parse(pattern: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Star,
            '?' => Part::AnyChar,
            '[' => Part::Set(CharSet::parse(&mut chars)?),
            '\\' => Part::Char(chars.next()?),
            c => Part::Char(c),
        });
    }
    Some(parts)
}

/// Greedy with one point of return: what a star took is only ever given back to the last star.
fn matches(parts: &[Part], name: &str) -> bool {
    let (mut part, mut rest) = (0, name);
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let mut chars = rest.chars();
        let stepped = match (parts.get(part), chars.next()) {
            (None, None) => return true,
            (Some(Part::Star), _) => {
                part += 1;
                retry = Some((part, rest));
                continue;
            }
            (Some(Part::AnyChar), Some(c)) => c != '/',
            (Some(Part::Char(wanted)), Some(c)) => *wanted == c,
            (Some(Part::Set(set)), Some(c)) => set.contains(c),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if stepped {
            part += 1;
            rest = chars.as_str();
            continue;
        }
        let Some((after_star, taken)) = retry else {
            return false;
        };
        let mut chars = taken.chars();
        match chars.next() {
            None | Some('/') => return false,
            Some(_) => {}
        }
        part = after_star;
        rest = chars.as_str();
        retry = Some((after_star, rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_inside_one_component() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob_match(pattern, name).unwrap(), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_malformed_wildcard_is_an_error_even_where_the_name_differs_earlier() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "\\", "x[a-"] {
            assert!(glob_match(pattern, "q").is_err(), "{pattern}");
        }
    }
}
