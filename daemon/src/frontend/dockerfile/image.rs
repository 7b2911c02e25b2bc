//! Image configs, as instructions change them.
//!
//! What a base image has in its config that is not known here is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::image::Platform;

/// The search path of images that have none.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image config (OCI image spec, with Docker's additions).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Image {
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub(super) author: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub(super) variant: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) os: String,
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub(super) os_version: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: ContainerConfig,
    /// Shared with the images that this one was made from.
    #[serde(default, with = "shared")]
    pub(super) history: Vec<Arc<Value>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// How containers of the image run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ContainerConfig {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub(super) user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub(super) exposed_ports: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub(super) env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub(super) entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub(super) cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub(super) volumes: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub(super) working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub(super) stop_signal: String,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "nullable")]
    pub(super) args_escaped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub(super) on_build: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub(super) shell: Vec<String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// A health check; times are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub(super) test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) timeout: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) start_period: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) start_interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) retries: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A field that other builders write as `null` where it is empty.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A list of items that may have other owners, which may be `null`.
mod shared {
    use super::{Arc, Deserializer, Value, nullable};

    pub(super) fn serialize<S: serde::Serializer>(
        items: &[Arc<Value>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(items.iter().map(|item| &**item))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Arc<Value>>, D::Error> {
        let items: Vec<Value> = nullable(deserializer)?;
        Ok(items.into_iter().map(Arc::new).collect())
    }
}

impl Image {
    /// The config of scratch.
    pub(super) fn empty(platform: &Platform) -> Self {
        let mut image = Self {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            ..Self::default()
        };
        image.config.working_dir = "/".to_owned();
        if platform.os != "windows" {
            image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
        }
        image
    }

    /// The config of a base image. When that was built does not matter to what is built on it.
    pub(super) fn parse(json: &[u8]) -> anyhow::Result<Self> {
        let mut image: Self =
            serde_json::from_slice(json).context("failed to parse image config")?;
        image.other.remove("created");
        Ok(image)
    }

    /// Whether the image has no layers at all.
    pub(super) fn is_scratch(&self) -> bool {
        let layers = self.other.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids"));
        let no_layers = layers.and_then(Value::as_array).is_none_or(Vec::is_empty);
        let is_empty = |item: &Arc<Value>| item.get("empty_layer") == Some(&Value::Bool(true));
        no_layers && self.history.iter().all(is_empty)
    }

    /// Says that the image is for `platform`.
    pub(super) fn set_platform(&mut self, platform: &Platform) {
        let same = (&self.os, &self.architecture) == (&platform.os, &platform.architecture);
        self.os.clone_from(&platform.os);
        self.architecture.clone_from(&platform.architecture);
        if !platform.variant.is_empty() || !same {
            self.variant.clone_from(&platform.variant);
        }
        if !platform.os_version.is_empty() || !same {
            self.os_version.clone_from(&platform.os_version);
        }
    }

    /// The image's platform.
    pub(super) fn platform(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone(),
            ..Platform::new(&self.os, &self.architecture, &self.variant)
        }
    }
}

impl ContainerConfig {
    /// The environment in pairs.
    pub(super) fn env_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// Sets a variable, in its old place if it has one.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let known = self
            .env
            .iter_mut()
            .find(|pair| pair.split_once('=').map_or(pair.as_str(), |(known, _)| known) == name);
        match known {
            Some(known) => *known = pair,
            None => self.env.push(pair),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_of_a_base_image_is_kept() {
        let json = json!({
            "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z",
            "moby.buildkit.x": 1,
            "config": { "Env": null, "Cmd": ["sh"], "Labels": null, "OpenStdin": true },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:aa"] },
            "history": null,
        });
        let image = Image::parse(json.to_string().as_bytes()).unwrap();
        assert!(!image.is_scratch());
        let written = serde_json::to_value(&image).unwrap();
        assert_eq!(written["config"], json!({ "Cmd": ["sh"], "OpenStdin": true }));
        assert_eq!(written["moby.buildkit.x"], 1);
        assert_eq!(written["rootfs"], json["rootfs"]);
        assert_eq!(written.get("created"), None);
    }

    #[test]
    fn a_variable_keeps_its_place() {
        let mut config = ContainerConfig::default();
        for (name, value) in [("A", "1"), ("AB", "2"), ("A", "3")] {
            config.set_env(name, value);
        }
        assert_eq!(config.env, ["A=3", "AB=2"]);
        assert_eq!(config.env_pairs().collect::<Vec<_>>(), [("A", "3"), ("AB", "2")]);
    }

    #[test]
    fn an_image_without_layers_is_scratch() {
        let platform = Platform::new("linux", "amd64", "");
        assert!(Image::empty(&platform).is_scratch());
    }
}
