//! The copy itself: one walk over the source, with the destination's directories beside it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::copy::file::{self, Cloning};
use crate::copy::{Copied, CopyError, CopyOptions, Decision};
use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::layer::LayerDir;
use crate::metadata::FileKind;
use crate::view::{Entry, View};
use crate::writer::attributes::set_on_name;
use crate::writer::upper_dir::UpperDir;
use crate::writer::{LayerWriter, Replace};

/// Destination directories above the current one that stay open.
const MAX_OPEN: usize = 64;

pub(super) struct Engine<'e, 'o> {
    src: &'e View,
    dst: &'e mut LayerWriter,
    options: &'e mut CopyOptions<'o>,
    /// Where the first name of a source inode with several names went, by layer and number.
    links: HashMap<(usize, u64), PathBuf>,
    /// The file system that is written to: files of others cannot be linked.
    device: Option<u64>,
    cloning: Cloning,
    levels: Vec<Level>,
    copied: Copied,
}

/// A source directory that the walk is in.
struct Level {
    source: Entry,
    target: PathBuf,
    dir: Option<Arc<UpperDir>>,
    state: State,
    decision: Decision,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not at the destination yet: perhaps nothing below will be copied.
    Pending,
    /// It was there before.
    Merged,
    Made,
}

impl<'e, 'o> Engine<'e, 'o> {
    pub(super) fn new(
        src: &'e View,
        dst: &'e mut LayerWriter,
        options: &'e mut CopyOptions<'o>,
    ) -> Self {
        let device = dst.device();
        Self {
            src,
            dst,
            options,
            links: HashMap::new(),
            device,
            cloning: Cloning::default(),
            levels: Vec::new(),
            copied: Copied::default(),
        }
    }

