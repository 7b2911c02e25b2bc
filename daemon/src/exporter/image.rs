//! `type=image`: into the daemon's image store, and to a registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_cache::{Descriptor, Digest, ImageRow};
use kiln_registry::ImageRef;
use serde_json::{Value, json};

use super::attestation::{self, AttestationManifest};
use super::blobs::{self, LayerBlob};
use super::options::ImageOptions;
use super::{Exported, Part, Parts, config, push};
use crate::attributes::Attributes;
use crate::history::ExportedImage;
use crate::image::{Platform, manifest};
use crate::remote::inline_cache;
use crate::solver::{Build, VertexProgress};

/// An image whose manifests and configs are in the content store.
pub(super) struct Assembled {
    /// The manifest, or an index of several.
    pub(super) target: Descriptor,
    pub(super) images: Vec<AssembledImage>,
}

impl Assembled {
    /// The image without its layers.
    pub(super) fn summary(&self) -> ExportedImage {
        let of_image = |one: &AssembledImage| [one.manifest.digest, one.config.digest];
        let blobs = self.images.iter().flat_map(of_image).chain([self.target.digest]);
        ExportedImage { target: self.target.clone(), blobs: blobs.collect() }
    }
}

/// One platform's image.
pub(super) struct AssembledImage {
    pub(super) platform: Platform,
    pub(super) manifest: Descriptor,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<LayerBlob>,
    /// What is attested of it.
    pub(super) attestations: Option<AttestationManifest>,
}

impl Assembled {
    /// All manifests but the target.
    pub(super) fn inner_manifests(&self) -> impl Iterator<Item = &Descriptor> {
        let manifests = self.images.iter().flat_map(|image| {
            let attestations = image.attestations.as_ref();
            [&image.manifest].into_iter().chain(attestations.map(|it| &it.manifest))
        });
        manifests.filter(|manifest| manifest.digest != self.target.digest)
    }
}

impl AssembledImage {
    /// What its manifests refer to, except for the layers.
    pub(super) fn small_blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let attestations = self.attestations.iter();
        let attested = attestations.flat_map(|it| [&it.config].into_iter().chain(&it.statements));
        [&self.config].into_iter().chain(attested)
    }
}

pub(super) async fn export(
    build: &Arc<Build>,
    parts: &Parts,
    mut attributes: Attributes,
) -> anyhow::Result<Exported> {
    let options = ImageOptions::take(&mut attributes, true)?;
    let push = attributes.flag("push", false)?;
    let push_by_digest = attributes.flag("push-by-digest", false)?;
    let insecure = attributes.flag("registry.insecure", false)?;
    let store = attributes.flag("store", true)?;
    // Layers are kept unpacked whatever it says: they are the build's own results.
    attributes.flag("unpack", false)?;
    let canonical = attributes.flag("name-canonical", false)?;
    let dangling = attributes.take("dangling-name-prefix");
    attributes.finish()?;

    let vertex = build.progress.internal("export:image", "exporting to image");
    let work = async {
        let assembled = assemble(build, parts, &options, &vertex).await?;
        let mut names = options.names.clone();
        if let Some(prefix) = dangling.filter(|_| names.is_empty()) {
            names.push(format!("{prefix}@{}", assembled.target.digest));
        }
        let mut images = Vec::new();
        for name in &names {
            images.push(name.parse::<ImageRef>()?);
        }
        for image in &images {
            if store && !push_by_digest {
                keep(build, image, &assembled, canonical, push)?;
                drop(vertex.status(format!("naming to {image}")));
            }
            if push {
                push::push(build, image, &assembled, push_by_digest, insecure, &vertex).await?;
            }
        }
        anyhow::Ok(Exported {
            response: response(&assembled, &images),
            image: Some(assembled.summary()),
        })
    };
    vertex.run(work).await
}

/// Writes layers, config and manifest of each part, and an index if there are several or if
/// something is attested of them.
pub(super) async fn assemble(
    build: &Arc<Build>,
    parts: &Parts,
    options: &ImageOptions,
    vertex: &VertexProgress,
) -> anyhow::Result<Assembled> {
    let is_attested = |part: &Part| {
        part.attestations.iter().any(|it| options.attestation_inline || !it.is_inline_only())
    };
    let has_index = parts.is_by_platform || parts.all.iter().any(is_attested);
    let mut images = Vec::new();
    let mut entries = Vec::new();
    for part in &parts.all {
        let options = &options.of_part(part);
        let status = vertex.status("exporting layers");
        let layers = blobs::blobs(build, &part.stack, &options.into()).await?;
        drop(status);
        let cache = match &part.cached {
            Some(edge) => {
                let _status = vertex.status("preparing layers for inline cache");
                inline_cache(build, edge, &layers).await?
            }
            None => None,
        };
        let mut image = assemble_one(build, part, layers, cache, options, vertex)?;
        if has_index {
            image.attestations = attestation::write(build, part, &image, options, vertex).await?;
        }
        entries.push(index_entry(&image.manifest, &part.platform)?);
        images.push(image);
    }
    let target = match images.as_slice() {
        [single] if !has_index => single.manifest.clone(),
        _ => {
            let attestations = images.iter().filter_map(|image| image.attestations.as_ref());
            for attestation in attestations {
                entries.push(index_entry(&attestation.manifest, &attestation::platform())?);
            }
            write_index(build, &entries, options, vertex)?
        }
    };
    Ok(Assembled { target, images })
}

