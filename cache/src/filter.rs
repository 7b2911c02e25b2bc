//! Filters in containerd's syntax, for whatever has fields.
//!
//! A filter is a list of selectors with commas between; all must match. A selector is a field, or
//! a field, an operator and a value:
//!
//! ```text
//! inuse                          the field is present: true, or not empty
//! type==exec.cachemount          equal
//! type!=regular                  not equal (an absent field differs from everything)
//! description~=/apt/             matches the regular expression
//! description=="a, b"            values may be quoted, as in Go
//! ```

use std::{fmt, str::FromStr};

use regex::{Regex, RegexBuilder};

/// The fields that a filter may name.
pub trait Field: Copy {
    /// All their names, as a message lists them.
    const ALL: &'static str;

    /// The field of that name.
    fn named(name: &str) -> Option<Self>;

    /// The name by which a filter is written.
    fn name(self) -> &'static str;
}

/// Selects what has the fields `F`.
#[derive(Clone, Debug)]
pub struct Selection<F>(Vec<Selector<F>>);

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?}: {reason} at {rest:?}")]
pub struct InvalidFilter {
    filter: String,
    pub(crate) rest: String,
    pub(crate) reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("expected a field")]
    NoField,
    #[error("expected one of the fields {0}")]
    UnknownField(&'static str),
    #[error("expected ==, != or ~=")]
    NoOperator,
    #[error("expected a value")]
    NoValue,
    #[error("expected a comma")]
    NoComma,
    #[error("the quote is not closed, or what it holds is not valid")]
    BadQuote,
    #[error("not a regular expression")]
    BadRegex,
}

#[derive(Clone, Debug)]
struct Selector<F> {
    field: F,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl<F: Field> Selection<F> {
    /// Selects what has `value` in `field`.
    pub fn equal(field: F, value: impl Into<String>) -> Self {
        Self(vec![Selector { field, test: Test::Equal(value.into()) }])
    }

    /// Whether that is selected whose fields `value_of` tells; `None` is a field that is absent.
    pub fn matches(&self, value_of: impl Fn(F) -> Option<String>) -> bool {
        self.0.iter().all(|selector| selector.test.holds(value_of(selector.field)))
    }
}

impl Test {
    fn holds(&self, value: Option<String>) -> bool {
        match self {
            Self::Present => value.is_some(),
            Self::Equal(wanted) => value.as_ref() == Some(wanted),
            Self::NotEqual(unwanted) => value.unwrap_or_default() != *unwanted,
            Self::Matches(pattern) => pattern.is_match(&value.unwrap_or_default()),
        }
    }
}

impl<F: Field> fmt::Display for Selection<F> {
    /// In the syntax from which it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Selector { field, test }) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let name = field.name();
            match test {
                Test::Present => write!(f, "{comma}{name}")?,
                Test::Equal(value) => write!(f, "{comma}{name}=={value:?}")?,
                Test::NotEqual(value) => write!(f, "{comma}{name}!={value:?}")?,
                Test::Matches(pattern) => write!(f, "{comma}{name}~={:?}", pattern.as_str())?,
            }
        }
        Ok(())
    }
}

impl<F: Field> FromStr for Selection<F> {
    type Err = InvalidFilter;

    /// Reads a filter. An empty text selects everything, as buildx sends it when it has no filter.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text.trim();
        let mut selectors = Vec::new();
        while !rest.is_empty() {
            let selector = read_selector(&mut rest).and_then(|selector| {
                match rest.strip_prefix(',').map(str::trim_start) {
                    Some("") => Err(Reason::NoField),
                    Some(next) => {
                        rest = next;
                        Ok(selector)
                    }
                    None if rest.is_empty() => Ok(selector),
                    None => Err(Reason::NoComma),
                }
            });
            selectors.push(selector.map_err(|reason| InvalidFilter {
                filter: text.to_owned(),
                rest: rest.to_owned(),
                reason,
            })?);
        }
        Ok(Self(selectors))
    }
}

fn read_selector<F: Field>(rest: &mut &str) -> Result<Selector<F>, Reason> {
    let name = take_while(rest, |c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() {
        return Err(Reason::NoField);
    }
    let field = F::named(name).ok_or(Reason::UnknownField(F::ALL))?;
    *rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with(',') {
        return Ok(Selector { field, test: Test::Present });
    }
    let operator = take_while(rest, |c| "=!~".contains(c));
    if !matches!(operator, "==" | "!=" | "~=") {
        return Err(Reason::NoOperator);
    }
    *rest = rest.trim_start();
    let value = read_value(rest, operator == "~=")?;
    *rest = rest.trim_start();
    let test = match operator {
        "==" => Test::Equal(value),
        "!=" => Test::NotEqual(value),
        _ => Test::Matches(read_pattern(&value)?),
    };
    Ok(Selector { field, test })
}

fn read_pattern(pattern: &str) -> Result<Regex, Reason> {
    // Bounded, since a client chooses it.
    RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|_| Reason::BadRegex)
}

fn read_value(rest: &mut &str, may_be_pattern: bool) -> Result<String, Reason> {
    match rest.chars().next() {
        None | Some(',') => Err(Reason::NoValue),
        Some(quote @ ('"' | '\'')) => read_quoted(rest, quote),
        // Patterns may also stand between these, where a backslash is only special before them.
        Some(quote @ ('/' | '|')) if may_be_pattern => read_quoted(rest, quote),
        Some(_) => Ok(take_while(rest, |c| c != ',' && !c.is_whitespace()).to_owned()),
    }
}

fn read_quoted(rest: &mut &str, quote: char) -> Result<String, Reason> {
    let is_pattern = matches!(quote, '/' | '|');
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            *rest = &rest[at + c.len_utf8()..];
            return Ok(value);
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        match chars.next() {
            Some((_, escaped)) if escaped == quote => value.push(escaped),
            Some((_, escaped)) if is_pattern => value.extend(['\\', escaped]),
            Some((_, '\\')) => value.push('\\'),
            Some((_, 'n')) => value.push('\n'),
            Some((_, 't')) => value.push('\t'),
            _ => break,
        }
    }
    Err(Reason::BadQuote)
}

fn take_while<'a>(rest: &mut &'a str, accept: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !accept(c)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(end);
    *rest = left;
    taken
}
