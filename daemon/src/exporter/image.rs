//! `type=image`: into the daemon's image store, and to a registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_cache::{Descriptor, Digest, ImageRow};
use kiln_registry::ImageRef;
use serde_json::{Value, json};

use super::blobs::{self, LayerBlob};
use super::options::ImageOptions;
use super::{Exported, Part, config, push};
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
    pub(super) platform: Option<Platform>,
    pub(super) manifest: Descriptor,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<LayerBlob>,
}

pub(super) async fn export(
    build: &Arc<Build>,
    parts: &[Part],
    mut attributes: Attributes,
) -> anyhow::Result<Exported> {
    let options = ImageOptions::take(&mut attributes)?;
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

/// Writes layers, config and manifest of each part, and an index if there are several.
pub(super) async fn assemble(
    build: &Arc<Build>,
    parts: &[Part],
    options: &ImageOptions,
    vertex: &VertexProgress,
) -> anyhow::Result<Assembled> {
    let mut images = Vec::new();
    let mut entries = Vec::new();
    for part in parts {
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
        let image = assemble_one(build, part, layers, cache, options, vertex)?;
        if let Some(platform) = &part.platform {
            let mut entry = serde_json::to_value(&image.manifest)?;
            entry["platform"] = serde_json::to_value(platform)?;
            entries.push(entry);
        }
        images.push(image);
    }
    let has_index = images.len() > 1 || parts.iter().any(|part| !part.id.is_empty());
    let target = match images.as_slice() {
        [single] if !has_index => single.manifest.clone(),
        _ => write_index(build, &entries, options, vertex)?,
    };
    Ok(Assembled { target, images })
}

fn assemble_one(
    build: &Build,
    part: &Part,
    layers: Vec<LayerBlob>,
    cache: Option<String>,
    options: &ImageOptions,
    vertex: &VertexProgress,
) -> anyhow::Result<AssembledImage> {
    let (config, platform) = (part.config.as_deref(), part.platform.as_ref());
    let config = config::complete(config, platform, &layers, options.epoch, cache)?;
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
    Ok(AssembledImage { platform: part.platform.clone(), manifest, config, layers })
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
        blobs.extend([one.manifest.digest, one.config.digest]);
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
    if let [single] = assembled.images.as_slice() {
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
