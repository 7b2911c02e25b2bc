//! Metadata of session calls: its names, and text that HTTP headers cannot carry.
//!
//! Values go as they are if all of a name's values are printable ASCII. Otherwise all of them are
//! percent-encoded as in a query string, and `<name>-encoded: 1` is set beside them.

use std::fmt::Write as _;
use thiserror::Error;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

/// Which of the client's directories `FileSync.DiffCopy` is to send.
pub const DIR_NAME: &str = "dir-name";
/// Patterns of which an entry must match one.
pub const INCLUDE_PATTERNS: &str = "include-patterns";
/// Patterns of entries that are left out.
pub const EXCLUDE_PATTERNS: &str = "exclude-patterns";
/// Paths whose symlinks are resolved into include patterns.
pub const FOLLOW_PATHS: &str = "followpaths";
/// Which exporter of the request `FileSend.DiffCopy` delivers, by position.
pub const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Starts the name of each item of exporter metadata.
pub const EXPORTER_METADATA_PREFIX: &str = "exporter-md-";
/// Says that an export has a folder for each platform.
pub const EXPORTER_MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
/// The `Ref` of the build that a gateway call on the control socket belongs to.
pub const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// A name that cannot be one of a header.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name:?} cannot be the name of a metadata field")]
pub struct BadName {
    /// The name that was asked for.
    pub name: String,
}

/// Replaces the values of `name`, encoded where they need it.
pub fn set<V: AsRef<str>>(
    metadata: &mut MetadataMap,
    name: &str,
    values: &[V],
) -> Result<(), BadName> {
    let bad_name = || BadName { name: name.to_owned() };
    let key: MetadataKey<Ascii> = name.parse().map_err(|_| bad_name())?;
    let mark: MetadataKey<Ascii> = encoded_mark(name).parse().map_err(|_| bad_name())?;
    metadata.remove(&key);
    metadata.remove(&mark);

    let is_plain = |value: &V| value.as_ref().bytes().all(|b| (b' '..=b'~').contains(&b));
    let encode = !values.iter().all(is_plain);
    for value in values {
        let value = value.as_ref();
        let encoded = if encode {
            MetadataValue::try_from(escape(value))
        } else {
            MetadataValue::try_from(value)
        };
        metadata.append(&key, encoded.map_err(|_| bad_name())?);
    }
    if encode {
        metadata.insert(mark, MetadataValue::from_static("1"));
    }
    Ok(())
}

/// The values of `name`, decoded; one that cannot be decoded is empty, as it is for other readers.
pub fn get(metadata: &MetadataMap, name: &str) -> Vec<String> {
    let is_encoded = metadata
        .get(encoded_mark(name))
        .and_then(|mark| mark.to_str().ok())
        .is_some_and(|mark| matches!(mark, "1" | "t" | "T" | "true" | "TRUE" | "True"));
    metadata
        .get_all(name)
        .iter()
        .map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes());
            if is_encoded { unescape(&value).unwrap_or_default() } else { value.into_owned() }
        })
        .collect()
}

/// The first value of `name`.
pub fn get_first(metadata: &MetadataMap, name: &str) -> Option<String> {
    get(metadata, name).into_iter().next()
}

fn encoded_mark(name: &str) -> String {
    format!("{name}-encoded")
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            // Writing to a string cannot fail.
            byte => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}

fn unescape(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ascii_goes_as_it_is() {
        let mut metadata = MetadataMap::new();
        set(&mut metadata, EXCLUDE_PATTERNS, &["a b", "100%", "!x+y"]).unwrap();
        let values: Vec<_> = metadata.get_all(EXCLUDE_PATTERNS).iter().collect();
        assert_eq!(values, ["a b", "100%", "!x+y"]);
        assert!(metadata.get("exclude-patterns-encoded").is_none());
    }

    #[test]
    fn one_foreign_character_encodes_all_values_of_the_name() {
        let mut metadata = MetadataMap::new();
        set(&mut metadata, DIR_NAME, &["ü", "a b/%"]).unwrap();
        let values: Vec<_> = metadata.get_all(DIR_NAME).iter().collect();
        assert_eq!(values, ["%C3%BC", "a+b%2F%25"]);
        assert_eq!(metadata.get("dir-name-encoded").unwrap(), "1");
    }

    #[test]
    fn what_cannot_be_decoded_is_empty() {
        let mut metadata = MetadataMap::new();
        metadata.insert("dir-name", "%zz".parse().unwrap());
        metadata.insert("dir-name-encoded", "true".parse().unwrap());
        assert_eq!(get(&metadata, DIR_NAME), [""]);
    }

    #[test]
    fn a_name_that_is_no_header_is_refused() {
        assert!(set(&mut MetadataMap::new(), "exporter-md-ü", &["x"]).is_err());
    }

    proptest! {
        #[test]
        fn values_arrive_as_they_were_set(values in prop::collection::vec("\\PC*|\n|\t", 0..4)) {
            let mut metadata = MetadataMap::new();
            set(&mut metadata, FOLLOW_PATHS, &values).unwrap();
            prop_assert_eq!(get(&metadata, FOLLOW_PATHS), values);
        }
    }
}
