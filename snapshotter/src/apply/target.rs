//! The layer's directory while it is filled from an archive.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::apply::content::write_entry;
use crate::apply::{ApplyError, Deferred, deferred, metadata, name};
use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::layer::{LayerDir, OverlayMarks};
use crate::metadata::{Device, FileKind, Timestamp};
use crate::remove_tree::remove_tree;
use crate::tar::{Entry, EntryKind, Reader};
use crate::view::{Follow, View};
use crate::whiteout::{self, Mark};

/// Directories that are kept open; archives go through a tree directory by directory.
const MAX_OPEN: usize = 64;

pub(super) struct Target {
    root: Arc<Dir>,
    /// The layer alone, for the resolution of links that lead to nothing yet.
    view: View,
    marks: OverlayMarks,
    /// By path as the archive writes it, which may go through links of the layer.
    open: HashMap<PathBuf, Arc<Dir>>,
    /// What directories get once nothing is put into them any more.
    times: BTreeMap<PathBuf, Timestamp>,
    deferred: Deferred,
}

impl Target {
    pub(super) fn open(layer: &LayerDir) -> Result<Self, ApplyError> {
        let root = Arc::new(layer.open().at("open the layer", Path::new(""))?);
        Ok(Self {
            root,
            view: View::empty().with_layer(layer)?,
            marks: layer.marks(),
            open: HashMap::new(),
            times: BTreeMap::new(),
            deferred: Deferred::default(),
        })
    }

