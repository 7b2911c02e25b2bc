//! What is attested of an image, beside it in its index: a manifest whose layers are in-toto
//! statements (moby/buildkit, `docs/attestations/attestation-storage.md`).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use kiln_cache::{Descriptor, Digest};
use kiln_registry::ImageRef;
use serde_json::{Value, json};

use super::image::AssembledImage;
use super::options::ImageOptions;
use super::{Part, spdx};
use crate::attestation::{MEDIA_TYPE, PREDICATE_TYPE, SPDX, Statement, StatementSubject, unbundle};
use crate::image::{Platform, manifest};
use crate::provenance::{PurlKind, image_purl};
use crate::solver::{Build, VertexProgress};

const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// A manifest of statements, in the content store like all that it refers to.
pub(super) struct AttestationManifest {
    pub(super) manifest: Descriptor,
    pub(super) config: Descriptor,
    pub(super) statements: Vec<Descriptor>,
}

/// The platform of manifests that are for none.
pub(super) fn platform() -> Platform {
    Platform {
        os: "unknown".to_owned(),
        architecture: "unknown".to_owned(),
        variant: String::new(),
        os_version: String::new(),
    }
}

/// Writes what is attested of `part`, which was made into `image`; none if nothing is.
pub(super) async fn write(
    build: &Arc<Build>,
    part: &Part,
    image: &AssembledImage,
    options: &ImageOptions,
    vertex: &VertexProgress,
) -> anyhow::Result<Option<AttestationManifest>> {
    if part.attestations.is_empty() {
        return Ok(None);
    }
    if !options.oci_mediatypes {
        bail!("cannot export attestations with \"oci-mediatypes=false\"");
    }
    let subjects = subjects(part, image, options);
    let mut statements = Vec::new();
    for (attestation, mut predicate) in unbundle(build, &part.attestations).await? {
        if attestation.predicate_type == SPDX && attestation.is_core_sbom() {
            predicate = spdx::with_layers(build, predicate, &part.stack, &image.layers).await?;
        }
        let statement = Statement::new(&attestation, predicate, &subjects);
        let json = serde_json::to_vec(&statement)?;
        let mut blob = Descriptor::new(MEDIA_TYPE, build.store_small(&json)?, json.len() as u64);
        blob.annotations.insert(PREDICATE_TYPE.to_owned(), attestation.predicate_type.clone());
        statements.push(blob);
    }
    let config = if options.oci_artifact { EMPTY.to_vec() } else { image_config(&statements)? };
    let config_type = if options.oci_artifact { EMPTY_CONFIG } else { manifest::OCI_CONFIG };
    let config = Descriptor::new(config_type, build.store_small(&config)?, config.len() as u64);
    let json = manifest_of(&config, &statements, &image.manifest, options.oci_artifact)?;
    let digest = build.store_small(&json)?;
    drop(vertex.status(format!("exporting attestation manifest {digest}")));
    let mut manifest = Descriptor::new(manifest::OCI_MANIFEST, digest, json.len() as u64);
    manifest.annotations = BTreeMap::from([
        (manifest::REFERENCE_DIGEST.to_owned(), image.manifest.digest.to_string()),
        (manifest::REFERENCE_TYPE.to_owned(), manifest::ATTESTATION.to_owned()),
    ]);
    Ok(Some(AttestationManifest { manifest, config, statements }))
}

/// The image under each of its names.
fn subjects(part: &Part, image: &AssembledImage, options: &ImageOptions) -> Vec<StatementSubject> {
    let digest = image.manifest.digest.to_hex();
    let subject = |name: &String| {
        // Told with the tag that it gets.
        let reference = name.parse::<ImageRef>().map_or_else(|_| name.clone(), |it| it.to_string());
        let platform = Some(&part.platform);
        StatementSubject {
            name: image_purl(PurlKind::Docker, &reference, platform, &[]),
            digest: [("sha256".to_owned(), digest.clone())].into(),
        }
    };
    options.names.iter().map(subject).collect()
}

/// A config for registries that know images only.
fn image_config(statements: &[Descriptor]) -> serde_json::Result<Vec<u8>> {
    let diff_ids: Vec<String> = statements.iter().map(|blob| blob.digest.to_string()).collect();
    serde_json::to_vec(&json!({
        "architecture": platform().architecture,
        "os": platform().os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
}

fn manifest_of(
    config: &Descriptor,
    statements: &[Descriptor],
    image: &Descriptor,
    is_artifact: bool,
) -> serde_json::Result<Vec<u8>> {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest::OCI_MANIFEST,
        "config": config,
        "layers": statements,
    });
    if is_artifact {
        debug_assert_eq!(config.digest, Digest::of(EMPTY));
        manifest["artifactType"] = ARTIFACT_TYPE.into();
        manifest["config"]["data"] = crate::graph::go_json::bytes(EMPTY).into();
        let mut subject: Value = serde_json::to_value(image)?;
        if let Some(subject) = subject.as_object_mut() {
            subject.remove("annotations");
        }
        manifest["subject"] = subject;
    }
    serde_json::to_vec_pretty(&manifest)
}
