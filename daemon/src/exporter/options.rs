//! What all exporters of images have in common.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use super::Part;
use crate::attributes::Attributes;
use crate::compression::Format;

/// How layers and manifests are written.
#[derive(Clone, Debug)]
pub(super) struct ImageOptions {
    pub(super) names: Vec<String>,
    pub(super) oci_mediatypes: bool,
    pub(super) compression: Format,
    pub(super) force_compression: bool,
    /// Seconds since 1970: the newest time that may appear in the image.
    pub(super) epoch: Option<i64>,
    /// Whether the client said so itself, even that there is none.
    is_epoch_given: bool,
    pub(super) rewrite_timestamp: bool,
    pub(super) annotations: Annotations,
    /// Whether an image is made an index for nothing but what is usually attested.
    pub(super) attestation_inline: bool,
    /// Whether what is attested is an artifact about the image (OCI image spec 1.1), and not an
    /// image itself.
    pub(super) oci_artifact: bool,
}

/// Annotations by what they are put on.
#[derive(Clone, Debug, Default)]
pub(super) struct Annotations {
    pub(super) manifest: BTreeMap<String, String>,
    pub(super) manifest_descriptor: BTreeMap<String, String>,
    pub(super) index: BTreeMap<String, String>,
}

impl ImageOptions {
    /// Reads the attributes that all exporters of images share.
    pub(super) fn take(
        attributes: &mut Attributes,
        attestation_inline: bool,
    ) -> anyhow::Result<Self> {
        let names = attributes.take("name").unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty() && *name != "*");
        let names = names.map(str::to_owned).collect();
        let epoch = attributes.take("source-date-epoch");
        let is_epoch_given = epoch.is_some();
        let epoch = match epoch.filter(|text| !text.is_empty()) {
            Some(text) => {
                Some(text.parse().with_context(|| format!("invalid source-date-epoch {text:?}"))?)
            }
            None => None,
        };
        let oci_mediatypes = attributes.flag("oci-mediatypes", true)?;
        let options = Self {
            names,
            oci_mediatypes,
            compression: attributes.compression()?,
            force_compression: attributes.flag("force-compression", false)?,
            epoch,
            is_epoch_given,
            rewrite_timestamp: attributes.flag("rewrite-timestamp", false)?,
            annotations: Annotations::take(attributes)?,
            attestation_inline: attributes.flag("attestation-inline", attestation_inline)?,
            oci_artifact: attributes.flag("oci-artifact", oci_mediatypes)?,
        };
        options.check()?;
        Ok(options)
    }

    /// With the time that the frontend says, unless the client says another.
    pub(super) fn of_part(&self, part: &Part) -> Self {
        let mut options = self.clone();
        if !self.is_epoch_given {
            options.epoch = part.epoch;
        }
        options
    }

    /// Refuses combinations that the formats do not have.
    fn check(&self) -> anyhow::Result<()> {
        if !self.oci_mediatypes && matches!(self.compression, Format::Zstd(_)) {
            bail!("compression=zstd needs oci-mediatypes=true");
        }
        if !self.oci_mediatypes && self.oci_artifact {
            bail!("oci-artifact=true needs oci-mediatypes=true");
        }
        let annotations = &self.annotations;
        let is_annotated = !annotations.manifest.is_empty() || !annotations.index.is_empty();
        if !self.oci_mediatypes && is_annotated {
            bail!("annotations need oci-mediatypes=true");
        }
        Ok(())
    }
}

impl Annotations {
    /// `annotation.KEY`, `annotation-manifest.KEY`, `annotation-index.KEY`, …
    fn take(attributes: &mut Attributes) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for (name, value) in attributes.take_all("annotation") {
            let Some((kind, key)) = name.split_once('.') else {
                bail!("{name:?} is not an annotation: annotation.KEY=VALUE is one");
            };
            let target = match kind {
                "annotation" | "annotation-manifest" => &mut found.manifest,
                "annotation-manifest-descriptor" => &mut found.manifest_descriptor,
                "annotation-index" => &mut found.index,
                _ => bail!("{name:?} is not supported by this daemon"),
            };
            target.insert(key.to_owned(), value);
        }
        Ok(found)
    }
}
