//! Layers as the daemon handles them: their rows in the index, their directories in the
//! snapshotter, and how they get from one to the other.

mod digests;
mod fetch;
mod file_hash;
mod removals;
mod tree;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{
    ContentStore, DiffId, Digest, Index, LayerId, LayerRow, Pin, RecordType, SharedFile, fault,
};
use kiln_executor::Rootfs;
use kiln_snapshotter::copy::{CopyOptions, copy};
use kiln_snapshotter::diff::{mirror, reduce};
use kiln_snapshotter::usage::{self, Usage};
use kiln_snapshotter::{LayerDir, LayerWriter, Overlay, Snapshotter as _, View, create_trees_dir};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::damage::Damaged;
use crate::solver::{Flights, LeftFiles, Snapshot, Stack};

pub(crate) use digests::FileDigests;
pub(crate) use file_hash::FileHeader;
pub(crate) use tree::{
    LocalTree, LocalTrees, Manifest, TreeEntry, TreeLease, announced_kind, read_manifest,
};

use digests::DigestCache;
use removals::Removals;

/// How many layers are unpacked at once.
const MOST_UNPACKED: usize = 16;

/// Everything that is kept as layers.
pub(crate) struct Layers {
    index: Arc<Index>,
    content: Arc<ContentStore>,
    overlay: Arc<Overlay>,
    /// Limits how many layers are unpacked at once: each keeps a thread.
    unpack_turns: Semaphore,
    fetching: Flights<LayerId, ()>,
    digests: DigestCache,
    removals: Removals,
    /// An empty directory, to lie below where overlayfs wants one more.
    empty: PathBuf,
    /// The mount points that every step needs, to lie below all of its layers: so they are there
    /// for mounting, and in no layer.
    skeleton: PathBuf,
}

/// A layer that is being written; its directory goes with it unless it is committed.
pub(crate) struct NewLayer {
    id: LayerId,
    dir: LayerDir,
    overlay: Arc<Overlay>,
    removals: Removals,
    is_committed: bool,
    _pin: Pin,
}

/// What a tree has in common with others, in the index's words.
pub(crate) fn shared_files(usage: &Usage) -> Vec<SharedFile> {
    let shared = usage.shared.iter().map(|&usage::SharedFile { ino, bytes, origin }| SharedFile {
        ino,
        bytes,
        origin: origin.map(|id| LayerId(id.0)),
    });
    shared.collect()
}

/// The name under which the index keeps what a layer was packed to. To change with the form of the
/// archives: what was packed in another one cannot be compared.
const fn packed_kind(is_relative: bool) -> &'static str {
    if is_relative { "packed-1" } else { "packed-alone-1" }
}

fn snapshot_id(id: LayerId) -> kiln_snapshotter::LayerId {
    kiln_snapshotter::LayerId(id.0)
}

