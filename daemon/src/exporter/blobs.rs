//! Layers as blobs: packed and compressed once, then kept with the layer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::try_join_all;
use kiln_cache::{Descriptor, DiffId, LayerId, LayerRow, UNCOMPRESSED};
use kiln_snapshotter::diff::{DiffOptions, diff};
use kiln_snapshotter::{Snapshotter as _, Timestamp};

use super::options::ImageOptions;
use crate::compression::{Encoder, Format};
use crate::solver::{Build, Snapshot, SolveError, Stack};

/// A layer of an image that is being exported.
#[derive(Clone, Debug)]
pub(crate) struct LayerBlob {
    pub(crate) id: LayerId,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: DiffId,
    pub(crate) row: LayerRow,
}

/// The kind of media types that a manifest names.
fn media_type(format: Format, oci: bool) -> anyhow::Result<&'static str> {
    Ok(match (format, oci) {
        (Format::None, true) => "application/vnd.oci.image.layer.v1.tar",
        (Format::Gzip(_), true) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (Format::Zstd(_), true) => "application/vnd.oci.image.layer.v1.tar+zstd",
        (Format::None, false) => "application/vnd.docker.image.rootfs.diff.tar",
        (Format::Gzip(_), false) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        (Format::Zstd(_), false) => bail!("Docker's media types have no zstd"),
    })
}

/// The compression that a media type names; other types of layers are left as they are.
fn format_of(media_type: &str) -> Option<Format> {
    if media_type.contains("nondistributable") || media_type.contains("foreign") {
        return None;
    }
    Some(match media_type {
        name if name.ends_with("+gzip") || name.ends_with(".gzip") => Format::Gzip(None),
        name if name.ends_with("+zstd") || name.ends_with(".zstd") => Format::Zstd(None),
        _ => Format::None,
    })
}

/// The blobs of a stack's layers, bottom first; made where there are none yet.
pub(crate) async fn blobs(
    build: &Arc<Build>,
    stack: &Stack,
    options: &BlobOptions,
) -> anyhow::Result<Vec<LayerBlob>> {
    let each = (0..stack.ids().len()).map(|position| blob(build, stack, position, options));
    try_join_all(each).await
}

/// The blobs of the layers of several stacks, each made once.
pub(crate) async fn blobs_by_layer(
    build: &Arc<Build>,
    stacks: &[Stack],
    options: &BlobOptions,
) -> anyhow::Result<HashMap<LayerId, LayerBlob>> {
    let mut known = HashSet::new();
    let each = stacks.iter().flat_map(|stack| {
        let layers = stack.ids().iter().enumerate();
        layers.map(move |(position, id)| (stack, position, id))
    });
    let each = each.filter(|(.., id)| known.insert(**id));
    let blobs = try_join_all(each.map(async |(stack, position, &id)| {
        anyhow::Ok((id, blob(build, stack, position, options).await?))
    }));
    Ok(blobs.await?.into_iter().collect())
}

/// How blobs are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlobOptions {
    pub(crate) format: Format,
    pub(crate) force: bool,
    pub(crate) oci: bool,
    /// Packed anew with no time after this one.
    pub(crate) max_mtime: Option<Timestamp>,
}

impl From<&ImageOptions> for BlobOptions {
    fn from(options: &ImageOptions) -> Self {
        let rewrite = options.epoch.filter(|_| options.rewrite_timestamp);
        Self {
            format: options.compression,
            force: options.force_compression,
            oci: options.oci_mediatypes,
            max_mtime: rewrite.map(Timestamp::from_secs),
        }
    }
}

/// Says in a manifest that no file of a layer is newer than this.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// The blob of the layer at `position` of a stack. Who asks for one that has to be made, waits for the
/// same work.
pub(crate) async fn blob(
    build: &Arc<Build>,
    stack: &Stack,
    position: usize,
    options: &BlobOptions,
) -> anyhow::Result<LayerBlob> {
    let (id, options) = (stack.ids()[position], *options);
    let row = build.daemon.index.layer(id)?.with_context(|| format!("{id:?} is unknown"))?;
    if let Some((descriptor, diff_id)) = existing(build, &row, &options)? {
        return Ok(LayerBlob { id, descriptor, diff_id, row });
    }
    let make = || {
        let (build, stack) = (build.clone(), stack.clone());
        async move { Ok(Arc::new(pack(&build, &stack, position, row, &options).await?)) }.boxed()
    };
    let made = build.blobs.get((id, options), make).await.map_err(SolveError::into_cause)?;
    Ok(LayerBlob::clone(&made))
}

