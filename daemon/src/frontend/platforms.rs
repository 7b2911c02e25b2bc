//! The platforms of a result, and the ids by which it names them.

use anyhow::{Context as _, bail};

use super::{FrontendResult, Refs};
use crate::image::Platform;

/// Declares the platforms of a result.
const PLATFORMS: &str = "refs.platforms";

#[derive(serde::Deserialize)]
struct Declared {
    #[serde(rename = "Platforms", default)]
    platforms: Vec<Named>,
}

#[derive(serde::Deserialize)]
struct Named {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

/// The platform that an image config is for.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    architecture: String,
    os: String,
    variant: String,
    #[serde(rename = "os.version")]
    os_version: String,
}

impl FrontendResult {
    /// The platforms in the order in which they were asked for, with their ids. Where the frontend
    /// says nothing, it is the image config's, or else this daemon's.
    pub(crate) fn platforms(&self) -> anyhow::Result<Vec<(String, Platform)>> {
        if let Some(json) = self.metadata.get(PLATFORMS) {
            let declared: Declared =
                serde_json::from_slice(json).context("invalid declaration of platforms")?;
            if declared.platforms.is_empty() {
                bail!("invalid empty platforms index for exporter");
            }
            if declared.platforms.iter().any(|named| named.id.is_empty()) {
                bail!("invalid empty platform key for exporter");
            }
            let named = declared.platforms.into_iter();
            return Ok(named.map(|named| (named.id, named.platform)).collect());
        }
        if matches!(self.refs, Refs::Many(_)) {
            bail!("cannot export several file systems whose platforms are not declared");
        }
        let platform = match self.metadata.get("containerimage.config") {
            Some(json) => {
                let config: Config =
                    serde_json::from_slice(json).context("invalid image config")?;
                match (config.os.is_empty(), config.architecture.is_empty()) {
                    (true, true) => Platform::host(),
                    (false, false) => Platform {
                        os_version: config.os_version,
                        ..Platform::new(&config.os, &config.architecture, &config.variant)
                    },
                    _ => bail!(
                        "invalid image config: os and architecture must be specified together"
                    ),
                }
            }
            None => Platform::host(),
        };
        Ok(vec![(platform.to_string(), platform)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platforms(key: &str, json: &'static str) -> anyhow::Result<Vec<String>> {
        let metadata = [(key.to_owned(), json.into())].into();
        let result = FrontendResult { metadata, ..FrontendResult::default() };
        let platforms = result.platforms()?;
        Ok(platforms.into_iter().map(|(id, platform)| format!("{id}={platform}")).collect())
    }

    #[test]
    fn a_result_without_platforms_is_for_that_of_its_config() {
        let arm = r#"{ "os": "linux", "architecture": "arm", "variant": "v7" }"#;
        let expected = ["linux/arm/v7=linux/arm/v7"];
        assert_eq!(platforms("containerimage.config", arm).unwrap(), expected);
        let host = Platform::host();
        assert_eq!(platforms("containerimage.config", "{}").unwrap(), [format!("{host}={host}")]);
        assert!(platforms("containerimage.config", r#"{ "os": "linux" }"#).is_err());
    }

    #[test]
    fn declared_platforms_keep_their_ids() {
        let one = r#"{ "Platforms": [{ "ID": "a", "Platform": { "os": "linux",
            "architecture": "arm64" } }] }"#;
        assert_eq!(platforms(PLATFORMS, one).unwrap(), ["a=linux/arm64"]);
        assert!(platforms(PLATFORMS, r#"{ "Platforms": [] }"#).is_err());
    }
}