fn index_entry(manifest: &Descriptor, platform: &Platform) -> anyhow::Result<Value> {
    let mut entry = serde_json::to_value(manifest)?;
    entry["platform"] = serde_json::to_value(platform)?;
    Ok(entry)
}

fn assemble_one(
    build: &Build,
    part: &Part,
    layers: Vec<LayerBlob>,
    cache: Option<String>,
    options: &ImageOptions,
    vertex: &VertexProgress,
) -> anyhow::Result<AssembledImage> {
    let config = part.config.as_deref();
    let config = config::complete(config, &part.platform, &layers, options.epoch, cache)?;
    let (config_type, manifest_type) = if options.oci_mediatypes {
        (manifest::OCI_CONFIG, manifest::OCI_MANIFEST)
    } else {
        (manifest::DOCKER_CONFIG, manifest::DOCKER_MANIFEST)
    };
    let config = Descriptor::new(config_type, build.store_small(&config)?, config.len() as u64);
    let descriptors: Vec<_> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let annotations = &options.annotations;
    let json =
        manifest::write_manifest(manifest_type, &config, &descriptors, &annotations.manifest)?;
    let digest = build.store_small(&json)?;
    drop(vertex.status(format!("exporting manifest {digest}")));
    drop(vertex.status(format!("exporting config {}", config.digest)));
    let mut manifest = Descriptor::new(manifest_type, digest, json.len() as u64);
    manifest.annotations.clone_from(&annotations.manifest_descriptor);
    let platform = part.platform.clone();
    Ok(AssembledImage { platform, manifest, config, layers, attestations: None })
}

fn write_index(
    build: &Build,
    entries: &[Value],
    options: &ImageOptions,
    vertex: &VertexProgress,
) -> anyhow::Result<Descriptor> {
    let media_type =
        if options.oci_mediatypes { manifest::OCI_INDEX } else { manifest::DOCKER_INDEX };
    let mut index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    if !options.annotations.index.is_empty() {
        index["annotations"] = serde_json::to_value(&options.annotations.index)?;
    }
    let json = serde_json::to_vec_pretty(&index)?;
    let digest = build.store_small(&json)?;
    drop(vertex.status(format!("exporting manifest list {digest}")));
    Ok(Descriptor::new(media_type, digest, json.len() as u64))
}

/// Names the image in the daemon's own store, so that a later `FROM` finds it.
fn keep(
    build: &Build,
    image: &ImageRef,
    assembled: &Assembled,
    canonical: bool,
    is_pushed: bool,
) -> anyhow::Result<()> {
    let index = &build.daemon.index;
    let mut blobs: Vec<Digest> = Vec::new();
    let mut layers = Vec::new();
    for one in &assembled.images {
        blobs.push(one.manifest.digest);
        blobs.extend(one.small_blobs().map(|blob| blob.digest));
        blobs.extend(one.attestations.as_ref().map(|it| it.manifest.digest));
        for layer in &one.layers {
            layers.push(layer.id);
            // A layer that is still only in a registry is fetched from there when it is needed.
            if index.blob(&layer.descriptor.digest)?.is_some() {
                blobs.push(layer.descriptor.digest);
            }
        }
    }
    let row = ImageRow {
        target: assembled.target.clone(),
        blobs,
        layers,
        is_pushed,
        updated_at: SystemTime::now(),
    };
    index.put_image(&image.to_string(), &row)?;
    if canonical {
        let digest = assembled.target.digest.to_string().parse()?;
        index.put_image(&image.with_digest(digest).to_string(), &row)?;
    }
    Ok(())
}

/// What clients are told of an exported image.
pub(super) fn response(assembled: &Assembled, names: &[ImageRef]) -> BTreeMap<String, String> {
    let mut response =
        BTreeMap::from([("containerimage.digest".to_owned(), assembled.target.digest.to_string())]);
    if let [single] = assembled.images.as_slice()
        && single.manifest.digest == assembled.target.digest
    {
        let digest = single.config.digest.to_string();
        response.insert("containerimage.config.digest".into(), digest);
    }
    let descriptor = serde_json::to_vec(&assembled.target).unwrap_or_default();
    response.insert("containerimage.descriptor".into(), STANDARD.encode(descriptor));
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        response.insert("image.name".into(), names.join(","));
    }
    response
}
