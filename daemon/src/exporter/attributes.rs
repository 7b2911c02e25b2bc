//! An exporter's attributes: read by name, and none may be left over.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use crate::compression::Format;

/// The attributes of one exporter that were not read yet.
pub(super) struct Attributes {
    exporter: String,
    left: BTreeMap<String, String>,
}

/// How layers and manifests are written.
#[derive(Clone, Debug)]
pub(super) struct ImageOptions {
    pub(super) names: Vec<String>,
    pub(super) oci_mediatypes: bool,
    pub(super) compression: Format,
    pub(super) force_compression: bool,
    /// Seconds since 1970: the newest time that may appear in the image.
    pub(super) epoch: Option<i64>,
    pub(super) rewrite_timestamp: bool,
    pub(super) annotations: Annotations,
}

/// Annotations by what they are put on.
#[derive(Clone, Debug, Default)]
pub(super) struct Annotations {
    pub(super) manifest: BTreeMap<String, String>,
    pub(super) manifest_descriptor: BTreeMap<String, String>,
    pub(super) index: BTreeMap<String, String>,
}

impl Attributes {
    pub(super) fn new(exporter: &str, given: &BTreeMap<String, String>) -> Self {
        Self { exporter: exporter.to_owned(), left: given.clone() }
    }

    /// The value of an attribute, if it was given.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    /// A switch; one without a value is on.
    pub(super) fn flag(&mut self, name: &str, default: bool) -> anyhow::Result<bool> {
        match self.left.remove(name).as_deref() {
            None => Ok(default),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => bail!("{} exporter: {name}={other:?} is not a boolean", self.exporter),
        }
    }

    /// The attributes that all exporters of images share.
    pub(super) fn image(&mut self) -> anyhow::Result<ImageOptions> {
        let names = self.take("name").unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty() && *name != "*");
        let names = names.map(str::to_owned).collect();
        let epoch = match self.take("source-date-epoch").filter(|text| !text.is_empty()) {
            Some(text) => {
                Some(text.parse().with_context(|| format!("invalid source-date-epoch {text:?}"))?)
            }
            None => None,
        };
        let level = match self.take("compression-level") {
            Some(text) => {
                let level = text.parse();
                Some(level.with_context(|| format!("invalid compression-level {text:?}"))?)
            }
            None => None,
        };
        let compression = Format::parse(self.take("compression").as_deref(), level)?;
        Ok(ImageOptions {
            names,
            oci_mediatypes: self.flag("oci-mediatypes", true)?,
            compression,
            force_compression: self.flag("force-compression", false)?,
            epoch,
            rewrite_timestamp: self.flag("rewrite-timestamp", false)?,
            annotations: self.annotations()?,
        })
    }

    /// `annotation.KEY`, `annotation-manifest.KEY`, `annotation-index.KEY`, …
    fn annotations(&mut self) -> anyhow::Result<Annotations> {
        let mut found = Annotations::default();
        let names: Vec<String> =
            self.left.keys().filter(|name| name.starts_with("annotation")).cloned().collect();
        for name in names {
            let Some((kind, key)) = name.split_once('.') else { continue };
            let target = match kind {
                "annotation" | "annotation-manifest" => &mut found.manifest,
                "annotation-manifest-descriptor" => &mut found.manifest_descriptor,
                "annotation-index" => &mut found.index,
                _ => bail!("{} exporter: {name:?} is not supported by this daemon", self.exporter),
            };
            if let Some(value) = self.left.remove(&name) {
                target.insert(key.to_owned(), value);
            }
        }
        Ok(found)
    }

    /// Refuses what nobody read.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.left.into_iter().next() {
            None => Ok(()),
            Some((name, value)) => {
                bail!("{} exporter: attribute {name}={value:?} is not supported", self.exporter)
            }
        }
    }
}

impl ImageOptions {
    /// Refuses combinations that the formats do not have.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if !self.oci_mediatypes && matches!(self.compression, Format::Zstd(_)) {
            bail!("compression=zstd needs oci-mediatypes=true");
        }
        let annotations = &self.annotations;
        let is_annotated = !annotations.manifest.is_empty() || !annotations.index.is_empty();
        if !self.oci_mediatypes && is_annotated {
            bail!("annotations need oci-mediatypes=true");
        }
        Ok(())
    }
}
