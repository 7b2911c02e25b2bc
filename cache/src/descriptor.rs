//! Descriptors: what names a blob in manifests (OCI image spec, "descriptor").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{digest::Digest, layer::DiffId};

/// The annotation that gives a layer blob's uncompressed digest.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// The annotation that gives the time at which a layer was made, in RFC 3339.
pub const CREATED_AT: &str = "buildkit/createdat";
/// The annotation that says how a layer was made.
pub const DESCRIPTION: &str = "buildkit/description";

/// A blob's type, digest and size. Its JSON is OCI's.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type.
    pub media_type: String,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// Annotations, which say how to treat the blob and do not change what it is.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, annotations: BTreeMap::new() }
    }

    /// The uncompressed digest that the annotations name.
    pub fn diff_id(&self) -> Option<DiffId> {
        self.annotations.get(UNCOMPRESSED)?.parse().ok()
    }

    /// The time that the annotations name. One before 1970 is none: BuildKit writes the year 1 where it
    /// knows no time.
    pub fn created_at(&self) -> Option<OffsetDateTime> {
        let time = OffsetDateTime::parse(self.annotations.get(CREATED_AT)?, &Rfc3339).ok();
        time.filter(|time| *time >= OffsetDateTime::UNIX_EPOCH)
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON leaves out what is empty; the index's format has no names and needs every field.
        let brief = serializer.is_human_readable() && self.annotations.is_empty();
        let mut fields = serializer.serialize_struct("Descriptor", if brief { 3 } else { 4 })?;
        fields.serialize_field("mediaType", &self.media_type)?;
        fields.serialize_field("digest", &self.digest)?;
        fields.serialize_field("size", &self.size)?;
        if brief {
            fields.skip_field("annotations")?;
        } else {
            fields.serialize_field("annotations", &Some(&self.annotations))?;
        }
        fields.end()
    }
}

/// Go's encoders write `null` for an absent map.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Descriptor {
        Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of("blob"), 4)
    }

    #[test]
    fn a_time_that_was_never_set_is_none() {
        for (text, seconds) in [
            ("2001-09-09T01:46:40Z", Some(1_000_000_000)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", None),
            ("0001-01-01T00:00:00Z", None),
            ("yesterday", None),
        ] {
            let mut layer = layer();
            layer.annotations.insert(CREATED_AT.to_owned(), text.to_owned());
            assert_eq!(layer.created_at().map(OffsetDateTime::unix_timestamp), seconds, "{text}");
        }
    }

    #[test]
    fn its_json_is_ocis() {
        let plain = serde_json::to_value(layer()).unwrap();
        assert_eq!(
            plain,
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of("blob").to_string(),
                "size": 4,
            })
        );
        let mut with_null = plain.clone();
        with_null["annotations"] = serde_json::Value::Null;
        with_null["urls"] = serde_json::json!([]);
        assert_eq!(serde_json::from_value::<Descriptor>(with_null).unwrap(), layer());
        assert_eq!(serde_json::from_value::<Descriptor>(plain).unwrap(), layer());
    }

    #[test]
    fn it_survives_the_index_with_and_without_annotations() {
        let mut noted = layer();
        noted.annotations.insert(UNCOMPRESSED.to_owned(), Digest::of("tar").to_string());
        assert_eq!(noted.diff_id(), Some(DiffId::new(Digest::of("tar"))));
        for descriptor in [layer(), noted] {
            let bytes = postcard::to_stdvec(&descriptor).unwrap();
            assert_eq!(postcard::from_bytes::<Descriptor>(&bytes).unwrap(), descriptor);
            let json = serde_json::to_string(&descriptor).unwrap();
            assert_eq!(serde_json::from_str::<Descriptor>(&json).unwrap(), descriptor);
        }
    }
}
