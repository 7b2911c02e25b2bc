//! An ordered list of patterns.

use super::clean::clean_path;
use super::glob::BadGlob;
use super::line::Pattern;
use thiserror::Error;

/// A pattern that cannot be part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadPattern {
    /// A `!` with nothing to make an exception of.
    #[error("invalid pattern \"!\": nothing follows the exclamation mark")]
    EmptyException,
    /// A wildcard that cannot be read.
    #[error("invalid pattern {:?}: unfinished [ ] or \\", .0.pattern)]
    Wildcard(#[from] BadGlob),
}

/// Patterns in order: a path matches if the last of them that speaks of it, or of a directory
/// above it, is not an exception.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    has_exceptions: bool,
}

/// Which patterns matched a directory, for matching what is in it without starting over.
#[derive(Debug, Clone)]
pub struct Matched(Box<[bool]>);

impl Matcher {
    /// Compiles patterns; white space around them and empty ones do not count.
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> Result<Self, BadPattern> {
        let mut matcher = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let clean = clean_path(pattern);
            let (is_exception, text) = match clean.strip_prefix('!') {
                Some("") => return Err(BadPattern::EmptyException),
                Some(text) => (true, text),
                None => (false, clean.as_str()),
            };
            matcher.has_exceptions |= is_exception;
            matcher.patterns.push(Pattern::compile(text, is_exception)?);
        }
        Ok(matcher)
    }

    /// The patterns in order.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether any pattern starts with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// Whether a path matches, by itself or because it is in a directory that does.
    ///
    /// `path` is clean, relative and separated by `/`.
    pub fn matches(&self, path: &str) -> bool {
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.is_exception() == matched && at_or_above(pattern, path) {
                matched = !matched;
            }
        }
        matched
    }

    /// [`Self::matches`] for an entry of a directory whose result is known; `None` stands for the
    /// top of the tree.
    ///
    /// This is what a walk does, and it is not quite the same: an exception that names a directory
    /// which nothing had matched is not remembered for what is in it. Builders have always walked
    /// their contexts so, and ignore files are written for that.
    pub fn matches_in(&self, path: &str, directory: Option<&Matched>) -> bool {
        let mut matched = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            if decides(pattern, index, path, directory, matched) {
                matched = !pattern.is_exception();
            }
        }
        matched
    }

    /// [`Self::matches_in`] for a directory, with what is needed to go on below it.
    pub fn matches_directory_in(&self, path: &str, directory: Option<&Matched>) -> (bool, Matched) {
        let mut matched = false;
        let mut results = vec![false; self.patterns.len()].into_boxed_slice();
        for (index, pattern) in self.patterns.iter().enumerate() {
            if decides(pattern, index, path, directory, matched) {
                matched = !pattern.is_exception();
                results[index] = true;
            }
        }
        (matched, Matched(results))
    }
}

fn decides(
    pattern: &Pattern,
    index: usize,
    path: &str,
    directory: Option<&Matched>,
    matched: bool,
) -> bool {
    directory.is_some_and(|above| above.0.get(index) == Some(&true))
        || (pattern.is_exception() == matched && pattern.matches(path))
}

fn at_or_above(pattern: &Pattern, path: &str) -> bool {
    pattern.matches(path) || path.match_indices('/').any(|(end, _)| pattern.matches(&path[..end]))
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
