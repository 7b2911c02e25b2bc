//! Writing a new layer over a stack, without mounting it.

pub(crate) mod attributes;
mod place;
pub(crate) mod shared;
pub(crate) mod upper_dir;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::{At, FsError};
use crate::layer::LayerDir;
use crate::metadata::{Owner, Timestamp};
use crate::view::{Follow, View};

use shared::SharedInodes;
use upper_dir::UpperDir;

/// Directories of the layer that are kept open.
const MAX_OPEN: usize = 128;

/// The metadata of something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewEntry {
    /// Permission bits.
    pub mode: u32,
    /// Who owns it; `None` for root, or for the owner of a file that is replaced.
    pub owner: Option<Owner>,
    /// When it was modified; `None` for now.
    pub mtime: Option<Timestamp>,
}

impl NewEntry {
    /// Owned by root and modified now.
    pub const fn mode(mode: u32) -> Self {
        Self { mode, owner: None, mtime: None }
    }
}

/// A layer being written, over the stack that it will lie on.
///
/// It behaves as the merged tree would when mounted: directories of the stack are copied up with
/// their metadata when something below them changes, removing leaves whiteouts. It is the only
/// writer of its layer, which is complete once [`finish`](Self::finish) returned; a layer whose
/// writer was dropped is garbage. Several writers may follow each other on one layer.
#[derive(Debug)]
pub struct LayerWriter {
    layer: LayerDir,
    /// The stack with the layer on top.
    view: View,
    root: Arc<UpperDir>,
    open: HashMap<PathBuf, Arc<UpperDir>>,
    /// Modification times that directories get at the end, when their content no longer changes.
    /// A directory in which an entry was made or removed since has none.
    times: HashMap<PathBuf, Timestamp>,
    shared: SharedInodes,
}

impl LayerWriter {
    /// Writes to `layer`, which is new or was written before, and is to lie on `base`.
    pub fn new(layer: &LayerDir, base: &View) -> Result<Self, FsError> {
        let root = Path::new("");
        let dir = layer.open().at("open the layer", root)?;
        let opaque = dir.is_opaque(layer.marks()).at("read the mark", root)?;
        let lower = (!opaque && base.depth() > 0).then(|| base.root().as_ref().clone());
        Ok(Self {
            layer: layer.clone(),
            view: base.with_layer(layer)?,
            root: Arc::new(UpperDir { path: PathBuf::new(), dir, lower }),
            open: HashMap::new(),
            times: HashMap::new(),
            shared: SharedInodes::load(base, layer).at("read what the layers share", root)?,
        })
    }

    /// The merged tree as it is now, for reading.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The layer that is written.
    pub fn layer(&self) -> &LayerDir {
        &self.layer
    }

