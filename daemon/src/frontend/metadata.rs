//! What frontends ask of sources without their files, each shown as one step.

use std::sync::Arc;

use anyhow::Context as _;
use kiln_proto::pb;
use kiln_proto::pb::op::Op;
use kiln_registry::ImageRef;

use super::Assignment;
use crate::compression::Decoder;
use crate::graph::{Edge, Vertex};
use crate::image::{Platform, Resolve, ResolvedImage, resolve};
use crate::ops::source::{git, http, is_stream, oci_layout, without_credentials};
use crate::policy::{SourcePolicy, Wanted};
use crate::provenance::ImageSource;
use crate::solver::{Build, SolveError, VertexProgress};

/// Resolves `image`; the step is called `log_name`, or by BuildKit's name if that is empty.
pub(crate) async fn load(
    work: &Assignment,
    image: &ImageRef,
    platform: &Platform,
    mode: Resolve,
    log_name: &str,
) -> Result<ResolvedImage, SolveError> {
    let name = if log_name.is_empty() {
        format!("[internal] load metadata for {image}")
    } else {
        log_name.to_owned()
    };
    let vertex = work.progress.internal(&format!("metadata:{image}:{platform}"), &name);
    let resolved = vertex.run(resolve(work, image, platform, mode)).await?;
    work.note_image(ImageSource::in_registry(image.to_string(), platform, resolved.digest));
    Ok(resolved)
}

/// A policy makes something else than an image of an image.
#[derive(Debug, thiserror::Error)]
#[error("ref {image} was converted by policy to non-image {updated}")]
pub(crate) struct NotAnImage {
    image: String,
    /// The identifier of the source.
    pub(crate) updated: String,
}

/// What `policy` makes of a source that is to be looked up.
pub(crate) async fn permitted(
    build: &Arc<Build>,
    policy: &SourcePolicy,
    wanted: Wanted,
) -> Result<Wanted, SolveError> {
    let decided = policy.decide(build, wanted).await;
    Ok(decided.context("could not resolve image due to policy")?)
}

/// [Loads](load) the image that `policy` makes of `image`, and says which it is.
pub(crate) async fn load_permitted(
    work: &Assignment,
    policy: &SourcePolicy,
    image: &ImageRef,
    platform: &Platform,
    mode: Resolve,
    log_name: &str,
) -> Result<(ImageRef, ResolvedImage), SolveError> {
    let mut image = image.clone();
    if !policy.is_empty() {
        let wanted = Wanted::image(&image, Some(platform.to_pb()));
        let updated = permitted(work, policy, wanted).await?.source.identifier;
        let Some(name) = updated.strip_prefix("docker-image://") else {
            return Err(NotAnImage { image: image.to_string(), updated }.into());
        };
        image = name.parse()?;
    }
    let resolved = load(work, &image, platform, mode, log_name).await?;
    Ok((image, resolved))
}

/// What a web server says of a file; the step is called `log_name`, or something like it if that is
/// empty.
pub(crate) async fn http_metadata(
    build: &Arc<Build>,
    op: &pb::SourceOp,
    log_name: &str,
) -> Result<http::Metadata, SolveError> {
    let vertex = source_vertex(build, op, log_name);
    let work = async {
        let source = http::HttpSource::parse(op)?;
        http::metadata(build, &source, &vertex).await
    };
    Ok(vertex.run(work).await?)
}

/// What an OCI layout of the client says of an image.
pub(crate) async fn layout_metadata(
    work: &Assignment,
    op: &pb::SourceOp,
    name: &str,
    platform: &Platform,
    log_name: &str,
) -> Result<ResolvedImage, SolveError> {
    let vertex = source_vertex(work, op, log_name);
    let resolved = vertex.run(oci_layout::resolve(work, op, name, platform)).await?;
    work.note_image(ImageSource::in_layout(name.to_owned(), platform, resolved.digest));
    Ok(resolved)
}

/// What a repository says of a branch, tag or commit, and its objects if they are wanted.
pub(crate) async fn git_metadata(
    build: &Arc<Build>,
    op: &pb::SourceOp,
    wants_objects: bool,
    log_name: &str,
) -> Result<(git::Resolved, Option<git::Objects>), SolveError> {
    let vertex = source_vertex(build, op, log_name);
    let work = async {
        let source = git::GitSource::parse(op)?;
        git::metadata(build, &source, wants_objects, &vertex).await
    };
    Ok(vertex.run(work).await?)
}

/// When what a source has was made: a commit, a file of a web server or the newest file of an
/// archive there. Other sources have no time.
pub(crate) async fn source_time(
    work: &Assignment,
    vertex: &Arc<Vertex>,
    log_name: &str,
) -> Result<Option<i64>, SolveError> {
    let vertex = &work.admit(&vertex.output(0)).await?.vertex;
    let Op::Source(op) = vertex.op() else { return Ok(None) };
    match op.identifier.split_once("://") {
        Some(("http" | "https", rest)) => {
            if !is_stream(rest)
                && let Some(time) = http_metadata(work, op, log_name).await?.last_modified
            {
                return Ok(Some(time));
            }
            let Some(name) = op.attrs.get("http.filename") else { return Ok(None) };
            newest_file(work, &vertex.output(0), name).await
        }
        Some(("git", _)) => {
            let (_, objects) = git_metadata(work, op, true, log_name).await?;
            Ok(objects.and_then(|objects| objects.time()))
        }
        _ => Ok(None),
    }
}

/// The time of the newest file of an archive; none if the file is none.
async fn newest_file(
    work: &Assignment,
    files: &Edge,
    name: &str,
) -> Result<Option<i64>, SolveError> {
    let snapshot = work.look_at(files).await?;
    work.daemon.layers.fetch(work, &snapshot).await?;
    let view = work.daemon.layers.view(&snapshot)?;
    let file = view.open(name).map_err(anyhow::Error::from)?;
    let newest = move || newest_entry(file).ok().flatten();
    Ok(tokio::task::spawn_blocking(newest).await?)
}

fn newest_entry(file: std::fs::File) -> std::io::Result<Option<i64>> {
    let mut archive = tar::Archive::new(Decoder::detect(file)?);
    let mut newest = None;
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            newest = newest.max(i64::try_from(entry.header().mtime()?).ok());
        }
    }
    Ok(newest)
}

fn source_vertex(build: &Build, op: &pb::SourceOp, log_name: &str) -> VertexProgress {
    let shown = without_credentials(&op.identifier);
    let name = match log_name {
        "" => format!("[internal] load metadata for {shown}"),
        name => name.to_owned(),
    };
    build.progress.internal(&format!("metadata:{}:{name}", op.identifier), &name)
}
