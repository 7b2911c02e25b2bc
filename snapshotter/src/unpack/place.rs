//! Putting an archive's entries into the layer.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::apply::{ApplyError, metadata, name, write_entry};
use crate::copy::{Cloning, copy_whole};
use crate::error::{At, FsError};
use crate::metadata::{Device, FileKind, Timestamp};
use crate::tar::{Entry, EntryKind, Reader};
use crate::view::{Follow, View};
use crate::writer::upper_dir::UpperDir;
use crate::writer::{LayerWriter, NewEntry, Replace};

pub(super) struct Target<'w> {
    dst: &'w mut LayerWriter,
    /// The destination's path in the merged tree, and the tree below it.
    base: PathBuf,
    view: View,
    /// The directory of the last entry: by its path in the archive, as long as no link can have
    /// changed.
    last: Option<(PathBuf, Arc<UpperDir>)>,
    times: BTreeMap<PathBuf, Timestamp>,
}

impl<'w> Target<'w> {
    pub(super) fn open(dst: &'w mut LayerWriter, path: &Path) -> Result<Self, ApplyError> {
        let base = dst.view().real_path(path, Follow::Last)?;
        // It has to be in the layer before the tree below it is opened.
        dst.upper_dir(&base)?;
        let view = dst.view().below(&base)?;
        Ok(Self { dst, base, view, last: None, times: BTreeMap::new() })
    }

    /// Makes one entry, and returns the size of its content.
    pub(super) fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<u64, ApplyError> {
        let path = name::parse(&entry.name)?;
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            // The destination itself keeps its metadata.
            return Ok(0);
        };
        let parent = self.parent(above)?;
        let path = parent.path.join(name);
        let link = match entry.kind {
            EntryKind::Directory => {
                self.directory(entry, &parent, name)?;
                return Ok(0);
            }
            EntryKind::Hardlink => {
                self.hardlink(entry, &parent, name)?;
                return Ok(0);
            }
            EntryKind::File => {
                let file = self.place(&parent, name, |dir| dir.create_file(name))?;
                return write_entry(file, entry, &path, reader);
            }
            EntryKind::Symlink => Some(OsStr::from_bytes(&entry.link)),
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => None,
        };
        if let Some(link) = link {
            self.place(&parent, name, |dir| dir.create_symlink(name, link))?;
        } else {
            let kind = match entry.kind {
                EntryKind::CharDevice => FileKind::CharDevice,
                EntryKind::BlockDevice => FileKind::BlockDevice,
                _ => FileKind::Fifo,
            };
            if kind == FileKind::CharDevice && entry.device == Device::default() {
                return Err(FsError::ReservedDevice(path).into());
            }
            self.place(&parent, name, |dir| dir.create_node(name, kind, entry.device))?;
        }
        metadata::set_on_name(&parent.dir, name, entry, link.is_none())
            .at("set the metadata", &path)?;
        Ok(0)
    }

    /// Sets the directories' times, now that their entries are there.
    pub(super) fn finish(self) {
        for (path, mtime) in self.times {
            self.dst.set_dir_mtime(&path, mtime);
        }
    }

    /// The layer's directory for a path of the archive, made if the archive has no entry for it.
    fn parent(&mut self, path: &Path) -> Result<Arc<UpperDir>, FsError> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(Arc::clone(dir));
        }
        let real = self.base.join(self.view.real_path(path, Follow::Last)?);
        self.dst.mkdir_all(&real, &NewEntry::mode(0o755))?;
        let dir = self.dst.upper_dir(&real)?;
        self.last = Some((path.to_path_buf(), Arc::clone(&dir)));
        Ok(dir)
    }

    fn place<T>(
        &mut self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
        create: impl Fn(&crate::dir::Dir) -> Result<T, Errno>,
    ) -> Result<T, FsError> {
        if parent.lookup(name).at_path("look up", || parent.path.join(name))?.is_some() {
            self.last = None;
        }
        self.dst.place(parent, name, Replace::Anything, create)
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &Arc<UpperDir>,
        name: &OsStr,
    ) -> Result<(), FsError> {
        let path = parent.path.join(name);
        let dir = match parent.lookup(name).at("look up", &path)? {
            Some(found) if found.is_dir() => self.dst.enter(parent, name)?,
            found => {
                if found.is_some() {
                    self.last = None;
                }
                self.dst.create_dir(parent, name)?
            }
        };
        metadata::set_on_dir(&dir.dir, entry).at("set the metadata", &path)?;
        self.times.insert(path, entry.mtime);
        Ok(())
    }

    fn hardlink(
        &mut self,
        entry: &Entry,
        parent: &Arc<UpperDir>,
        name: &OsStr,
    ) -> Result<(), ApplyError> {
        let link = parent.path.join(name);
        let target = self.view.real_path(name::parse(&entry.link)?, Follow::NoLast)?;
        let missing = || ApplyError::LinkTarget { link: link.clone(), target: target.clone() };
        let found = self.view.lookup(&target, Follow::NoLast)?.ok_or_else(missing)?;
        if found.metadata().is_dir() || self.base.join(&target) == link {
            return Err(missing());
        }
        // A file of the stack below is not shared: its own name keeps what it has.
        if found.layer() + 1 < self.dst.view().depth() && found.metadata().is_file() {
            let file = self.place(parent, name, |dir| dir.create_file(name))?;
            return Ok(copy_whole(&mut Cloning::default(), &found, &file, &link)?);
        }
        self.place(parent, name, |dir| dir.link(name, &found.dir, &found.name))?;
        Ok(())
    }
}
