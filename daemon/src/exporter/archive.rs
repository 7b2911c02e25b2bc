//! `type=oci` and `type=docker`: an image as a tar file, or as a tree of blobs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_cache::{ContentStore, Descriptor, Digest};
use kiln_registry::ImageRef;
use serde_json::{Value, json};

use super::image::{Assembled, AssembledImage, assemble, response};
use super::options::ImageOptions;
use super::{Exported, Parts, send};
use crate::attributes::Attributes;
use crate::solver::Build;

/// The content store by which a client receives a layout that is not packed (`tar=false`).
const STORE: &str = "export";

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
    parts: &Parts,
    mut attributes: Attributes,
    id: &str,
    kind: Kind,
) -> anyhow::Result<Exported> {
    let options = ImageOptions::take(&mut attributes, false)?;
    let is_tar = attributes.flag("tar", true)?;
    attributes.finish()?;
    if kind == Kind::Docker && parts.is_by_platform {
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
                    build.daemon.layers.fetch_blob(build, &layer.row, &layer.descriptor).await?;
                }
            }
        }
        let response = response(&assembled, &names);
        let image = Some(assembled.summary());
        let session = build.session()?.clone();
        if !is_tar {
            let _status = vertex.status("copying files");
            for blob in blobs(&assembled).into_values() {
                let source = build.open_blob(blob.digest);
                session.write_blob(STORE, &blob, source).await?;
            }
            // The client enters the image into the index of its layout.
            return Ok(Exported { response, image });
        }
        let mut sound = Ok(());
        for digest in blobs(&assembled).into_keys() {
            // Once the client has a part of the file, it is too late to make it again. All are
            // looked at, so that what is damaged is made again at once.
            sound = sound.and(build.open_blob(digest).await.map(drop));
        }
        sound?;
        let content = build.daemon.content.clone();
        let _status = vertex.status("sending tarball");
        let write = move |out: &mut dyn Write| write(&content, &assembled, &names, kind, out);
        send::stream(&session, id, &response, write).await?;
        anyhow::Ok(Exported { response, image })
    };
    vertex.run(work).await
}

/// All blobs of an image.
fn blobs(assembled: &Assembled) -> BTreeMap<Digest, Descriptor> {
    let of_image = |one: &AssembledImage| {
        let layers = one.layers.iter().map(|layer| layer.descriptor.clone());
        layers.chain([one.manifest.clone()]).chain(one.small_blobs().cloned()).collect::<Vec<_>>()
    };
    let blobs = assembled.images.iter().flat_map(of_image);
    let blobs = blobs.chain(assembled.inner_manifests().cloned());
    let blobs = blobs.chain([assembled.target.clone()]);
    blobs.map(|blob| (blob.digest, blob)).collect()
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
    directory(&mut tar, "blobs/")?;
    directory(&mut tar, "blobs/sha256/")?;
    for (digest, blob) in blobs(assembled) {
        file(&mut tar, &blob_path(&digest), blob.size, content.open_blob(&digest)?)?;
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
        // An index says itself what it has.
        if let [image] = assembled.images.as_slice()
            && image.manifest.digest == target.digest
        {
            entry["platform"] = json!(image.platform);
        }
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