    /// Makes a directory and those above it that are missing; `new` is the metadata of each one
    /// made. Links on the way are followed.
    ///
    /// Returns the directories that were made, outermost first.
    pub fn mkdir_all(
        &mut self,
        path: impl AsRef<Path>,
        new: &NewEntry,
    ) -> Result<Vec<PathBuf>, FsError> {
        let path = self.view.real_path(path, Follow::Last)?;
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            match self.view.lookup(ancestor, Follow::NoLast)? {
                Some(entry) if entry.metadata().is_dir() => break,
                Some(_) => return Err(FsError::NotADirectory(ancestor.to_path_buf())),
                None if ancestor.as_os_str().is_empty() => break,
                None => missing.push(ancestor.to_path_buf()),
            }
        }
        missing.reverse();
        for path in &missing {
            self.make_dir(path, new)?;
        }
        Ok(missing)
    }

    /// Makes one directory in an existing one. Whatever has the name already is left alone.
    pub fn mkdir(&mut self, path: impl AsRef<Path>, new: &NewEntry) -> Result<(), FsError> {
        let path = self.view.real_path(path, Follow::Last)?;
        if self.view.lookup(&path, Follow::NoLast)?.is_none() {
            self.require_parent(&path)?;
            self.make_dir(&path, new)?;
        }
        Ok(())
    }

    /// Makes a file, following links; a file that is there keeps its mode, and its owner unless
    /// `new` names one.
    pub fn write_file(
        &mut self,
        path: impl AsRef<Path>,
        data: &[u8],
        new: &NewEntry,
    ) -> Result<(), FsError> {
        let path = self.view.real_path(path, Follow::Last)?;
        let mut new = *new;
        if let Some(existing) = self.view.lookup(&path, Follow::NoLast)? {
            let metadata = existing.metadata();
            match metadata.kind {
                crate::FileKind::File => {}
                crate::FileKind::Directory => return Err(FsError::IsADirectory(path)),
                _ => return Err(FsError::NotAFile(path)),
            }
            new.mode = metadata.mode;
            new.owner = new.owner.or(Some(metadata.owner()));
        }
        let (parent, name) = self.parent_of(&path)?;
        let mut file = self.place(&parent, &name, Replace::Files, |dir| dir.create_file(&name))?;
        file.write_all(data).at("write the file", &path)?;
        attributes::set_on_file(&file, &new).at("set the metadata", &path)
    }

    /// Makes a symbolic link at a name that must be free. Links on the way are followed, as is one
    /// at the end that leads to nothing.
    pub fn symlink(
        &mut self,
        target: impl AsRef<OsStr>,
        path: impl AsRef<Path>,
        new: &NewEntry,
    ) -> Result<(), FsError> {
        let path = self.view.real_path(path, Follow::Last)?;
        if self.view.lookup(&path, Follow::NoLast)?.is_some() {
            return Err(FsError::Exists(path));
        }
        let (parent, name) = self.parent_of(&path)?;
        let target = target.as_ref();
        self.place(&parent, &name, Replace::Files, |dir| dir.create_symlink(&name, target))?;
        attributes::set_on_name(&parent.dir, &name, new.owner, None, new.mtime)
            .at("set the metadata", &path)
    }

    /// Removes an entry and everything below it. Links on the way are followed, one at the end is
    /// what is removed.
    ///
    /// # Errors
    /// [`FsError::NotFound`] if there is no such entry.
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<(), FsError> {
        let path = self.view.real_path(path, Follow::NoLast)?;
        if path.as_os_str().is_empty() {
            return Err(FsError::InvalidPath(PathBuf::from("/")));
        }
        if self.view.lookup(&path, Follow::NoLast)?.is_none() {
            return Err(FsError::NotFound(path));
        }
        let (parent, name) = self.parent_of(&path)?;
        self.remove_name(&parent, &name)
    }

    /// Completes the layer: from here on it is immutable.
    pub fn finish(self) -> Result<(), FsError> {
        let upper = &self.root.dir;
        for (path, mtime) in &self.times {
            let dir = upper.resolve_dir(path).at("open the directory", path)?;
            dir.set_own_mtime(*mtime).at("set the modification time", path)?;
        }
        self.shared.save(&self.layer).at("record what the layer shares", Path::new(""))
    }

    /// A directory of the merged tree, copied up with those above it where the layer lacks it.
    /// `path` has no links.
    pub(crate) fn upper_dir(&mut self, path: &Path) -> Result<Arc<UpperDir>, FsError> {
        if let Some(dir) = self.open.get(path) {
            return Ok(Arc::clone(dir));
        }
        let mut dir = Arc::clone(&self.root);
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            if let Some(open) = self.open.get(ancestor) {
                dir = Arc::clone(open);
                break;
            }
            missing.extend(ancestor.file_name());
        }
        for name in missing.into_iter().rev() {
            dir = self.enter(&dir, name)?;
        }
        Ok(dir)
    }

    /// A directory in a directory of the layer, copied up if needed.
    pub(crate) fn enter(
        &mut self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
    ) -> Result<Arc<UpperDir>, FsError> {
        let path = parent.path.join(name);
        let marks = self.layer.marks();
        let entered = match parent.dir.dir(name) {
            Ok(dir) => {
                let opaque =
                    parent.lower.is_some() && dir.is_opaque(marks).at("read the mark", &path)?;
                let lower = if opaque {
                    None
                } else {
                    parent.enter_lower(name).at("open the directory", &path)?
                };
                UpperDir { path, dir, lower }
            }
            Err(Errno::NOENT) => {
                let lower = parent.enter_lower(name).at("open the directory", &path)?;
                let Some(lower) = lower else { return Err(FsError::NotFound(path)) };
                let dir = parent.dir.create_dir(name).at("copy up the directory", &path)?;
                let mtime = attributes::copy_up(&lower, &dir)
                    .at("copy up the directory's metadata", &path)?;
                self.times.insert(path.clone(), mtime);
                UpperDir { path, dir, lower: Some(lower) }
            }
            Err(Errno::NOTDIR) => return Err(FsError::NotADirectory(path)),
            Err(error) => return Err(error).at("open the directory", &path),
        };
        Ok(self.remember(entered))
    }

    /// Sets what [`finish`](Self::finish) leaves as a directory's modification time.
    pub(crate) fn set_dir_mtime(&mut self, path: &Path, mtime: Timestamp) {
        self.times.insert(path.to_path_buf(), mtime);
    }

    /// The number of the file system that the layer is on.
    pub(crate) fn device(&self) -> Option<u64> {
        self.root.dir.own_stat().ok().map(|metadata| metadata.dev)
    }

    pub(crate) fn shared(&mut self) -> &mut SharedInodes {
        &mut self.shared
    }

    /// The layer's directory for the parent of a path without links, and the last name.
    pub(crate) fn parent_of(&mut self, path: &Path) -> Result<(Arc<UpperDir>, OsString), FsError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FsError::IsADirectory(path.to_path_buf()));
        };
        self.require_parent(path)?;
        Ok((self.upper_dir(parent)?, name.to_owned()))
    }

    /// Fails, before anything is copied up, if a path's parent is not a directory.
    fn require_parent(&self, path: &Path) -> Result<(), FsError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.open.contains_key(parent) || parent.as_os_str().is_empty() {
            return Ok(());
        }
        match self.view.lookup(parent, Follow::NoLast)? {
            Some(entry) if entry.metadata().is_dir() => Ok(()),
            Some(_) => Err(FsError::NotADirectory(parent.to_path_buf())),
            None => Err(FsError::NotFound(parent.to_path_buf())),
        }
    }

    fn make_dir(&mut self, path: &Path, new: &NewEntry) -> Result<(), FsError> {
        let (parent, name) = self.parent_of(path)?;
        let dir = self.create_dir(&parent, &name)?;
        attributes::set_on_dir(&dir.dir, new).at("set the metadata", path)?;
        if let Some(mtime) = new.mtime {
            self.set_dir_mtime(path, mtime);
        }
        Ok(())
    }

    pub(crate) fn remember(&mut self, dir: UpperDir) -> Arc<UpperDir> {
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        let dir = Arc::new(dir);
        self.open.insert(dir.path.clone(), Arc::clone(&dir));
        dir
    }

    /// Drops what is known about a directory that is removed, and about all below it.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.open.retain(|open, _| !open.starts_with(path));
        self.times.retain(|open, _| !open.starts_with(path));
    }

    /// Notes that the entries of a directory changed: its modification time is now.
    pub(crate) fn touch(&mut self, path: &Path) {
        self.times.remove(path);
    }
}

/// What may stand at a name where something else is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    /// Anything but a directory.
    Files,
    /// Anything, directories with all they hold.
    Anything,
}
