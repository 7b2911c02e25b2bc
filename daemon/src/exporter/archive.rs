//! `type=oci` and `type=docker`: an image as a tar file, or as a tree of blobs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_cache::{ContentStore, Digest};
use kiln_registry::ImageRef;
use serde_json::{Value, json};

use super::attributes::Attributes;
use super::image::{Assembled, assemble, response};
use super::{Part, push, send};
use crate::solver::Build;

/// Which layout a tar file has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The OCI image layout.
    Oci,
    /// The OCI image layout with the `manifest.json` that `docker load` reads.
    Docker,
}

pub(super) async fn export(
    build: &Arc<Build>,
    parts: &[Part],
    mut attributes: Attributes,
    id: &str,
    kind: Kind,
) -> anyhow::Result<BTreeMap<String, String>> {
    let options = attributes.image()?;
    options.check()?;
    if !attributes.flag("tar", true)? {
        bail!("tar=false is not supported by this daemon yet");
    }
    attributes.finish()?;
    if kind == Kind::Docker && parts.iter().any(|part| !part.id.is_empty()) {
        bail!("docker exporter does not support exporting manifest lists");
    }
    let name = match kind {
        Kind::Oci => "exporting to oci image format",
        Kind::Docker => "exporting to docker image format",
    };
    let vertex = build.progress.internal(&format!("export:{id}"), name);
    let work = async {
        let assembled = assemble(build, parts, &options, &vertex).await?;
        let names: Vec<ImageRef> =
            options.names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        for one in &assembled.images {
            for layer in &one.layers {
                if build.daemon.index.blob(&layer.descriptor.digest)?.is_none() {
                    push::fetch_blob(build, layer).await?;
                }
            }
        }
        let response = response(&assembled, &names);
        let session = build.session()?.clone();
        let content = build.daemon.content.clone();
        let _status = vertex.status("sending tarball");
        let write = move |out: &mut dyn Write| write(&content, &assembled, &names, kind, out);
        send::stream(&session, id, &response, write).await?;
        anyhow::Ok(response)
    };
    vertex.run(work).await
}

/// Writes the tar file: blobs in the order of their digests, then the index. Equal images are
/// equal files.
fn write(
    content: &ContentStore,
    assembled: &Assembled,
    names: &[ImageRef],
    kind: Kind,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(out);
    let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
    blobs.insert(assembled.target.digest, assembled.target.size);
    for one in &assembled.images {
        blobs.insert(one.manifest.digest, one.manifest.size);
        blobs.insert(one.config.digest, one.config.size);
        for layer in &one.layers {
            blobs.insert(layer.descriptor.digest, layer.descriptor.size);
        }
    }
    directory(&mut tar, "blobs/")?;
    directory(&mut tar, "blobs/sha256/")?;
    for (digest, size) in blobs {
        let blob = content.open_blob(&digest)?;
        file(&mut tar, &blob_path(&digest), size, blob)?;
    }
    let index = serde_json::to_vec(&index(assembled, names))?;
    file(&mut tar, "index.json", index.len() as u64, index.as_slice())?;
    if kind == Kind::Docker {
        let manifest = serde_json::to_vec(&docker_manifest(assembled, names)?)?;
        file(&mut tar, "manifest.json", manifest.len() as u64, manifest.as_slice())?;
    }
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    file(&mut tar, "oci-layout", layout.len() as u64, layout.as_slice())?;
    tar.finish().context("cannot finish the archive")?;
    Ok(())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn directory(tar: &mut tar::Builder<&mut dyn Write>, path: &str) -> anyhow::Result<()> {
    let mut header = header(tar::EntryType::Directory, 0o755, 0);
    tar.append_data(&mut header, path, std::io::empty()).with_context(|| path.to_owned())
}

fn file(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    size: u64,
    content: impl Read,
) -> anyhow::Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o444, size);
    tar.append_data(&mut header, path, content).with_context(|| path.to_owned())
}

/// `index.json`: the image under each of its names (OCI image spec, "Image Layout").
fn index(assembled: &Assembled, names: &[ImageRef]) -> Value {
    let target = &assembled.target;
    let entry = |name: Option<&ImageRef>| {
        let mut entry = json!({
            "mediaType": target.media_type,
            "digest": target.digest.to_string(),
            "size": target.size,
        });
        if let Some(name) = name {
            entry["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag().unwrap_or("latest"),
            });
        }
        entry
    };
    let entries: Vec<Value> = if names.is_empty() {
        vec![entry(None)]
    } else {
        names.iter().map(|name| entry(Some(name))).collect()
    };
    json!({
        "schemaVersion": 2,
        "mediaType": crate::image::manifest::OCI_INDEX,
        "manifests": entries,
    })
}

/// `manifest.json`, as `docker load` reads it.
fn docker_manifest(assembled: &Assembled, names: &[ImageRef]) -> anyhow::Result<Value> {
    let [image] = assembled.images.as_slice() else { bail!("docker load takes one image") };
    let layers: Vec<String> =
        image.layers.iter().map(|layer| blob_path(&layer.descriptor.digest)).collect();
    let tags: Vec<String> = names.iter().map(ImageRef::familiar).collect();
    Ok(json!([{
        "Config": blob_path(&image.config.digest),
        "RepoTags": if tags.is_empty() { Value::Null } else { tags.into() },
        "Layers": layers,
    }]))
}
