//! Fetches layers that are known but not here: download, verification, decompression and
//! unpacking run at the same time, and so do the layers of an image.

use std::io::Read;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use kiln_cache::{Descriptor, DiffId, Digest, Expected, Hasher, Ingest, LayerRow, Pin, Remote};
use kiln_snapshotter::apply::{Applied, apply};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::{Layers, NewLayer};
use crate::compression::Decoder;
use crate::damage;
use crate::image::{BlobReader, LostLayer, lose, open_at};
use crate::solver::{Build, Snapshot, SolveError, StatusProgress, VertexProgress};

/// Size of the pieces in which a blob is read.
const PIECE: usize = 256 << 10;
/// Pieces that wait to be unpacked; when they are too many, the download waits.
const QUEUE: usize = 16;

impl Layers {
    /// Makes sure that all layers of `snapshot` are here.
    ///
    /// Boxed, for a layer may have to wait for those below it, which are fetched likewise.
    pub(crate) fn fetch<'a>(
        &'a self,
        build: &'a Arc<Build>,
        snapshot: &'a Snapshot,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            let Snapshot::Layers(stack) = snapshot else { return Ok(()) };
            let mut missing = Vec::new();
            for id in stack.finished() {
                let row = self.index.layer(id)?.with_context(|| format!("{id:?} is unknown"))?;
                if !row.presence.is_local {
                    missing.push(row);
                }
            }
            let fetches = missing.into_iter().map(|row| self.fetch_layer(build, row));
            try_join_all(fetches).await?;
            Ok(())
        }
        .boxed()
    }

    /// Fetches one layer, or waits for whoever does so already.
    async fn fetch_layer(&self, build: &Arc<Build>, row: LayerRow) -> anyhow::Result<()> {
        let id = row.id;
        let shown = build
            .transfer_progress(id)
            .unwrap_or_else(|| build.progress.internal(&format!("fetch:{id}"), "[internal] fetch"));
        let _reopened = shown.reopen();
        let start = |progress: VertexProgress| {
            let (build, row) = (build.clone(), row.clone());
            async move {
                let done = build.daemon.layers.fetch_now(&build, row, &progress).await;
                done.map_err(SolveError::from)
            }
            .boxed()
        };
        let fetched = self.fetching.join(id, &shown, start, SolveError::is_inherent).await;
        fetched.map_err(SolveError::into_cause)
    }

    async fn fetch_now(
        &self,
        build: &Arc<Build>,
        row: LayerRow,
        progress: &VertexProgress,
    ) -> anyhow::Result<()> {
        // Somebody may have finished it between our look and now.
        if self.index.layer(row.id)?.is_some_and(|row| row.presence.is_local) {
            return Ok(());
        }
        let mut why = None;
        for source in self.sources(&row)? {
            match self.unpack(build, &row, &source, progress).await {
                Ok((layer, applied)) => {
                    if !applied.deferred.is_empty() {
                        // Only now the layers below matter.
                        self.settle(build, &row, &layer, applied).await?;
                    }
                    return self.adopt(row.id, layer).await;
                }
                // The first place is the one that was named last, and so the user's concern.
                Err(error) => why.get_or_insert(error),
            };
        }
        Err(why.unwrap_or_else(|| anyhow::anyhow!("nobody is known to have {:?}", row.id)))
    }

    /// Brings the blob of a layer whose files are not needed here into the content store, from the
    /// first place that has it.
    pub(crate) async fn fetch_blob(
        &self,
        build: &Arc<Build>,
        row: &LayerRow,
        blob: &Descriptor,
    ) -> anyhow::Result<()> {
        let mut why = None;
        for remote in row.presence.remotes.iter().filter(|remote| remote.blob == blob.digest) {
            let download = async {
                let reader = open_at(build, row.id, remote, blob).await?;
                self.download(build, row, (remote, blob), reader, None).await
            };
            match download.await {
                Ok(ingest) => return self.store(build, ingest, blob).await,
                Err(error) => why.get_or_insert(error),
            };
        }
        let nobody =
            || anyhow::anyhow!("nobody is known to have it").context(LostLayer(blob.digest));
        Err(why.unwrap_or_else(nobody))
    }

    /// From where a layer can be unpacked, best first: what is here, then what is elsewhere.
    fn sources(&self, row: &LayerRow) -> anyhow::Result<Vec<Source>> {
        let mut sources = Vec::new();
        for blob in &row.blobs {
            if let Some(stored) = self.index.blob(&blob.digest)? {
                sources.push(Source::Stored(blob.clone(), stored.pin));
            }
        }
        for remote in &row.presence.remotes {
            if let Some(blob) = row.blobs.iter().find(|blob| blob.digest == remote.blob) {
                sources.push(Source::Remote(blob.clone(), remote.clone()));
            }
        }
        Ok(sources)
    }

    /// Downloads (or reads) a blob and unpacks it into a directory of its own.
    async fn unpack(
        &self,
        build: &Arc<Build>,
        row: &LayerRow,
        source: &Source,
        progress: &VertexProgress,
    ) -> anyhow::Result<(NewLayer, Applied)> {
        let _turn = self.unpack_turns.acquire().await;
        let (Source::Stored(descriptor, _) | Source::Remote(descriptor, _)) = source;
        let digest = descriptor.digest;
        // Not the directory that it will have: an attempt that was given up may still be at work.
        let layer = self.create()?;
        let dir = layer.dir().clone();
        let diff_id = row.diff_id;
        let unpack = move |blob: Box<dyn Read + Send>| -> anyhow::Result<Applied> {
            let mut tar = Hashing { inner: Decoder::detect(blob)?, hasher: Hasher::new() };
            let applied = apply(&mut tar, &dir, None)?;
            std::io::copy(&mut tar, &mut std::io::sink())?;
            let actual = tar.hasher.finish();
            if let Some(expected) = diff_id
                && actual != *expected.digest()
            {
                return Err(WrongContent::DiffId { digest, actual, expected }.into());
            }
            Ok(applied)
        };
        let cannot_unpack = || format!("cannot unpack layer {digest}");
        let remote = match source {
            Source::Stored(..) => {
                let status = progress.status(format!("extracting {digest}"));
                let file = damage::open_blob(&self.index, &self.content, digest).await?;
                let applied = tokio::task::spawn_blocking(move || unpack(Box::new(file))).await?;
                drop(status);
                return Ok((layer, applied.with_context(cannot_unpack)?));
            }
            Source::Remote(_, remote) => remote,
        };
        let reader = open_at(build, row.id, remote, descriptor).await?;
        let (pieces, queue) = mpsc::channel(QUEUE);
        let status = progress.action(digest.to_string(), "downloading");
        status.total(descriptor.size);
        let unpacker = Unpacker { status, pieces };
        let extracting = progress.action(format!("extracting {digest}"), "extract");
        let unpacking = tokio::task::spawn_blocking(move || {
            let unpacked = unpack(Box::new(Pieces { queue, current: Bytes::new() }));
            drop(extracting);
            unpacked
        });
        let downloaded =
            self.download(build, row, (remote, descriptor), reader, Some(unpacker)).await;
        let unpacked = unpacking.await?;
        // A broken download breaks unpacking too: it is the cause.
        let ingest = downloaded?;
        let applied = match unpacked {
            Ok(applied) => applied,
            Err(error) if error.is::<WrongContent>() => {
                lose(build, row.id, remote, true)?;
                return Err(error).context(LostLayer(digest));
            }
            Err(error) => return Err(error).with_context(cannot_unpack),
        };
        self.store(build, ingest, descriptor).await?;
        Ok((layer, applied))
    }

    /// Reads a blob to its end, and notes it if the place does not have it after all.
    async fn download(
        &self,
        build: &Build,
        row: &LayerRow,
        (remote, blob): (&Remote, &Descriptor),
        reader: BlobReader,
        unpacker: Option<Unpacker>,
    ) -> anyhow::Result<Ingest> {
        match read_all(reader, blob, self.content.ingest()?, unpacker).await {
            Ok(ingest) => Ok(ingest),
            Err(error) => {
                lose(build, row.id, remote, error.is::<WrongContent>())?;
                Err(error).context(LostLayer(blob.digest))
            }
        }
    }

    /// Keeps what was downloaded, for as long as the build at least.
    async fn store(&self, build: &Build, ingest: Ingest, blob: &Descriptor) -> anyhow::Result<()> {
        let expected = Expected { digest: blob.digest, size: blob.size };
        let index = self.index.clone();
        let stored = tokio::task::spawn_blocking(move || index.commit_blob(ingest, Some(expected)))
            .await??;
        build.hold(stored.pin);
        Ok(())
    }

    /// Completes a layer with what the layers below it have.
    async fn settle(
        &self,
        build: &Arc<Build>,
        row: &LayerRow,
        layer: &NewLayer,
        applied: Applied,
    ) -> anyhow::Result<()> {
        let below = self.below(row)?;
        self.fetch(build, &Snapshot::Layers(below.clone())).await?;
        let view = self.view_of(below.ids())?;
        let dir = layer.dir().clone();
        tokio::task::spawn_blocking(move || applied.deferred.settle(&dir, &view)).await??;
        Ok(())
    }
}