/// The blob of a layer, and what it is unpacked, if there is one already.
fn existing(
    build: &Build,
    row: &LayerRow,
    options: &BlobOptions,
) -> anyhow::Result<Option<(Descriptor, DiffId)>> {
    let fits = |known: &&Descriptor| {
        let format = format_of(&known.media_type);
        !options.force || format.is_none_or(|format| format.is_like(options.format))
    };
    let known = row.blobs.iter().find(fits).zip(row.diff_id);
    let Some((known, diff_id)) = known.filter(|_| options.max_mtime.is_none()) else {
        return Ok(None);
    };
    let stored = build.daemon.index.blob(&known.digest)?;
    let mut remotes = row.presence.remotes.iter();
    if stored.is_none() && !remotes.any(|remote| remote.blob == known.digest) {
        return Ok(None);
    }
    if let Some(stored) = stored {
        build.hold(stored.pin);
    }
    let mut descriptor = known.clone();
    if let Some(format) = format_of(&known.media_type) {
        media_type(format, options.oci)?.clone_into(&mut descriptor.media_type);
    }
    descriptor.annotations.clear();
    Ok(Some((descriptor, diff_id)))
}

/// Packs, compresses and stores a layer.
async fn pack(
    build: &Arc<Build>,
    stack: &Stack,
    position: usize,
    row: LayerRow,
    options: &BlobOptions,
) -> anyhow::Result<LayerBlob> {
    let daemon = &build.daemon;
    let layers = &daemon.layers;
    // The blob is kept for every image that has the layer, and so must not depend on this one: what
    // changes nothing is left out by what the layer was made on. If that is not below it here, it is
    // not known well enough, and nothing is left out.
    let below = layers.below(&row)?;
    let whole = below.with(row.id, daemon.index.pin_layers(&[row.id]));
    layers.fetch(build, &Snapshot::Layers(whole)).await?;
    // Taken before anything is opened: an image of five hundred layers has as many that wait.
    let _turn = daemon.pack_turns.acquire().await;
    let is_below = stack.ids()[..position].ends_with(below.ids());
    let lower = is_below.then(|| layers.view_of(below.ids())).transpose()?;
    let dir = layers.overlay().layer(kiln_snapshotter::LayerId(row.id.0))?;
    let ingest = daemon.content.ingest()?;
    let (format, diff_options) = (options.format, DiffOptions { max_mtime: options.max_mtime });
    let task = tokio::task::spawn_blocking(move || {
        let mut encoder = Encoder::new(format, ingest)?;
        diff(&dir, lower.as_ref(), &mut encoder, &diff_options)?;
        anyhow::Ok(encoder.finish()?)
    });
    let packed = task.await?.with_context(|| format!("cannot pack {:?}", row.id))?;
    if options.max_mtime.is_none() {
        layers.check_packed(row.id, is_below, DiffId::new(packed.plain_digest))?;
    }
    let stored = daemon.index.commit_blob(packed.output, None)?;
    let diff_id = DiffId::new(packed.plain_digest);
    let media_type = media_type(format, options.oci)?;
    let mut descriptor = Descriptor::new(media_type, stored.row.digest, stored.row.size);
    build.hold(stored.pin);
    if let Some(time) = options.max_mtime {
        descriptor.annotations.insert(REWRITTEN.to_owned(), time.secs.to_string());
    } else if row.diff_id.is_some_and(|known| known != diff_id) && !row.blobs.is_empty() {
        // What the image's makers packed differently stays known by their digest.
        tracing::debug!(layer = %row.id, "packed differently than it came");
    } else {
        let mut noted = descriptor.clone();
        noted.annotations.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
        daemon.index.set_blob(row.id, noted)?;
    }
    Ok(LayerBlob { id: row.id, descriptor, diff_id, row })
}
