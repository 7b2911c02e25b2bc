//! What others attested of an image: from its index to the manifest of what is attested, and on to
//! the signature of that.

use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{Descriptor, Digest};
use kiln_registry::ImageRef;

use super::manifest::{self, Index, Manifest};
use super::resolve::small_blob;
use super::{Origin, Platform, ResolvedImage};
use crate::attestation::PREDICATE_TYPE;
use crate::solver::Build;

/// Types of signatures, the better one first.
const SIGNATURES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
];

/// A chain of digests, and the blobs that it takes to check it. They are not checked here but for
/// their digests.
pub(crate) struct AttestationChain {
    /// The index.
    pub(crate) root: Digest,
    /// The manifest of the platform.
    pub(crate) image: Digest,
    /// The manifest of what is attested of that.
    pub(crate) attestation: Option<Digest>,
    /// The manifest of that one's signature.
    pub(crate) signature: Option<Digest>,
    pub(crate) blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl AttestationChain {
    /// The chain of `resolved`, with the statements that have one of the types `predicates`. An
    /// image without an index has none.
    pub(crate) async fn resolve(
        build: &Arc<Build>,
        image: &ImageRef,
        resolved: &ResolvedImage,
        platform: &Platform,
        predicates: &[String],
    ) -> anyhow::Result<Option<Self>> {
        let origin = resolved.origin.as_ref();
        let root = resolved.digest;
        if root == resolved.manifest {
            return Ok(None);
        }
        let bytes = small_blob(build, origin, &Descriptor::new("", root, 0)).await?;
        let index: Index = manifest::parse("image index", &bytes)?;
        let chosen = index.choose(platform)?.digest;
        let size = bytes.len() as u64;
        let mut chain = Self {
            root,
            image: chosen,
            attestation: None,
            signature: None,
            blobs: vec![(Descriptor::new(manifest::OCI_INDEX, root, size), bytes)],
        };
        let Some(attestation) = index.attestation_of(&chosen) else { return Ok(Some(chain)) };
        chain.attestation = Some(attestation.digest);
        let statements = chain.add_manifest(build, origin, attestation).await?;
        for statement in statements {
            let kind = statement.annotations.get(PREDICATE_TYPE);
            if kind.is_some_and(|kind| predicates.contains(kind)) {
                chain.add(build, origin, statement).await?;
            }
        }
        // Only a registry can say who has signed what.
        if matches!(origin, Some(Origin::Registry(_)))
            && let Some(signature) = signature(build, image, &attestation.digest).await?
        {
            chain.signature = Some(signature.digest);
            for layer in chain.add_manifest(build, origin, &signature).await? {
                chain.add(build, origin, layer).await?;
            }
        }
        Ok(Some(chain))
    }

    /// Adds a manifest, and returns its layers.
    async fn add_manifest(
        &mut self,
        build: &Arc<Build>,
        origin: Option<&Origin>,
        descriptor: &Descriptor,
    ) -> anyhow::Result<Vec<Descriptor>> {
        let bytes = small_blob(build, origin, descriptor).await?;
        let manifest: Manifest = manifest::parse("attestation manifest", &bytes)?;
        self.blobs.push((descriptor.clone(), bytes));
        Ok(manifest.layers)
    }

    async fn add(
        &mut self,
        build: &Arc<Build>,
        origin: Option<&Origin>,
        blob: Descriptor,
    ) -> anyhow::Result<()> {
        let bytes = small_blob(build, origin, &blob).await?;
        self.blobs.push((blob, bytes));
        Ok(())
    }
}

/// The signature of a manifest, in the form that is preferred.
async fn signature(
    build: &Build,
    image: &ImageRef,
    manifest: &Digest,
) -> anyhow::Result<Option<Descriptor>> {
    let referrers = build.registry.referrers(image, &manifest.to_string().parse()?).await;
    let referrers = referrers.with_context(|| format!("cannot tell who has signed {manifest}"))?;
    let of_type = |wanted: &&str| {
        referrers
            .iter()
            .find(|it| it.artifact_type().as_ref().is_some_and(|kind| kind.to_string() == **wanted))
    };
    let Some(found) = SIGNATURES.iter().find_map(of_type) else { return Ok(None) };
    let digest = found.digest().to_string().parse()?;
    let mut descriptor = Descriptor::new(found.media_type().to_string(), digest, found.size());
    let annotations = found.annotations().clone().unwrap_or_default();
    descriptor.annotations = annotations.into_iter().collect();
    Ok(Some(descriptor))
}
