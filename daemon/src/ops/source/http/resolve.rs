//! Finding out what a file is at the moment.

use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt as _;
use kiln_cache::{CacheKey, Digest, Record, RecordType, key_of};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::HttpSource;
use super::download::{Downloaded, download};
use super::request::{self, Said};
use crate::solver::{Build, SolveError, Stack, VertexProgress};

/// What a file is at the moment.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) digest: Digest,
    pub(crate) filename: String,
    /// In seconds.
    pub(crate) last_modified: Option<i64>,
    pub(crate) files: Stack,
    /// Whether it was downloaded by an earlier build.
    pub(super) was_here: bool,
}

impl Resolved {
    /// The digest of the op that the file is known by.
    pub(super) fn op(&self, source: &HttpSource) -> anyhow::Result<Digest> {
        source.content_key(&self.filename, &self.digest, self.last_modified)
    }

    /// What the file is known by.
    pub(super) fn key(&self, source: &HttpSource) -> anyhow::Result<CacheKey> {
        Ok(key_of(&self.op(source)?, 0, &[]))
    }
}

/// What is kept of an answer, with the layer that the file is in.
#[derive(Serialize, Deserialize)]
struct Kept {
    etag: String,
    digest: Digest,
    filename: String,
    last_modified: Option<i64>,
}

/// A file that was downloaded before and may be what the server still has.
struct Candidate {
    kept: Kept,
    files: Stack,
}

/// What can be said of a file without having it, where that is possible.
pub(crate) struct Metadata {
    pub(crate) digest: Digest,
    pub(crate) filename: String,
    pub(crate) last_modified: Option<i64>,
}

/// What clients ask of a file. One with a checksum is not looked at.
pub(crate) async fn metadata(
    build: &Arc<Build>,
    source: &HttpSource,
    progress: &VertexProgress,
) -> anyhow::Result<Metadata> {
    if let Some(digest) = source.checksum {
        return Ok(Metadata { digest, filename: source.file_name(None), last_modified: None });
    }
    let found = resolve(build, source, progress).await?;
    let filename = found.filename.clone();
    Ok(Metadata { digest: found.digest, filename, last_modified: found.last_modified })
}

/// Asks the server, once in a build, and downloads the file if it is not the one that is here.
pub(super) async fn resolve(
    build: &Arc<Build>,
    source: &HttpSource,
    progress: &VertexProgress,
) -> anyhow::Result<Arc<Resolved>> {
    let key = source.url_key();
    let (task_build, source, progress) = (build.clone(), source.clone(), progress.clone());
    let compute = move || {
        async move { Ok(Arc::new(resolve_now(&task_build, &source, &progress).await?)) }.boxed()
    };
    build.http.get(key, compute).await.map_err(SolveError::into_cause)
}

async fn resolve_now(
    build: &Arc<Build>,
    source: &HttpSource,
    progress: &VertexProgress,
) -> anyhow::Result<Resolved> {
    let candidate = candidate(build, source)?;
    if let Some(candidate) = &candidate
        && let Some(resolved) = unchanged(build, source, candidate).await
    {
        return Ok(resolved);
    }
    let etag = candidate.as_ref().map(|candidate| candidate.kept.etag.as_str());
    let response = request::get(build, source, etag).await?;
    match candidate {
        Some(candidate) if response.status() == StatusCode::NOT_MODIFIED => {
            Ok(candidate.resolved())
        }
        _ => {
            let downloaded = download(build, source, response, progress).await?;
            keep(build, source, downloaded)
        }
    }
}

/// Whether the server has what is here. Any answer but a clear one is none.
async fn unchanged(
    build: &Arc<Build>,
    source: &HttpSource,
    candidate: &Candidate,
) -> Option<Resolved> {
    let response = request::head(build, source, &candidate.kept.etag).await.ok()?;
    let said = Said::of(response.headers());
    let is_same = match (response.status(), &said.etag) {
        // Who answers so and names no version means the one that was asked about.
        (StatusCode::NOT_MODIFIED, None) => true,
        (StatusCode::NOT_MODIFIED | StatusCode::OK, Some(etag)) => *etag == candidate.kept.etag,
        _ => false,
    };
    is_same.then(|| candidate.resolved())
}

impl Candidate {
    /// The candidate is what the server has. A server that names the file otherwise now has not
    /// made another file of it: it is here under its old name.
    fn resolved(&self) -> Resolved {
        Resolved {
            digest: self.kept.digest,
            filename: self.kept.filename.clone(),
            last_modified: self.kept.last_modified,
            files: self.files.clone(),
            was_here: true,
        }
    }
}

/// The file that was downloaded from there last, if it is still here.
fn candidate(build: &Build, source: &HttpSource) -> anyhow::Result<Option<Candidate>> {
    let key = source.url_key();
    let index = &build.daemon.index;
    let Some(hit) = index.lookup(&[key])? else { return Ok(None) };
    let [layer] = hit.row.result.as_slice() else { return Ok(None) };
    let kept = index.layer_data(*layer, &data_name(key))?;
    let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(kept) = kept else { return Ok(None) };
    if !build.is_obtainable(&hit.row.result)? {
        return Ok(None);
    }
    Ok(Some(Candidate { kept, files: Stack::new(hit.row.result, hit.pin) }))
}

/// Records a download by its content and, if the server can say whether it has changed, by its
/// address.
fn keep(build: &Build, source: &HttpSource, downloaded: Downloaded) -> anyhow::Result<Resolved> {
    let Downloaded { digest, filename, said, files } = downloaded;
    let last_modified = said.last_modified;
    let resolved = Resolved { digest, filename, last_modified, files, was_here: false };
    let index = &build.daemon.index;
    let url_key = source.url_key();
    let record = Record {
        key: resolved.key(source)?,
        op: resolved.op(source)?,
        output: 0,
        inputs: Vec::new(),
        result: resolved.files.ids().to_vec(),
        description: source.shown(),
        record_type: RecordType::Regular,
        created_at: SystemTime::now(),
        duration: None,
    };
    let aliases = if said.etag.is_some() { vec![url_key] } else { Vec::new() };
    if let (Some(etag), [layer]) = (said.etag, resolved.files.ids()) {
        let filename = resolved.filename.clone();
        let kept = Kept { etag, digest, filename, last_modified: said.last_modified };
        // By address: the same file may be had from several, which tell versions apart by
        // themselves.
        index.put_layer_data(*layer, &data_name(url_key), &serde_json::to_vec(&kept)?)?;
    }
    build.hold(index.save(record, &kiln_cache::KeyParts::default(), &aliases, &[])?);
    Ok(resolved)
}

fn data_name(url_key: CacheKey) -> String {
    format!("http:{url_key}")
}