    /// Makes one entry, and returns the size of its content.
    pub(super) fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<u64, ApplyError> {
        let path = name::parse(&entry.name)?;
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            // The root itself: its metadata belong to no layer.
            return Ok(0);
        };
        match whiteout::parse(name) {
            Mark::None => {}
            Mark::Ignored => return Ok(0),
            Mark::Invalid => return Err(ApplyError::Whiteout(path)),
            Mark::Opaque => {
                let dir = self.dir(above)?;
                dir.set_opaque(self.marks).at("mark the directory opaque", above)?;
                return Ok(0);
            }
            Mark::Whiteout(hidden) => {
                let dir = self.dir(above)?;
                self.hide(&dir, hidden).at("create the whiteout", &path)?;
                return Ok(0);
            }
        }
        let dir = self.dir(above)?;
        match entry.kind {
            EntryKind::File => return self.file(entry, &dir, &path, name, reader),
            EntryKind::Directory => self.directory(entry, &dir, &path, name)?,
            EntryKind::Hardlink => self.hardlink(entry, &dir, &path, name)?,
            EntryKind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                self.create(&dir, &path, |dir| dir.create_symlink(name, target))?;
                metadata::set_on_name(&dir, name, entry, false).at("set the metadata", &path)?;
            }
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                self.node(entry, &dir, &path, name)?;
            }
        }
        Ok(0)
    }

    /// Sets what had to wait for the last entry.
    pub(super) fn finish(self) -> Result<Deferred, ApplyError> {
        for (path, mtime) in &self.times {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
            // Gone, if a later entry of the archive replaced it or what is above it.
            let Ok(above) = self.root.resolve_dir(above) else { continue };
            let Ok(dir) = above.dir(name) else { continue };
            dir.set_own_mtime(*mtime).at("set the modification time", path)?;
        }
        Ok(self.deferred)
    }

    /// A directory of the layer, made with those above it if the archive had no entry for it.
    fn dir(&mut self, path: &Path) -> Result<Arc<Dir>, FsError> {
        if path.as_os_str().is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(dir) = self.open.get(path) {
            return Ok(Arc::clone(dir));
        }
        let dir = match self.root.resolve_dir(path) {
            Ok(dir) => Arc::new(dir),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parent(path)?,
            Err(Errno::LOOP) => return Err(FsError::SymlinkLoop(path.to_path_buf())),
            Err(error) => return Err(error).at("open the directory", path),
        };
        self.remember(path, &dir);
        Ok(dir)
    }

    fn make_parent(&mut self, path: &Path) -> Result<Arc<Dir>, FsError> {
        let blocked = || FsError::NotADirectory(path.to_path_buf());
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(blocked());
        };
        let above = self.dir(above)?;
        let found = above.stat(name).at("look up", path)?;
        match found {
            None => {}
            Some(found) if found.is_whiteout() => {}
            Some(found) if found.is_symlink() => {
                // It leads to what other layers have, or to nothing: the entries lie there.
                let real = self.view.real_path(path, Follow::Last)?;
                return if real == path { Err(blocked()) } else { self.dir(&real) };
            }
            Some(_) => return Err(blocked()),
        }
        let dir = self.make_dir(&above, path, name)?;
        dir.set_own_mode(0o755).at("set the metadata", path)?;
        self.deferred.implicit.insert(path.to_path_buf());
        Ok(Arc::new(dir))
    }

    /// Makes a directory where nothing is, or a whiteout: what that hid stays hidden.
    fn make_dir(&mut self, above: &Dir, path: &Path, name: &OsStr) -> Result<Dir, FsError> {
        match above.create_dir(name) {
            Err(Errno::EXIST) => {}
            result => return result.at("create the directory", path),
        }
        let hid = above.stat(name).at("look up", path)?.is_some_and(|found| found.is_whiteout());
        self.clear(above, path, name)?;
        let dir = above.create_dir(name).at("create the directory", path)?;
        if hid {
            dir.set_opaque(self.marks).at("mark the directory opaque", path)?;
        }
        Ok(dir)
    }

    fn remember(&mut self, path: &Path, dir: &Arc<Dir>) {
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        self.open.insert(path.to_path_buf(), Arc::clone(dir));
    }

    /// Removes what an earlier entry made at a name: the later one counts.
    fn clear(&mut self, dir: &Dir, path: &Path, name: &OsStr) -> Result<(), FsError> {
        // Any path may have gone through it.
        self.open.clear();
        remove_tree(dir, name).at("remove", path)
    }

    /// Creates something that is not a directory.
    fn create<T>(
        &mut self,
        dir: &Dir,
        path: &Path,
        create: impl Fn(&Dir) -> Result<T, Errno>,
    ) -> Result<T, FsError> {
        match create(dir) {
            Err(Errno::EXIST) => {
                self.clear(dir, path, path.file_name().unwrap_or_default())?;
                create(dir)
            }
            result => result,
        }
        .at("create", path)
    }

    /// Hides a name of the layers below. What this layer has there stays.
    fn hide(&self, dir: &Dir, hidden: &OsStr) -> std::io::Result<()> {
        match dir.stat(hidden)? {
            None => Ok(dir.create_whiteout(hidden)?),
            Some(found) if found.is_dir() => dir.dir(hidden)?.set_opaque(self.marks),
            Some(_) => Ok(()),
        }
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        dir: &Dir,
        path: &Path,
        name: &OsStr,
        reader: &mut Reader<R>,
    ) -> Result<u64, ApplyError> {
        let file = self.create(dir, path, |dir| dir.create_file(name))?;
        write_entry(file, entry, path, reader)
    }

    fn directory(
        &mut self,
        entry: &Entry,
        above: &Dir,
        path: &Path,
        name: &OsStr,
    ) -> Result<(), FsError> {
        // One that is there is kept with its entries.
        let dir = match above.dir(name) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_dir(above, path, name)?,
            Err(error) => return Err(error).at("open the directory", path),
        };
        metadata::set_on_dir(&dir, entry).at("set the metadata", path)?;
        self.times.insert(path.to_path_buf(), entry.mtime);
        self.deferred.implicit.remove(path);
        self.remember(path, &Arc::new(dir));
        Ok(())
    }

    fn hardlink(
        &mut self,
        entry: &Entry,
        dir: &Dir,
        path: &Path,
        name: &OsStr,
    ) -> Result<(), ApplyError> {
        let target = name::parse(&entry.link)?;
        if target == path {
            return Err(ApplyError::LinkTarget { link: target.clone(), target });
        }
        match deferred::find(&self.root, &target)? {
            Some((from, from_name)) => {
                self.create(dir, path, |dir| dir.link(name, &from, from_name))?;
            }
            None => self.deferred.links.push((path.to_path_buf(), target)),
        }
        Ok(())
    }

    fn node(&mut self, entry: &Entry, dir: &Dir, path: &Path, name: &OsStr) -> Result<(), FsError> {
        let kind = match entry.kind {
            EntryKind::CharDevice => FileKind::CharDevice,
            EntryKind::BlockDevice => FileKind::BlockDevice,
            _ => FileKind::Fifo,
        };
        if kind == FileKind::CharDevice && entry.device == Device::default() {
            return Err(FsError::ReservedDevice(path.to_path_buf()));
        }
        let created =
            self.create(dir, path, |dir| match dir.create_node(name, kind, entry.device) {
                // In a user namespace nobody may make devices; images are used there without.
                Err(Errno::PERM) => Ok(false),
                result => result.map(|()| true),
            })?;
        if !created {
            tracing::warn!(path = %path.display(), "device node left out: not permitted");
            return Ok(());
        }
        metadata::set_on_name(dir, name, entry, true).at("set the metadata", path)
    }
}
