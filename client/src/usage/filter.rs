//! `--filter`: `KEY=VALUE`, as docker's commands take it, for the daemon, which takes expressions.

use crate::args::invalid::Invalid;

/// Which records are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filters {
    /// Expressions of which one must hold: here, all filters in one.
    pub(super) expressions: Vec<String>,
    /// Records must not have been used for so long, if it is not 0.
    pub(super) until_nanoseconds: i64,
}

impl Filters {
    pub(super) fn parse(values: &[String]) -> Result<Self, Invalid> {
        let mut conditions: Vec<(&str, String)> = Vec::new();
        let mut until = None;
        for text in values {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (text.trim(), None),
            };
            if key.is_empty() {
                return Err(Invalid::NoKey(text.clone()));
            }
            if matches!(key, "until" | "unused-for") {
                let value = value.ok_or_else(|| Invalid::NotKeyValue(text.clone()))?;
                if until.replace(nanoseconds(value)?).is_some() {
                    return Err(Invalid::Conflict("until is given twice"));
                }
                continue;
            }
            if conditions.iter().any(|(other, _)| *other == key) {
                return Err(Invalid::Conflict("a key can be given only once"));
            }
            let condition = match value {
                None => key.to_owned(),
                Some(value) if key == "id" => format!("id~={value}"),
                Some(value) if key.ends_with(['!', '~']) => format!("{key}={value}"),
                Some(value) => format!("{key}=={value}"),
            };
            conditions.push((key, condition));
        }
        let expression: Vec<_> = conditions.into_iter().map(|(_, condition)| condition).collect();
        let expressions =
            if expression.is_empty() { Vec::new() } else { vec![expression.join(",")] };
        Ok(Self { expressions, until_nanoseconds: until.unwrap_or(0) })
    }
}

/// Reads a span of time such as `24h`, `1h30m` or `1.5s`.
fn nanoseconds(text: &str) -> Result<i64, Invalid> {
    let not = || Invalid::not(text, "a span of time (such as 24h or 1h30m)");
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(not)?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(not()),
        };
        total += number.parse::<f64>().map_err(|_| not())? * scale;
        rest = after;
    }
    if total > 0.0 && total < 9.2e18 { Ok(total as i64) } else { Err(not()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Filters, Invalid> {
        Filters::parse(&values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn filters_are_one_expression() {
        for (values, expression) in [
            (&["type=exec.cachemount"][..], "type==exec.cachemount"),
            (&["id=abc"], "id~=abc"),
            (&["type!=regular"], "type!=regular"),
            (&["description~=x"], "description~=x"),
            (&["shared", "inuse=true"], "shared,inuse==true"),
        ] {
            assert_eq!(parse(values).unwrap().expressions, [expression], "{values:?}");
        }
        assert_eq!(parse(&[]).unwrap(), Filters::default());
    }

    #[test]
    fn a_span_of_time_is_no_expression() {
        let hour = 3_600_000_000_000;
        for (value, expected) in [("until=24h", 24 * hour), ("unused-for=1h30m", hour / 2 * 3)] {
            let filters = parse(&[value]).unwrap();
            assert_eq!((filters.expressions.len(), filters.until_nanoseconds), (0, expected));
        }
        for values in [
            &["until=1"][..],
            &["until=h"],
            &["until=1d"],
            &["until="],
            &["until"],
            &["until=1h", "unused-for=1h"],
            &["=x"],
            &["type=a", "type=b"],
        ] {
            assert!(parse(values).is_err(), "{values:?}");
        }
    }
}
