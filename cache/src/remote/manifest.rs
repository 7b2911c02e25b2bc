//! The manifest that holds a cache together.

use serde::{Deserialize, Serialize};

use super::{CONFIG_MEDIA_TYPE, import::ImportError};
use crate::descriptor::Descriptor;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The form of a cache's manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ManifestFormat {
    /// An OCI image manifest, whose config is the cache's (`image-manifest=true`).
    OciImage,
    /// An OCI index, in which layers and config stand side by side.
    OciIndex,
    /// The same as a Docker manifest list (`oci-mediatypes=false`).
    DockerList,
}

impl ManifestFormat {
    /// The manifest's media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::OciImage => OCI_MANIFEST,
            Self::OciIndex => OCI_INDEX,
            Self::DockerList => DOCKER_LIST,
        }
    }
}

/// What a cache consists of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheManifest {
    /// The config.
    pub config: Descriptor,
    /// The layer blobs.
    pub layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Written<'a> {
    #[serde(rename_all = "camelCase")]
    Image {
        schema_version: u32,
        media_type: &'a str,
        config: &'a Descriptor,
        layers: &'a [Descriptor],
    },
    #[serde(rename_all = "camelCase")]
    List { schema_version: u32, media_type: &'a str, manifests: Vec<&'a Descriptor> },
}

#[derive(Deserialize)]
struct Read {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl CacheManifest {
    /// The manifest's bytes.
    pub fn to_json(&self, format: ManifestFormat) -> Vec<u8> {
        let (schema_version, media_type) = (2, format.media_type());
        let written = match format {
            ManifestFormat::OciImage => Written::Image {
                schema_version,
                media_type,
                config: &self.config,
                layers: &self.layers,
            },
            ManifestFormat::OciIndex | ManifestFormat::DockerList => Written::List {
                schema_version,
                media_type,
                manifests: self.layers.iter().chain([&self.config]).collect(),
            },
        };
        serde_json::to_vec(&written).expect("descriptors are plain data with text for keys")
    }

    /// Reads a manifest of any of the forms; `None` if it is one without a cache config, such as an
    /// image's.
    pub fn parse(json: &[u8]) -> Result<Option<Self>, ImportError> {
        let read: Read = serde_json::from_slice(json)
            .map_err(|source| ImportError::Json { what: "manifest", source })?;
        let is_config = |descriptor: &Descriptor| descriptor.media_type == CONFIG_MEDIA_TYPE;
        match read {
            Read { manifests: Some(manifests), .. } => {
                let (configs, layers): (Vec<_>, Vec<_>) =
                    manifests.into_iter().partition(is_config);
                Ok(configs.into_iter().next_back().map(|config| Self { config, layers }))
            }
            Read { config: Some(config), layers, .. } => {
                Ok(is_config(&config).then(|| Self { config, layers: layers.unwrap_or_default() }))
            }
            Read { .. } => Err(ImportError::NoManifest),
        }
    }
}
