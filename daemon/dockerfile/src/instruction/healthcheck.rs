use std::time::Duration;

use super::Statement;
use crate::duration;
use crate::error::ErrorKind;
use crate::flags::{Flags, Takes};
use crate::json;

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The test as image configs hold it: `NONE`, or `CMD` and its words, or `CMD-SHELL` and one
    /// string.
    pub test: Vec<String>,
    /// When it runs; zero in a field leaves that to whoever runs the container.
    pub timing: Timing,
}

/// When a health check runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// `--interval`
    pub interval: Duration,
    /// `--timeout`
    pub timeout: Duration,
    /// `--start-period`
    pub start_period: Duration,
    /// `--start-interval`
    pub start_interval: Duration,
    /// `--retries`
    pub retries: u32,
}

/// A HEALTHCHECK that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthcheckError {
    /// `NONE` with something after it.
    #[error("HEALTHCHECK NONE takes no arguments")]
    NoneWithArguments,
    /// `CMD` with nothing after it.
    #[error("missing command after HEALTHCHECK CMD")]
    MissingCommand,
    /// Neither `NONE` nor `CMD`.
    #[error("unknown type {given:?} in HEALTHCHECK (try CMD)")]
    UnknownType {
        /// What was given.
        given: String,
    },
    /// Not a duration.
    #[error("invalid duration {value:?} for --{flag}: write it like 30s or 1m30s")]
    Duration {
        /// The flag.
        flag: &'static str,
        /// What it was given.
        value: String,
    },
    /// A duration that is too short to be one.
    #[error("interval --{flag} cannot be less than 1ms")]
    TooShort {
        /// The flag.
        flag: &'static str,
    },
    /// Not a count.
    #[error("invalid number {value:?} for --retries: it is a whole number, 0 or more")]
    Retries {
        /// What was given.
        value: String,
    },
}

impl Healthcheck {
    pub(crate) fn parse(statement: &Statement) -> Result<Self, ErrorKind> {
        const FLAGS: &[(&str, Takes)] = &[
            ("interval", Takes::Value),
            ("timeout", Takes::Value),
            ("start-period", Takes::Value),
            ("start-interval", Takes::Value),
            ("retries", Takes::Value),
        ];
        let arguments = statement.arguments.as_str();
        if arguments.is_empty() {
            return Err(ErrorKind::MissingArguments { instruction: "HEALTHCHECK" });
        }
        let (kind, rest) = arguments.split_once(char::is_whitespace).unwrap_or((arguments, ""));
        let rest = rest.trim_start();
        let mut flags = Flags::parse(&statement.flags, FLAGS)?;
        let timing = Timing {
            interval: interval("interval", flags.value("interval"))?,
            timeout: interval("timeout", flags.value("timeout"))?,
            start_period: interval("start-period", flags.value("start-period"))?,
            start_interval: interval("start-interval", flags.value("start-interval"))?,
            retries: retries(flags.value("retries"))?,
        };
        match kind.to_ascii_uppercase().as_str() {
            "NONE" if rest.is_empty() => {
                Ok(Self { test: vec!["NONE".to_owned()], timing: Timing::default() })
            }
            "NONE" => Err(HealthcheckError::NoneWithArguments.into()),
            "CMD" => Ok(Self { test: test(rest)?, timing }),
            _ => Err(HealthcheckError::UnknownType { given: kind.to_owned() }.into()),
        }
    }
}

fn test(command: &str) -> Result<Vec<String>, ErrorKind> {
    let (kind, mut words) = match json::string_array(command)? {
        Some(words) => ("CMD", words),
        None if command.is_empty() => ("CMD", Vec::new()),
        None => ("CMD-SHELL", vec![command.to_owned()]),
    };
    if words.is_empty() {
        return Err(HealthcheckError::MissingCommand.into());
    }
    words.insert(0, kind.to_owned());
    Ok(words)
}

fn interval(flag: &'static str, value: Option<String>) -> Result<Duration, HealthcheckError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(Duration::ZERO) };
    let duration = duration::parse(&value).ok_or(HealthcheckError::Duration { flag, value })?;
    if !duration.is_zero() && duration < Duration::from_millis(1) {
        return Err(HealthcheckError::TooShort { flag });
    }
    Ok(duration)
}

fn retries(value: Option<String>) -> Result<u32, HealthcheckError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(0) };
    match value.parse::<i32>().map(u32::try_from) {
        Ok(Ok(retries)) => Ok(retries),
        _ => Err(HealthcheckError::Retries { value }),
    }
}
