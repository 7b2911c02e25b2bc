//! What clients ask of sources without their files.

use bytes::Bytes;
use kiln_cache::Digest;
use kiln_proto::gateway::{
    ResolveSourceGitRequest, ResolveSourceGitResponse, ResolveSourceHttpRequest,
    ResolveSourceHttpResponse, ResolveSourceImageRequest, ResolveSourceImageResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use kiln_proto::{gateway, pb};
use kiln_registry::{ImageRef, RefError};
use prost_types::Timestamp;
use tonic::Status;

use crate::control::to_status;
use crate::frontend::{Assignment, metadata};
use crate::image::{AttestationChain, Platform, Resolve, ResolvedImage};

type Answer = Result<ResolveSourceMetaResponse, Status>;

/// Looks up what is asked of a source. The build's policy has no say in it.
pub(crate) async fn source_meta(work: &Assignment, request: ResolveSourceMetaRequest) -> Answer {
    let source = request.source.unwrap_or_default();
    let platform = request.platform.as_ref().map_or_else(Platform::host, Platform::from);
    let identifier = source.identifier.clone();
    match identifier.split_once("://") {
        Some(("docker-image", name)) => {
            let mode = Resolve::parse(&request.resolve_mode)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let asked = request.image.unwrap_or_default();
            image(work, name, source, &platform, mode, &asked, &request.log_name).await
        }
        Some(("oci-layout", name)) => {
            layout(work, name, source, &platform, &request.log_name).await
        }
        Some(("http" | "https", _)) => http(work, request.http, source, &request.log_name).await,
        Some(("git", _)) => git(work, request.git, source, &request.log_name).await,
        // There is nothing to be said of a client's directory.
        Some(("local", _)) => Ok(ResolveSourceMetaResponse {
            source: Some(source),
            ..ResolveSourceMetaResponse::default()
        }),
        _ => {
            let what = format!("metadata of {identifier:?} is not supported by this daemon yet");
            Err(Status::unimplemented(what))
        }
    }
}

/// A file of a web server.
async fn http(
    work: &Assignment,
    request: Option<ResolveSourceHttpRequest>,
    source: pb::SourceOp,
    log_name: &str,
) -> Answer {
    if request.is_some_and(|request| request.checksum_request.is_some()) {
        let what = "a checksum with a suffix is not supported by this daemon yet";
        return Err(Status::unimplemented(what));
    }
    let found = metadata::http_metadata(work, &source, log_name)
        .await
        .map_err(|error| to_status(&error))?;
    let http = ResolveSourceHttpResponse {
        checksum: found.digest.to_string(),
        filename: found.filename,
        last_modified: found.last_modified.map(|seconds| Timestamp { seconds, nanos: 0 }),
        checksum_response: None,
    };
    let (source, http) = (Some(source), Some(http));
    Ok(ResolveSourceMetaResponse { source, http, ..Default::default() })
}

/// A branch, tag or commit of a git repository.
async fn git(
    work: &Assignment,
    request: Option<ResolveSourceGitRequest>,
    source: pb::SourceOp,
    log_name: &str,
) -> Answer {
    let wants_objects = request.is_some_and(|request| request.return_object);
    let (resolved, objects) = metadata::git_metadata(work, &source, wants_objects, log_name)
        .await
        .map_err(|error| to_status(&error))?;
    let objects = objects.unwrap_or_default();
    let commit = objects.commit_id.or(resolved.commit);
    let git = ResolveSourceGitResponse {
        checksum: resolved.checksum,
        r#ref: resolved.reference,
        commit_checksum: commit.unwrap_or_default(),
        commit_object: objects.commit.into(),
        tag_object: objects.tag.unwrap_or_default().into(),
    };
    let (source, git) = (Some(source), Some(git));
    Ok(ResolveSourceMetaResponse { source, git, ..Default::default() })
}

/// An image of a registry, or of the daemon's own store, and what is attested of it.
async fn image(
    work: &Assignment,
    name: &str,
    source: pb::SourceOp,
    platform: &Platform,
    mode: Resolve,
    asked: &ResolveSourceImageRequest,
    log_name: &str,
) -> Answer {
    let image: ImageRef =
        name.parse().map_err(|error: RefError| Status::invalid_argument(error.to_string()))?;
    let found = metadata::load(work, &image, platform, mode, log_name).await;
    let found = found.map_err(|error| to_status(&error))?;
    let mut answer = of_image(&found);
    if asked.no_config {
        answer.config = Bytes::new();
    }
    if asked.attestation_chain || !asked.resolve_attestations.is_empty() {
        let predicates = &asked.resolve_attestations;
        let chain = AttestationChain::resolve(work, &image, &found, platform, predicates).await;
        let chain = chain.map_err(|error| to_status(&error.into()))?;
        answer.attestation_chain = chain.map(chain_message);
    }
    let (source, image) = (Some(source), Some(answer));
    Ok(ResolveSourceMetaResponse { source, image, ..Default::default() })
}

fn chain_message(chain: AttestationChain) -> gateway::AttestationChain {
    let blobs = chain.blobs.into_iter().map(|(blob, data)| {
        let descriptor = gateway::Descriptor {
            media_type: blob.media_type,
            digest: blob.digest.to_string(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            annotations: blob.annotations,
        };
        let digest = descriptor.digest.clone();
        (digest, gateway::Blob { descriptor: Some(descriptor), data: data.into() })
    });
    let text = |digest: Option<Digest>| digest.map(|it| it.to_string()).unwrap_or_default();
    gateway::AttestationChain {
        root: chain.root.to_string(),
        image_manifest: chain.image.to_string(),
        attestation_manifest: text(chain.attestation),
        signature_manifests: chain.signature.iter().map(ToString::to_string).collect(),
        blobs: blobs.collect(),
    }
}

/// An image of an OCI layout that the client serves.
async fn layout(
    work: &Assignment,
    name: &str,
    source: pb::SourceOp,
    platform: &Platform,
    log_name: &str,
) -> Answer {
    let found = metadata::layout_metadata(work, &source, name, platform, log_name).await;
    let found = found.map_err(|error| to_status(&error))?;
    let (source, image) = (Some(source), Some(of_image(&found)));
    Ok(ResolveSourceMetaResponse { source, image, ..Default::default() })
}

fn of_image(found: &ResolvedImage) -> ResolveSourceImageResponse {
    ResolveSourceImageResponse {
        digest: found.digest.to_string(),
        config: found.config.clone().into(),
        attestation_chain: None,
    }
}
