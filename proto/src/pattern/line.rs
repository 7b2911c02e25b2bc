//! One pattern of a list, compiled.

use super::glob::{self, BadGlob};
use super::program::Program;

/// One pattern, without its `!`.
///
/// `*` and `?` stay inside a component, `**` crosses them, `[…]` is a set, `\c` is `c` itself, also
/// where `c` is a letter (other builders read `\a` or `\d` as regular expressions do).
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    is_exception: bool,
    form: Form,
}

/// How a pattern is matched; all but the last are one comparison.
#[derive(Debug, Clone)]
enum Form {
    /// No wildcard at all.
    Exact,
    /// `dir/**`: everything that starts with this.
    Prefix(String),
    /// `**/name`: everything that ends with this.
    Suffix(String),
    Program(Program),
}

impl Pattern {
    /// Compiles a cleaned pattern.
    pub(super) fn compile(text: &str, is_exception: bool) -> Result<Self, BadGlob> {
        glob::check(text)?;
        Ok(Self { text: text.to_owned(), is_exception, form: Form::of(text)? })
    }

    /// The pattern as it was cleaned, without `!`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern takes back what earlier ones matched (`!`).
    pub fn is_exception(&self) -> bool {
        self.is_exception
    }

    /// Whether the pattern matches this very path; its parents are not looked at.
    pub fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Prefix(prefix) => path.starts_with(prefix),
            Form::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Form::Program(program) => program.matches(path),
        }
    }

    /// The pattern without a last `/**`, `/*`, or both.
    fn without_trailing_wildcard(&self) -> &str {
        let text = self.text.strip_suffix("/**").unwrap_or(&self.text);
        text.strip_suffix("/*").unwrap_or(text)
    }

    /// Whether all that it matches lies at or below one known path.
    pub(crate) fn is_below_one_path(&self) -> bool {
        !self.without_trailing_wildcard().contains(['*', '[', ']', '?', '^', '\\'])
    }

    /// Whether `directory` is, or leads to, the path that [`Self::is_below_one_path`] speaks of.
    pub(crate) fn may_match_below(&self, directory: &str) -> bool {
        self.without_trailing_wildcard()
            .strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Form {
    fn of(text: &str) -> Result<Self, BadGlob> {
        let is_plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if is_plain(text) {
            return Ok(Self::Exact);
        }
        if let Some(suffix) = text.strip_prefix("**")
            && is_plain(suffix)
        {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        if let Some(prefix) = text.strip_suffix("**")
            && is_plain(prefix)
        {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        Ok(Self::Program(Program::compile(text)?))
    }
}
