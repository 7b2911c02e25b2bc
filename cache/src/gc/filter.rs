//! Filters on disk usage, in containerd's syntax as far as BuildKit gives it a meaning.
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
//!
//! Fields are `id`, `parents`, `description`, `type`, `inuse`, `mutable`, `immutable`, `shared` and
//! `private`.

use std::{fmt, str::FromStr};

use regex::{Regex, RegexBuilder};

use super::{Usage, UsageId};
use crate::record_type::RecordType;

/// Selects rows of disk usage.
#[derive(Clone, Debug)]
pub struct Filter(Vec<Selector>);

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?}: {reason} at {rest:?}")]
pub struct InvalidFilter {
    filter: String,
    rest: String,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("expected a field")]
    NoField,
    #[error(
        "expected one of the fields id, parents, description, type, inuse, mutable, immutable, \
         shared and private"
    )]
    UnknownField,
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
struct Selector {
    field: Field,
    test: Test,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Whether the filter selects `usage`.
    pub fn matches(&self, usage: &Usage) -> bool {
        self.0.iter().all(|selector| selector.matches(usage))
    }

    /// One filter for each type of data that is cheapest to make again.
    pub(super) fn easily_remade() -> Vec<Self> {
        [RecordType::LocalSource, RecordType::CacheMount, RecordType::GitCheckout]
            .map(|record_type| {
                let test = Test::Equal(record_type.as_str().to_owned());
                Self(vec![Selector { field: Field::Type, test }])
            })
            .into()
    }
}

impl fmt::Display for Filter {
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

impl Selector {
    fn matches(&self, usage: &Usage) -> bool {
        let value = self.field.of(usage);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.as_ref() == Some(wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != *unwanted,
            Test::Matches(pattern) => pattern.is_match(&value.unwrap_or_default()),
        }
    }
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "parents" | "parent" => Self::Parents,
            "description" => Self::Description,
            "type" => Self::Type,
            "inuse" => Self::InUse,
            "mutable" => Self::Mutable,
            "immutable" => Self::Immutable,
            "shared" => Self::Shared,
            "private" => Self::Private,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Parents => "parents",
            Self::Description => "description",
            Self::Type => "type",
            Self::InUse => "inuse",
            Self::Mutable => "mutable",
            Self::Immutable => "immutable",
            Self::Shared => "shared",
            Self::Private => "private",
        }
    }

    /// The field's value, `None` if it is absent. One that is true is present and empty.
    fn of(self, usage: &Usage) -> Option<String> {
        let claim = |is_so: bool| is_so.then(String::new);
        match self {
            Self::Id => Some(usage.id.to_string()),
            Self::Parents => {
                let parents: Vec<_> = usage.parents.iter().map(UsageId::to_string).collect();
                (!parents.is_empty()).then(|| parents.join(";"))
            }
            Self::Description => (!usage.description.is_empty()).then(|| usage.description.clone()),
            Self::Type => Some(usage.record_type.as_str().to_owned()),
            Self::InUse => claim(usage.in_use),
            Self::Mutable => claim(usage.mutable),
            Self::Immutable => claim(!usage.mutable),
            Self::Shared => claim(usage.shared),
            Self::Private => claim(!usage.shared),
        }
    }
}

impl FromStr for Filter {
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

fn read_selector(rest: &mut &str) -> Result<Selector, Reason> {
    let name = take_while(rest, |c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() {
        return Err(Reason::NoField);
    }
    let field = Field::named(name).ok_or(Reason::UnknownField)?;
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::layer::LayerId;

    fn usage() -> Usage {
        Usage {
            id: UsageId::Layer(LayerId(42)),
            parents: vec![UsageId::Layer(LayerId(1)), UsageId::Layer(LayerId(2))],
            in_use: false,
            shared: true,
            mutable: false,
            size: 0,
            created_at: SystemTime::UNIX_EPOCH,
            last_used_at: None,
            usage_count: 0,
            description: "mount / from exec \"apt\", 2".to_owned(),
            record_type: RecordType::CacheMount,
        }
    }

    #[test]
    fn a_filter_selects_what_all_its_selectors_match() {
        let table = [
            ("", true),
            ("id==00000000002a", true),
            ("id==2a", false),
            ("id~=2a", true),
            ("id~=^2a", false),
            ("parents~=000000000002$", true),
            ("parent==000000000001;000000000002", true),
            ("type==exec.cachemount", true),
            ("type == exec.cachemount", true),
            ("type==regular", false),
            ("type!=regular", true),
            ("inuse", false),
            ("inuse!=x", true),
            ("shared", true),
            ("private", false),
            ("immutable,shared", true),
            ("immutable, mutable", false),
            ("description~=exec", true),
            (r#"description=="mount / from exec \"apt\", 2""#, true),
            (r"description~='apt., \\d'", true),
            (r"description~=/mount \/ from/", true),
            ("description~=|apt., \\d$|", true),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Filter>().unwrap().matches(&usage()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said_where_it_is() {
        let table = [
            ("=x", Reason::NoField, "=x"),
            ("size==1", Reason::UnknownField, "==1"),
            ("id=1", Reason::NoOperator, "1"),
            ("id==", Reason::NoValue, ""),
            ("id==1,", Reason::NoField, ","),
            ("id==1 2", Reason::NoComma, "2"),
            ("id==\"1", Reason::BadQuote, "\"1"),
            ("id~=(", Reason::BadRegex, ""),
            ("id==/a/,x", Reason::UnknownField, ""),
        ];
        for (text, reason, rest) in table {
            let error = text.parse::<Filter>().unwrap_err();
            assert_eq!((error.reason, error.rest.as_str()), (reason, rest), "{text}: {error}");
        }
    }
}