/// A blob that a layer can be unpacked from.
enum Source {
    /// In the content store, where it stays while the pin is held.
    Stored(Descriptor, #[expect(dead_code, reason = "it is only held")] Pin),
    Remote(Descriptor, Remote),
}

/// A place does not have what it is said to have.
#[derive(Debug, thiserror::Error)]
enum WrongContent {
    #[error("layer {digest} unpacks to {actual}, its image says {expected}")]
    DiffId { digest: Digest, actual: Digest, expected: DiffId },
    #[error("it is larger than the {0} bytes announced")]
    TooLarge(u64),
    #[error("content is {size} bytes of {actual}, expected {expected} bytes")]
    Blob { actual: Digest, size: u64, expected: u64 },
}

/// Who unpacks a blob while it is downloaded.
struct Unpacker {
    status: StatusProgress,
    pieces: mpsc::Sender<Bytes>,
}

/// Reads a blob to its end: into the content store, and to who unpacks it meanwhile.
async fn read_all(
    mut reader: BlobReader,
    descriptor: &Descriptor,
    mut ingest: Ingest,
    unpacker: Option<Unpacker>,
) -> anyhow::Result<Ingest> {
    let mut hash = Hasher::new();
    let mut size = 0u64;
    loop {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        while piece.len() < PIECE && reader.read_buf(&mut piece).await? > 0 {}
        if piece.is_empty() {
            break;
        }
        size += piece.len() as u64;
        if size > descriptor.size {
            return Err(WrongContent::TooLarge(descriptor.size).into());
        }
        let piece = piece.freeze();
        let kept = piece.clone();
        ingest = tokio::task::spawn_blocking(move || {
            std::io::Write::write_all(&mut ingest, &kept).map(|()| ingest)
        })
        .await??;
        hash.update(&piece);
        if let Some(Unpacker { status, pieces }) = &unpacker {
            status.add(piece.len() as u64);
            // It may have given up already: then only the digest is of interest.
            let _ = pieces.send(piece).await;
        }
    }
    let actual: Digest = hash.finish();
    if actual != descriptor.digest || size != descriptor.size {
        return Err(WrongContent::Blob { actual, size, expected: descriptor.size }.into());
    }
    Ok(ingest)
}

/// Pieces of a download as a stream for a thread.
struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
