//! JSON as Go's `encoding/json` spells BuildKit's messages, empty members left out: source texts and
//! places in them, as details of errors and answers of frontends have them, and the bytes that the
//! digests of ops are of.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_cache::Digest;
use kiln_proto::pb;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::image::Platform;

/// The digest of a value's JSON, to the byte as Go writes it.
pub(crate) fn digest(value: &impl Serialize) -> anyhow::Result<Digest> {
    Ok(Digest::of(to_vec(value)?))
}

/// A value's JSON, to the byte as Go writes it.
pub(crate) fn to_vec(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut json = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut json, ForHtml))?;
    Ok(json)
}

/// A platform as members of what it is of.
#[derive(Serialize)]
pub(crate) struct OnPlatform<'a> {
    #[serde(rename = "OS")]
    os: &'a str,
    #[serde(rename = "Arch")]
    architecture: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "is_empty")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "is_empty")]
    os_version: &'a str,
}

impl<'a> From<&'a Platform> for OnPlatform<'a> {
    fn from(platform: &'a Platform) -> Self {
        Self {
            os: &platform.os,
            architecture: &platform.architecture,
            variant: &platform.variant,
            os_version: &platform.os_version,
        }
    }
}

/// Whether Go leaves a member out that may be empty.
pub(crate) fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Escapes what has a meaning in HTML or ends a line in JavaScript.
struct ForHtml;

impl Formatter for ForHtml {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let is_special = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        for part in fragment.split_inclusive(is_special) {
            let mut plain = part.chars();
            match plain.next_back() {
                Some(last) if is_special(last) => {
                    write!(writer, "{}\\u{:04x}", plain.as_str(), u32::from(last))?;
                }
                _ => writer.write_all(part.as_bytes())?,
            }
        }
        Ok(())
    }
}

/// A source text, and how it was loaded.
#[derive(Serialize)]
pub(crate) struct SourceInfo<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) filename: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<Definition<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    language: &'a str,
}

/// Ops, without what they in turn were made from.
#[derive(Serialize)]
struct Definition<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    def: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, Metadata<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    description: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    caps: BTreeMap<&'a str, bool>,
}

/// Lines of one of several texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Location {
    #[serde(rename = "sourceIndex", skip_serializing_if = "is_zero")]
    source_index: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ranges: Vec<Range>,
}

/// Lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Range {
    pub(crate) start: Position,
    pub(crate) end: Position,
}

/// A place in a text; lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Position {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) line: i32,
    #[serde(skip_serializing_if = "is_zero")]
    character: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Bytes as JSON holds them.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

impl<'a> From<&'a pb::SourceInfo> for SourceInfo<'a> {
    fn from(info: &'a pb::SourceInfo) -> Self {
        Self {
            filename: &info.filename,
            data: bytes(&info.data),
            definition: info.definition.as_ref().map(Definition::from),
            language: &info.language,
        }
    }
}

impl<'a> From<&'a pb::Definition> for Definition<'a> {
    fn from(definition: &'a pb::Definition) -> Self {
        let metadata = definition.metadata.iter().map(|(digest, meta)| {
            let description = meta.description.iter().map(|(name, text)| (&**name, &**text));
            let caps = meta.caps.iter().map(|(name, needed)| (&**name, *needed));
            let meta = Metadata { description: description.collect(), caps: caps.collect() };
            (&**digest, meta)
        });
        Self {
            def: definition.def.iter().map(|op| bytes(op)).collect(),
            metadata: metadata.collect(),
        }
    }
}

impl Location {
    /// Lines of the first text.
    pub(crate) fn new(ranges: &[pb::Range]) -> Self {
        Self::in_text(0, ranges)
    }

    /// Lines of the text of that index.
    pub(crate) fn in_text(source_index: i32, ranges: &[pb::Range]) -> Self {
        Self { source_index, ranges: self::ranges(ranges) }
    }
}

/// Lines.
pub(crate) fn ranges(ranges: &[pb::Range]) -> Vec<Range> {
    let position = |position: Option<pb::Position>| {
        let position = position.unwrap_or_default();
        Position { line: position.line, character: position.character }
    };
    let range =
        |range: &pb::Range| Range { start: position(range.start), end: position(range.end) };
    ranges.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What Go makes of the same texts.
    #[test]
    fn strings_are_escaped_as_in_go() {
        for (text, json) in [
            ("a && b <c>", r#""a \u0026\u0026 b \u003cc\u003e""#),
            ("\"\\/", r#""\"\\/""#),
            ("\u{8}\u{c}\n\r\t", r#""\b\f\n\r\t""#),
            ("\u{1b}\u{7f}\0", "\"\\u001b\u{7f}\\u0000\""),
            ("é\u{2028}\u{2029}", "\"é\\u2028\\u2029\""),
        ] {
            assert_eq!(String::from_utf8(to_vec(&text).unwrap()).unwrap(), json);
        }
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let at = |line| Some(pb::Position { line, character: 0 });
        let location = Location::new(&[pb::Range { start: at(3), end: None }]);
        let expected = json!({ "ranges": [{ "start": { "line": 3 }, "end": {} }] });
        assert_eq!(serde_json::to_value(location).unwrap(), expected);
        assert_eq!(serde_json::to_value(Location::default()).unwrap(), json!({}));
        let info = pb::SourceInfo { filename: "a".to_owned(), ..Default::default() };
        assert_eq!(
            serde_json::to_value(SourceInfo::from(&info)).unwrap(),
            json!({ "filename": "a" })
        );
    }

    #[test]
    fn a_text_comes_with_the_ops_that_load_it() {
        let meta = pb::OpMetadata {
            description: [("llb.customname".to_owned(), "load".to_owned())].into(),
            caps: [("source.local".to_owned(), true)].into(),
            ..Default::default()
        };
        let definition = pb::Definition {
            def: vec![vec![1].into()],
            metadata: [("sha256:a".to_owned(), meta)].into(),
            source: None,
        };
        let info = pb::SourceInfo {
            data: b"FROM a".to_vec().into(),
            definition: Some(definition),
            ..Default::default()
        };
        let meta = json!({
            "description": { "llb.customname": "load" },
            "caps": { "source.local": true },
        });
        assert_eq!(
            serde_json::to_value(SourceInfo::from(&info)).unwrap(),
            json!({
                "data": "RlJPTSBh",
                "definition": { "def": ["AQ=="], "metadata": { "sha256:a": meta } },
            })
        );
    }
}
