//! The history that instructions leave in the image, in the form that `docker history` shows.
//!
//! Times are left to the exporter, which knows when layers were made.

use std::fmt::Write as _;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::image::{Healthcheck, Image};

const COMMENT: &str = "buildkit.dockerfile.v0";

/// Adds what an instruction did to the image's history.
pub(super) fn commit(
    image: &mut Image,
    created_by: &str,
    has_layer: bool,
    epoch: Option<OffsetDateTime>,
) {
    let mut item = json!({ "created_by": created_by, "comment": COMMENT });
    if !has_layer {
        item["empty_layer"] = Value::Bool(true);
    }
    if let Some(created) = epoch.and_then(|epoch| epoch.format(&Rfc3339).ok()) {
        item["created"] = Value::String(created);
    }
    image.history.push(Arc::new(item));
}

/// The command of a RUN, after the build arguments that it could see.
pub(super) fn run(
    command: &[String],
    args: &[(String, Option<String>)],
    env: &IndexMap<String, String>,
) -> String {
    let mut seen: IndexMap<&str, &str> = IndexMap::new();
    for (name, value) in args {
        let value = env.get(name).or(value.as_ref()).map_or("", String::as_str);
        seen.insert(name, value);
    }
    let mut text = "RUN ".to_owned();
    if !seen.is_empty() {
        let _ = write!(text, "|{} ", seen.len());
        for (name, value) in seen {
            let _ = write!(text, "{name}={value} ");
        }
    }
    text + &command.join(" ") + " # buildkit"
}

/// Words in brackets, each quoted.
pub(super) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

fn quote(word: &str) -> String {
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => drop(write!(quoted, "\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A health check with the names of its fields.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} \
         Retries:{}}}",
        check.test.join(" "),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Nanoseconds in units that people use: `1m30s`, `1.5s`, `100ms`.
fn duration(nanos: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let decimal = |unit: u64, suffix: &str| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", nanos % unit);
        let fraction = fraction.trim_end_matches('0');
        let whole = nanos / unit;
        if nanos.is_multiple_of(unit) {
            format!("{whole}{suffix}")
        } else {
            format!("{whole}.{fraction}{suffix}")
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..SECOND => decimal(1_000_000, "ms"),
        _ => {
            let minutes = nanos / SECOND / 60;
            let rest = nanos % (60 * SECOND);
            let fraction = format!("{:09}", rest % SECOND);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{point}{fraction}s", rest / SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_shows_the_arguments_it_could_see() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let command = words(&["/bin/sh", "-c", "make"]);
        let env = IndexMap::from([("A".to_owned(), "env".to_owned())]);
        assert_eq!(run(&command, &[], &env), "RUN /bin/sh -c make # buildkit");
        let args = [
            ("A".to_owned(), Some("1".to_owned())),
            ("B".to_owned(), Some("2".to_owned())),
            ("B".to_owned(), None),
        ];
        assert_eq!(run(&command, &args, &env), "RUN |2 A=env B= /bin/sh -c make # buildkit");
    }

    #[test]
    fn words_are_quoted() {
        let words = ["a b".to_owned(), "\"\\\n".to_owned()];
        assert_eq!(quoted(&words), r#"["a b" "\"\\\n"]"#);
        assert_eq!(quoted(&[]), "[]");
    }

    #[test]
    fn durations_are_short() {
        let cases = [
            (0, "0s"),
            (500, "500ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(nanos), text);
        }
    }
}
