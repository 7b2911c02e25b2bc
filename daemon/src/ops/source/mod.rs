//! Sources: what brings files in from outside.

pub(crate) mod git;
pub(crate) mod http;
mod image;
mod local;
pub(crate) mod oci_layout;
mod upload;

use std::fmt;
use std::sync::Arc;

use anyhow::bail;
use kiln_cache::Digest;
use kiln_proto::pb;
use kiln_proto::pb::op::Op;

use crate::graph::Vertex;
use crate::solver::{Build, CacheMap, Outputs, Snapshot, VertexProgress};

/// A source as far as its key needs it.
pub(crate) enum Loaded {
    /// Its files, or what they can be fetched by.
    Outputs(Outputs),
    /// What it is known by. If there is no record of it, it [is made](execute).
    Key(CacheMap),
}

/// Loads a source as far as its key needs: images are resolved, but their layers not fetched.
pub(crate) async fn load(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    progress: &VertexProgress,
) -> anyhow::Result<Loaded> {
    let Op::Source(source) = vertex.op() else { bail!("{} is no source", vertex.name()) };
    let Some((scheme, rest)) = source.identifier.split_once("://") else {
        bail!("invalid source identifier {:?}", source.identifier);
    };
    let outputs = match scheme {
        "docker-image" => image::load(build, vertex, source, rest, progress).await,
        "oci-layout" => oci_layout::load(build, vertex, source, rest, progress).await,
        "local" => local::load(build, source, rest, progress).await,
        "http" | "https" => match upload::stream_name(rest) {
            Some(name) => upload::load(build, source, name, progress).await,
            None => return http::load(build, vertex, source, progress).await,
        },
        "git" => return git::load(build, vertex, source, progress).await,
        other => bail!("{other} sources are not supported by this daemon yet: {rest:?}"),
    };
    outputs.map(Loaded::Outputs)
}

/// The digest of a source that is known by `name`: what it has at the moment, in words that BuildKit
/// has for it too.
fn op_digest(name: impl fmt::Display) -> Digest {
    Digest::of(format!("buildkit.source.v0:{name}"))
}

/// Makes the files of a source that is known by a key.
pub(crate) async fn execute(
    build: &Arc<Build>,
    source: &pb::SourceOp,
    progress: &VertexProgress,
) -> anyhow::Result<Vec<Snapshot>> {
    let snapshot = if source.identifier.starts_with("git://") {
        git::execute(build, source, progress).await?
    } else {
        http::execute(build, source, progress).await?
    };
    Ok(vec![snapshot])
}

/// Whether the rest of an HTTP address names a stream of the client's.
pub(crate) fn is_stream(rest: &str) -> bool {
    upload::stream_name(rest).is_some()
}

/// An address for messages and descriptions: who it is that uses it is nobody else's business.
pub(crate) fn without_credentials(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else { return address.to_owned() };
    let hidden = match user.split_once(':') {
        Some(("", _)) => ":xxxxx",
        Some(_) => "xxxxx:xxxxx",
        None => "xxxxx",
    };
    format!("{scheme}://{hidden}@{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    #[test]
    fn credentials_are_left_out_of_addresses() {
        for (address, expected) in [
            ("https://user:password@host/a@b", "https://xxxxx:xxxxx@host/a@b"),
            ("https://user@host", "https://xxxxx@host"),
            ("https://:password@host?x", "https://:xxxxx@host?x"),
            ("https://host/a@b", "https://host/a@b"),
            ("git@host:path", "git@host:path"),
        ] {
            assert_eq!(without_credentials(address), expected);
        }
    }
}