    pub(super) fn run(mut self, source: Entry, target: PathBuf) -> Result<Copied, CopyError> {
        if !source.metadata().is_dir() {
            let (parent, name) = self.dst.parent_of(&target).map_err(CopyError::Destination)?;
            self.copy_leaf(&source, &parent, &name)?;
            return Ok(self.copied);
        }
        let top = source.path().to_path_buf();
        let mut walk = self.src.walk(&top).map_err(CopyError::Source)?;
        self.enter(source, target, Decision::Include)?;
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(CopyError::Source)?;
            if self.options.is_cancelled() {
                return Err(CopyError::Cancelled);
            }
            while self
                .levels
                .last()
                .is_some_and(|level| Some(level.source.path()) != entry.path().parent())
            {
                self.leave()?;
            }
            let is_dir = entry.metadata().is_dir();
            let below = entry.path().strip_prefix(&top).unwrap_or(entry.path());
            match self.options.decide(below, is_dir) {
                Decision::Skip if is_dir => walk.skip_dir(),
                Decision::Skip => {}
                decision if is_dir => {
                    let name = entry.path().file_name().unwrap_or_default();
                    let parent = self.levels.last().map(|level| level.target.as_path());
                    let target = parent.unwrap_or(Path::new("")).join(name);
                    self.enter(entry, target, decision)?;
                }
                Decision::Include => {
                    let parent = self.current()?;
                    let name = entry.path().file_name().unwrap_or_default().to_owned();
                    self.copy_leaf(&entry, &parent, &name)?;
                }
                Decision::Descend => {}
            }
        }
        while !self.levels.is_empty() {
            self.leave()?;
        }
        Ok(self.copied)
    }

    fn enter(
        &mut self,
        source: Entry,
        target: PathBuf,
        decision: Decision,
    ) -> Result<(), CopyError> {
        self.levels.push(Level { source, target, dir: None, state: State::Pending, decision });
        if decision == Decision::Include {
            self.current()?;
        }
        if let Some(above) = self.levels.len().checked_sub(MAX_OPEN + 1) {
            self.levels[above].dir = None;
        }
        Ok(())
    }

    /// The destination of the innermost level, made if it was pending.
    fn current(&mut self) -> Result<Arc<UpperDir>, CopyError> {
        // Mostly only the last one is missing.
        let first =
            self.levels.iter().rposition(|level| level.dir.is_some()).map_or(0, |at| at + 1);
        for index in first..self.levels.len() {
            self.open_level(index).map_err(CopyError::Destination)?;
        }
        let dir = self.levels.last().and_then(|level| level.dir.clone());
        dir.ok_or_else(|| CopyError::Destination(FsError::InvalidPath(PathBuf::new())))
    }

    fn open_level(&mut self, index: usize) -> Result<(), FsError> {
        let level = &self.levels[index];
        let target = level.target.clone();
        if level.state != State::Pending {
            self.levels[index].dir = Some(self.dst.upper_dir(&target)?);
            return Ok(());
        }
        let Some(name) = target.file_name() else {
            self.levels[index].dir = Some(self.dst.upper_dir(&target)?);
            self.levels[index].state = State::Merged;
            return Ok(());
        };
        let parent = match index.checked_sub(1).and_then(|above| self.levels[above].dir.clone()) {
            Some(dir) => dir,
            None => self.dst.parent_of(&target)?.0,
        };
        let (dir, state) = match parent.lookup(name).at("look up", &target)? {
            Some(found) if found.is_dir() => (self.dst.enter(&parent, name)?, State::Merged),
            Some(_) if !self.options.always_replace => {
                return Err(FsError::NotADirectory(target));
            }
            _ => (self.dst.create_dir(&parent, name)?, State::Made),
        };
        self.copied.entries += 1;
        self.levels[index].dir = Some(dir);
        self.levels[index].state = state;
        Ok(())
    }

    /// Completes a directory once its entries no longer move its modification time.
    fn leave(&mut self) -> Result<(), CopyError> {
        let depth = self.levels.len();
        let Some(level) = self.levels.pop() else { return Ok(()) };
        let is_top = depth == 1;
        let metadata = *level.source.metadata();
        let takes_metadata = match level.state {
            State::Pending => return Ok(()),
            State::Made => true,
            State::Merged => !is_top && level.decision == Decision::Include,
        };
        let mtime = self.options.mtime_of(&metadata);
        if takes_metadata {
            let dir = match level.dir {
                Some(dir) => dir,
                None => self.dst.upper_dir(&level.target).map_err(CopyError::Destination)?,
            };
            let set = || -> std::io::Result<()> {
                dir.dir.set_own_owner(self.options.owner_of(&metadata))?;
                Ok(dir.dir.set_own_mode(self.options.mode_of(&metadata))?)
            };
            set().at("set the metadata", &level.target).map_err(CopyError::Destination)?;
            for (key, value) in level.source.xattrs().map_err(CopyError::Source)? {
                file::tolerate(dir.dir.set_own_xattr(&key, &value), &key, &level.target);
            }
        }
        if takes_metadata || is_top {
            self.dst.set_dir_mtime(&level.target, mtime);
        }
        Ok(())
    }

    fn copy_leaf(
        &mut self,
        entry: &Entry,
        parent: &Arc<UpperDir>,
        name: &OsStr,
    ) -> Result<(), CopyError> {
        self.copied.entries += 1;
        let replace = if self.options.always_replace { Replace::Anything } else { Replace::Files };
        let kind = entry.metadata().kind;
        match kind {
            FileKind::File => return self.copy_file(entry, parent, name, replace),
            FileKind::Symlink => {
                let link = entry.read_link().map_err(CopyError::Source)?;
                self.dst.place(parent, name, replace, |dir| dir.create_symlink(name, &link))
            }
            // A socket is nothing without the process behind it: as in BuildKit, an empty file.
            FileKind::Socket => {
                self.dst.place(parent, name, replace, |dir| dir.create_file(name).map(drop))
            }
            _ if entry.metadata().is_whiteout() => {
                Err(FsError::ReservedDevice(entry.path().to_path_buf()))
            }
            _ => {
                let device = entry.metadata().rdev;
                self.dst.place(parent, name, replace, |dir| dir.create_node(name, kind, device))
            }
        }
        .map_err(CopyError::Destination)?;
        self.set_metadata(entry, parent, name)
    }

    fn set_metadata(
        &self,
        entry: &Entry,
        parent: &UpperDir,
        name: &OsStr,
    ) -> Result<(), CopyError> {
        let metadata = entry.metadata();
        let path = || parent.path.join(name);
        let mode = (!metadata.is_symlink()).then(|| self.options.mode_of(metadata));
        let (owner, mtime) = (self.options.owner_of(metadata), self.options.mtime_of(metadata));
        set_on_name(&parent.dir, name, Some(owner), mode, Some(mtime))
            .at_path("set the metadata", path)
            .map_err(CopyError::Destination)?;
        for (key, value) in entry.xattrs().map_err(CopyError::Source)? {
            file::tolerate(parent.dir.set_xattr(name, &key, &value), &key, &path());
        }
        Ok(())
    }

    fn copy_file(
        &mut self,
        entry: &Entry,
        parent: &Arc<UpperDir>,
        name: &OsStr,
        replace: Replace,
    ) -> Result<(), CopyError> {
        let metadata = entry.metadata();
        let inode = (entry.layer(), metadata.ino);
        if metadata.nlink > 1 {
            if let Some(first) = self.links.get(&inode).cloned() {
                let (dir, first) = self.dst.parent_of(&first).map_err(CopyError::Destination)?;
                if self.link(parent, name, replace, (&dir.dir, &first))? {
                    return Ok(());
                }
            }
            self.links.insert(inode, parent.path.join(name));
        }
        let layer = self.src.layer(entry.layer());
        let may_link = self.dst.shared().may_link(layer.map(LayerDir::id), metadata.ino)
            // The name has the file already: it stays the only one.
            || parent
                .lookup_lower(name)
                .at_path("look up", || parent.path.join(name))
                .map_err(CopyError::Destination)?
                .is_some_and(|below| (below.dev, below.ino) == (metadata.dev, metadata.ino));
        if self.device == Some(metadata.dev)
            && self.options.keeps(metadata)
            && !self.options.own_files
            && may_link
            && self.link(parent, name, replace, (&entry.dir, &entry.name))?
        {
            let noted = self.dst.shared().add(layer, metadata.ino);
            noted.at("read what the layer shares", entry.path()).map_err(CopyError::Source)?;
            self.copied.linked += 1;
            return Ok(());
        }
        let source = entry.open().map_err(CopyError::Source)?;
        let target = self
            .dst
            .place(parent, name, replace, |dir| dir.create_file(name))
            .map_err(CopyError::Destination)?;
        let path = parent.path.join(name);
        self.cloning
            .copy_content(&source, &target)
            .at("copy the content", &path)
            .map_err(CopyError::Destination)?;
        let (owner, mode, mtime) = (
            self.options.owner_of(metadata),
            self.options.mode_of(metadata),
            self.options.mtime_of(metadata),
        );
        file::set_metadata(&target, owner, mode)
            .at("set the metadata", &path)
            .map_err(CopyError::Destination)?;
        file::copy_xattrs(&source, &target, &path)
            .at("read the extended attributes", entry.path())
            .map_err(CopyError::Source)?;
        crate::dir::set_mtime(&target, mtime)
            .at("set the modification time", &path)
            .map_err(CopyError::Destination)
    }

    /// Tries to make a hardlink; `false` if the two places or the file do not allow one.
    fn link(
        &mut self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
        replace: Replace,
        (from, from_name): (&Dir, &OsStr),
    ) -> Result<bool, CopyError> {
        let link = |dir: &Dir| match dir.link(name, from, from_name) {
            Ok(()) => Ok(true),
            // Too many names already, a file that this user may not link, a mount in between.
            Err(Errno::MLINK | Errno::PERM | Errno::XDEV) => Ok(false),
            Err(error) => Err(error),
        };
        self.dst.place(parent, name, replace, link).map_err(CopyError::Destination)
    }
}
