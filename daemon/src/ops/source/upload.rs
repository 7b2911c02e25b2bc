//! A stream of the client's as one file: `http://buildkit-session/<id>`.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{Digest, Hasher, key_of};
use kiln_proto::pb;
use kiln_snapshotter::tree::{TreeMetadata, TreeWriter};
use tokio::io::AsyncReadExt as _;

use crate::ops::path::clean;
use crate::solver::{Build, Outputs, Snapshot, Stack, VertexProgress};

/// The host that stands for the client's session.
const HOST: &str = "buildkit-session/";
/// Size of the pieces in which the stream is written.
const PIECE: usize = 1 << 20;

/// The name of the client's stream, if the URL (without its scheme) is one.
pub(super) fn stream_name(url: &str) -> Option<&str> {
    url.strip_prefix(HOST)
}

pub(super) async fn load(
    build: &Arc<Build>,
    source: &pb::SourceOp,
    name: &str,
    progress: &VertexProgress,
) -> anyhow::Result<Outputs> {
    let file_name = source.attrs.get("http.filename").map_or("context", String::as_str);
    let path = clean(file_name);
    let mode = match source.attrs.get("http.perm") {
        Some(octal) => u32::from_str_radix(octal, 8).context("invalid http.perm")?,
        None => 0o600,
    };
    let mut reader = build.session()?.upload(name).await?;
    let layers = &build.daemon.layers;
    let layer = layers.create()?;
    let tree = TreeWriter::open(&layer.path())?;
    let mut file = tree.file(path.trim_start_matches('/'))?;
    let status = progress.status("transferring");
    let mut hasher = Hasher::new();
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE && reader.read_buf(&mut piece).await? > 0 {}
        if piece.is_empty() {
            break;
        }
        status.add(piece.len() as u64);
        hasher.update(&piece);
        let write = move || file.write_all(&piece).map(|()| file);
        file = tokio::task::spawn_blocking(write).await?.context("cannot store the stream")?;
    }
    drop(status);
    file.finish(&TreeMetadata { mode, ..TreeMetadata::default() })?;
    tree.finish()?;
    let digest = hasher.finish();
    let stack = layers.commit(layer, &Stack::default(), "uploaded by the client".into()).await?;
    let key = key_of(&Digest::of(format!("upload\0{digest}\0{path}\0{mode:o}")), 0, &[]);
    Ok(Outputs::single(Some(key), Snapshot::Layers(stack)))
}
