//! A client's files: only what changed since the last build of the same directory is sent.

mod receiver;
mod writers;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_proto::fsutil::{DirectoryRequest, ReceiveError, Selection, receive};
use kiln_proto::pb;

use crate::solver::{Build, Outputs, Snapshot, VertexProgress};
use receiver::{Origin, Receiver};

pub(super) async fn load(
    build: &Arc<Build>,
    source: &pb::SourceOp,
    name: &str,
    progress: &VertexProgress,
) -> anyhow::Result<Outputs> {
    let session = match source.attrs.get("local.session") {
        Some(id) if Some(id.as_str()) != build.session_id() => {
            let session = build.daemon.sessions.get(id).await;
            session.with_context(|| format!("no active session for {id}"))?
        }
        _ => build.session()?.clone(),
    };
    if source.attrs.contains_key("local.metadatatransfer") {
        bail!("metadata-only transfers of local files are not supported by this daemon");
    }
    let request = DirectoryRequest {
        name: name.to_owned(),
        selection: Selection {
            include_patterns: list(source, "local.includepattern")?,
            exclude_patterns: list(source, "local.excludepatterns")?,
            follow_paths: list(source, "local.followpaths")?,
        },
    };
    let hint = source.attrs.get("local.sharedkeyhint").map_or("", String::as_str);
    let key = format!("{name}:{hint}:{}", session.shared_key());
    // Without a key nothing says that the next build's directory is the same one.
    let origin = if session.shared_key().is_empty() { Origin::Unknown } else { Origin::Same };
    let lease = build.daemon.trees.lease(&key, &format!("local source for {name}"))?;
    let status = progress.action(format!("transferring {name}:"), "transferring");
    let mut receiver = Receiver::open(lease, origin, status).await?;
    let (mut incoming, outgoing) = session.sync_files(&request).await?;
    let received = receive(&mut incoming, outgoing, &mut receiver).await;
    let is_broken = matches!(received, Err(ReceiveError::Sink(_)));
    let tree = receiver.close(is_broken).await?;
    received.with_context(|| format!("cannot receive {name}"))?;
    Ok(Outputs::single(None, Snapshot::Tree(Arc::new(tree))))
}

/// A list as LLB's attributes hold it: in JSON.
fn list(source: &pb::SourceOp, name: &str) -> anyhow::Result<Vec<String>> {
    let Some(text) = source.attrs.get(name) else { return Ok(Vec::new()) };
    serde_json::from_str::<Option<Vec<String>>>(text)
        .map(Option::unwrap_or_default)
        .with_context(|| format!("attribute {name} of a local source is not a list"))
}