impl Layers {
    /// Opens the layers below `root`.
    pub(crate) fn open(
        root: &Path,
        index: Arc<Index>,
        content: Arc<ContentStore>,
    ) -> anyhow::Result<Self> {
        let snapshots = root.join("snapshots");
        create_trees_dir(&snapshots).with_context(|| snapshots.display().to_string())?;
        let overlay = Arc::new(Overlay::open(&snapshots)?);
        let empty = root.join("scaffold/empty");
        let skeleton = root.join("scaffold/skeleton");
        for dir in [&empty, &skeleton.join("proc"), &skeleton.join("sys"), &skeleton.join("dev")] {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let etc = skeleton.join("etc");
        std::fs::create_dir_all(&etc).with_context(|| etc.display().to_string())?;
        for name in ["hosts", "resolv.conf"] {
            std::fs::write(etc.join(name), "").with_context(|| name.to_owned())?;
        }
        let (fetching, digests) = (Flights::new(), DigestCache::new(index.clone()));
        Ok(Self {
            index,
            content,
            overlay,
            unpack_turns: Semaphore::new(MOST_UNPACKED),
            fetching,
            digests,
            removals: Removals::default(),
            empty,
            skeleton,
        })
    }

    pub(crate) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Starts a new, empty layer.
    pub(crate) fn create(&self) -> anyhow::Result<NewLayer> {
        let id = self.index.alloc_layer()?;
        let pin = self.index.pin_layers(&[id]);
        let dir = self.overlay.create(snapshot_id(id))?;
        Ok(self.new_layer(id, dir, pin))
    }

    /// Waits until what unfinished layers left is gone: whoever is told that a step has failed, for
    /// the disk was full, may then try again.
    pub(crate) async fn cleaned_up(&self) {
        self.removals.finished().await;
    }

    fn new_layer(&self, id: LayerId, dir: LayerDir, pin: Pin) -> NewLayer {
        let (overlay, removals) = (self.overlay.clone(), self.removals.clone());
        NewLayer { id, dir, overlay, removals, is_committed: false, _pin: pin }
    }

    /// Makes `files` those of a known layer, which counts as here from now on.
    async fn adopt(&self, id: LayerId, mut files: NewLayer) -> anyhow::Result<()> {
        let (overlay, from) = (self.overlay.clone(), files.dir.id());
        let task = tokio::task::spawn_blocking(move || {
            fault::may_die();
            overlay.rename(from, snapshot_id(id))?;
            fault::may_die();
            anyhow::Ok(usage::of_layer(&overlay.layer(snapshot_id(id))?)?)
        });
        let usage = task.await??;
        files.is_committed = true;
        self.index.update_layer(id, |row| {
            row.presence.is_local = true;
            row.size = usage.bytes;
        })?;
        self.note_shared(id, &usage)
    }

    /// The layers that a layer builds on, bottom first.
    pub(crate) fn below(&self, row: &LayerRow) -> anyhow::Result<Stack> {
        let mut ids = self.down_to(row.id)?;
        ids.pop();
        let pin = self.index.pin_layers(&ids);
        Ok(Stack::new(ids, pin))
    }

    /// A layer and all that it builds on, bottom first, each once.
    fn down_to(&self, top: LayerId) -> anyhow::Result<Vec<LayerId>> {
        // From the top, a layer comes after all that build on it: for that the last of several
        // parents has to be looked at first.
        let (mut found, mut known, mut next) = (Vec::new(), HashSet::new(), vec![top]);
        while let Some(id) = next.pop() {
            if known.insert(id) {
                let row = self.index.layer(id)?.with_context(|| format!("{id:?} is unknown"))?;
                found.push(id);
                next.extend(row.parents);
            }
        }
        found.reverse();
        Ok(found)
    }

    /// The uppermost layers of the stacks that `stack` was merged from, from which all others follow.
    fn tops(&self, stack: &[LayerId]) -> anyhow::Result<Vec<LayerId>> {
        let (mut tops, mut rest) = (Vec::new(), stack);
        while let Some((&top, below)) = rest.split_last() {
            tops.push(top);
            // Of a difference there are fewer layers than the uppermost was made on.
            rest = rest.strip_suffix(&*self.down_to(top)?).unwrap_or(below);
        }
        tops.reverse();
        Ok(tops)
    }

    /// Makes a finished layer part of the index, on top of `base`, which is here.
    pub(crate) async fn commit(
        &self,
        layer: NewLayer,
        base: &Stack,
        description: String,
    ) -> anyhow::Result<Stack> {
        let (dir, below) = (layer.dir.clone(), self.layer_dirs(base.ids())?);
        tokio::task::spawn_blocking(move || reduce(&dir, &View::of_layers(&below)?)).await??;
        self.commit_as(layer, self.tops(base.ids())?, description, |_| {})
            .await
            .map(|(id, pin)| base.with(id, pin))
    }

    /// The same for a layer that builds on `parents`, with its row adjusted by `adjust`.
    pub(crate) async fn commit_as(
        &self,
        mut layer: NewLayer,
        parents: Vec<LayerId>,
        description: String,
        adjust: impl FnOnce(&mut LayerRow),
    ) -> anyhow::Result<(LayerId, Pin)> {
        let dir = layer.dir.clone();
        let usage = tokio::task::spawn_blocking(move || usage::of_layer(&dir)).await??;
        let mut row = LayerRow::new(layer.id, parents);
        row.size = usage.bytes;
        row.description = description;
        row.record_type = RecordType::Regular;
        adjust(&mut row);
        fault::may_fail()?;
        let pin = self.index.save_layers(&[row])?;
        layer.is_committed = true;
        self.note_shared(layer.id, &usage)?;
        Ok((layer.id, pin))
    }

    /// Notes the files that a layer has in common with others, if there are any.
    fn note_shared(&self, id: LayerId, usage: &Usage) -> anyhow::Result<()> {
        if !usage.shared.is_empty() {
            self.index.set_shared_files(id, &shared_files(usage))?;
        }
        Ok(())
    }

    /// Compares what the files of a layer were packed to with what they were packed to before, if
    /// they were, and notes it if not. `is_relative` says that what the layers below have was left
    /// out, which makes another archive of the same files.
    pub(crate) fn check_packed(
        &self,
        id: LayerId,
        is_relative: bool,
        packed: DiffId,
    ) -> anyhow::Result<()> {
        match self.packed(id, is_relative)? {
            None => {
                let kind = packed_kind(is_relative);
                Ok(self.index.put_layer_data(id, kind, packed.digest().as_bytes())?)
            }
            Some(before) if before == packed => Ok(()),
            Some(before) => {
                tracing::warn!(layer = %id, %packed, %before, "the files of a layer have changed");
                self.index.disown_layer(id)?;
                Err(Damaged::Layer(id).into())
            }
        }
    }

    /// What the files of a layer were first packed to.
    pub(crate) fn packed(&self, id: LayerId, is_relative: bool) -> anyhow::Result<Option<DiffId>> {
        let stored = self.index.layer_data(id, packed_kind(is_relative))?;
        let stored = stored.and_then(|bytes| bytes.try_into().ok());
        Ok(stored.map(|bytes| DiffId::new(Digest::from_bytes(bytes))))
    }

    /// The digests of files of a layer that are known, by path.
    pub(crate) fn known_file_digests(
        &self,
        id: LayerId,
    ) -> anyhow::Result<BTreeMap<PathBuf, Digest>> {
        digests::stored(&self.index, id)
    }

    /// The directories of a stack's layers for mounting, bottom first. A layer that is there twice
    /// is mounted once: overlayfs refuses it, and what it has is all in its uppermost place.
    pub(crate) fn directories(&self, stack: &[LayerId]) -> anyhow::Result<Vec<PathBuf>> {
        let mut known = HashSet::new();
        let uppermost = stack.iter().rev().filter(|&&id| known.insert(id));
        let dirs = uppermost.map(|&id| Ok(self.layer_dir(id)?.fs()));
        let mut dirs = dirs.collect::<anyhow::Result<Vec<_>>>()?;
        dirs.reverse();
        Ok(dirs)
    }

    fn layer_dir(&self, id: LayerId) -> anyhow::Result<LayerDir> {
        Ok(self.overlay.layer(snapshot_id(id))?)
    }

    /// The root file system of a step that writes to `upper`.
    pub(crate) fn rootfs(&self, stack: &[LayerId], upper: &NewLayer) -> anyhow::Result<Rootfs> {
        let mut lower = vec![self.skeleton.clone()];
        lower.extend(self.directories(stack)?);
        Ok(Rootfs { lower, upper: upper.path(), work: upper.work_path() })
    }

    pub(crate) fn empty_directory(&self) -> &Path {
        &self.empty
    }

    /// Reads a snapshot whose layers are here.
    pub(crate) fn view(&self, snapshot: &Snapshot) -> anyhow::Result<View> {
        match snapshot {
            Snapshot::Layers(stack) => self.view_of(stack.ids()),
            Snapshot::Tree(tree) => Ok(View::of_directory(tree.path())?),
        }
    }

    /// Reads a stack whose layers are here.
    pub(crate) fn view_of(&self, stack: &[LayerId]) -> anyhow::Result<View> {
        Ok(View::of_layers(&self.layer_dirs(stack)?)?)
    }

    fn layer_dirs(&self, stack: &[LayerId]) -> anyhow::Result<Vec<LayerDir>> {
        stack.iter().map(|&id| self.layer_dir(id)).collect()
    }

    /// The snapshot as layers: a client's tree is copied (by links) into one.
    pub(crate) async fn freeze(&self, snapshot: &Snapshot) -> anyhow::Result<Stack> {
        let tree = match snapshot {
            Snapshot::Layers(stack) => return Ok(stack.clone()),
            Snapshot::Tree(tree) => tree.clone(),
        };
        let layer = self.create()?;
        let dir = layer.dir.clone();
        let task = tokio::task::spawn_blocking(move || {
            let view = View::of_directory(tree.path())?;
            let mut writer = LayerWriter::new(&dir, &View::empty())?;
            let mut options = CopyOptions { dir_copy_contents: true, ..CopyOptions::default() };
            copy(&view, Path::new("/"), &mut writer, Path::new("/"), &mut options)?;
            anyhow::Ok(writer.finish()?)
        });
        task.await??;
        self.commit(layer, &Stack::default(), "local source".into()).await
    }

    /// Writes a layer that makes `lower` look like `upper`.
    pub(crate) async fn difference(
        &self,
        lower: &Stack,
        upper: &Stack,
        description: String,
    ) -> anyhow::Result<Stack> {
        let layer = self.create()?;
        let (dir, below) = (layer.dir.clone(), self.view_of(lower.ids())?);
        let above = self.view_of(upper.ids())?;
        let given_up = CancellationToken::new();
        // A thread cannot be aborted: it has to look.
        let _give_up = given_up.clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = LayerWriter::new(&dir, &below)?;
            mirror(&above, &mut writer, &|| given_up.is_cancelled())?;
            anyhow::Ok(writer.finish()?)
        });
        task.await??;
        let whole = self.commit(layer, lower, description).await?;
        Ok(whole.above(lower.ids().len()))
    }

    /// What a failed step left, to be looked at; `None` if that is nothing.
    pub(crate) async fn left(&self, files: &LeftFiles) -> anyhow::Result<Option<Snapshot>> {
        let Some(written) = &files.written else { return Ok(files.below.clone()) };
        let below = match &files.below {
            Some(below) => self.freeze(below).await?,
            None => Stack::default(),
        };
        Ok(Some(Snapshot::Layers(below.with_unfinished(written.clone()))))
    }

    /// Frees digests that were kept for the next build.
    pub(crate) fn forget_digests(&self) {
        self.digests.clear();
    }

    /// The digests of the files of a snapshot's layers.
    pub(crate) fn file_digests(&self, snapshot: &Snapshot) -> anyhow::Result<FileDigests> {
        match snapshot {
            Snapshot::Layers(stack) => self.digests.of_layers(stack.ids()),
            Snapshot::Tree(tree) => Ok(FileDigests::of_tree(tree.clone())),
        }
    }
}

impl NewLayer {
    pub(crate) fn id(&self) -> LayerId {
        self.id
    }

    pub(crate) fn dir(&self) -> &LayerDir {
        &self.dir
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.fs()
    }

    /// Scratch space for overlayfs. It goes when the finished layer is made durable: beside a busy
    /// disk, to remove it takes longer than a step.
    pub(crate) fn work_path(&self) -> PathBuf {
        self.dir.work()
    }
}

impl fmt::Debug for NewLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.id, f)
    }
}

impl Drop for NewLayer {
    fn drop(&mut self) {
        if !self.is_committed {
            // The id is never used again, so nobody has to wait.
            self.removals.start(self.overlay.clone(), self.dir.id());
        }
    }
}
