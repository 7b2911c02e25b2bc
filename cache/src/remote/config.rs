//! The JSON of a cache config.
//!
//! Indexes come from outside and are only numbers here; [`ImportedCache`](super::ImportedCache)
//! checks them.

use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::descriptor::{CREATED_AT, Descriptor, UNCOMPRESSED};
use crate::digest::Digest;

/// The media type of a cache config.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Records, and the layers that their results are made of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Layers, each with the one below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub layers: Vec<CacheLayer>,
    /// Records, linked to each other by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub records: Vec<CacheRecord>,
}

/// One layer of a chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CacheLayer {
    /// The blob.
    pub blob: Digest,
    /// The position of the layer below, or -1.
    #[serde(rename = "parent", default, skip_serializing_if = "is_zero")]
    pub parent_index: i64,
    /// What descriptors say where there is no manifest to hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

impl CacheLayer {
    /// The blob's descriptor, if the annotations make one.
    pub(super) fn descriptor(&self) -> Option<Descriptor> {
        let LayerAnnotations { media_type, diff_id, size, created_at } =
            self.annotations.as_ref()?;
        let size = u64::try_from(*size).ok()?;
        let mut descriptor = Descriptor::new(media_type, self.blob, size);
        let diff_id = diff_id.as_ref()?.to_string();
        descriptor.annotations.insert(UNCOMPRESSED.to_owned(), diff_id);
        // One that was never set is the year 1.
        if let Ok(time) = created_at.format(&Rfc3339)
            && *created_at >= OffsetDateTime::UNIX_EPOCH
        {
            descriptor.annotations.insert(CREATED_AT.to_owned(), time);
        }
        Some(descriptor)
    }
}

/// A descriptor's fields, for backends without manifests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerAnnotations {
    /// The blob's media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The uncompressed digest.
    #[serde(rename = "diffID", default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// The blob's size in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: i64,
    /// When the layer was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A key, and the results known for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Results as layers with all that is below them.
    #[serde(
        rename = "layers",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub results: Vec<CacheResult>,
    /// Results as lists of layers.
    #[serde(
        rename = "chains",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub chains: Vec<ChainedResult>,
    /// The digest of an op's output, or of content.
    pub digest: Digest,
    /// For each input, the records that it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
}

/// A result: a layer and all below it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CacheResult {
    /// The position of the uppermost layer.
    #[serde(rename = "layer")]
    pub layer_index: i64,
    /// When it was made.
    #[serde(rename = "createdAt", with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A result: layers without what is below them, bottom first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainedResult {
    /// The positions of the layers.
    #[serde(rename = "layers")]
    pub layer_indexes: Vec<i64>,
    /// When it was made.
    #[serde(rename = "createdAt", with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A link to a record that an input may be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CacheInput {
    /// Which part of the input matters, if not the whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The position of the record.
    #[serde(rename = "link")]
    pub link_index: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go's encoders write `null` for a list that was never made.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
