//! Durations and sizes as `buildkitd.toml` writes them: a number, or a text with a unit.

use kiln_cache::gc::Space;
use serde::de::{Deserialize, Deserializer, Error as _};

/// Seconds, or a text like `48h` or `1h30m`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Duration(pub(super) std::time::Duration);

/// Bytes, or a text like `512MB` or `20%`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskSpace(pub(super) Space);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(seconds) => {
                return Ok(Self(std::time::Duration::from_secs(seconds)));
            }
            NumberOrText::Text(text) => text,
        };
        parse_duration(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("invalid duration {text:?}: try \"48h\"")))
    }
}

impl<'de> Deserialize<'de> for DiskSpace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(bytes) => Ok(Self(Space::Bytes(bytes))),
            NumberOrText::Text(text) if text.is_empty() => Ok(Self::default()),
            NumberOrText::Text(text) => text.parse().map(Self).map_err(D::Error::custom),
        }
    }
}

/// Reads Go's durations as far as whole units go, or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Option<std::time::Duration> {
    if text.is_empty() {
        return Some(std::time::Duration::ZERO);
    }
    if let Ok(seconds) = text.parse() {
        return Some(std::time::Duration::from_secs(seconds));
    }
    let mut total = std::time::Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(std::time::Duration::try_from_secs_f64(value * unit).ok()?)?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations_are_gos_or_seconds() {
        let cases = [("48h", 172_800), ("1h30m", 5400), ("90", 90), ("1.5m", 90), ("", 0)];
        for (text, seconds) in cases {
            assert_eq!(parse_duration(text).map(|d| d.as_secs()), Some(seconds), "{text:?}");
        }
        for text in ["h", "1x", "1h2", "-1s", "99999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }
}
