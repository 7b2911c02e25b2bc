//! What of a layer can be completed only over its stack.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::apply::ApplyError;
use crate::copy::{Cloning, copy_whole};
use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::layer::LayerDir;
use crate::view::{Entry, Follow, View};

/// What an unpacked layer leaves open until the stack below it is known.
#[derive(Debug, Default)]
#[must_use = "a layer with deferred parts is complete only once they are settled"]
pub struct Deferred {
    /// Directories that the archive had entries in, but no entry for.
    pub(super) implicit: BTreeSet<PathBuf>,
    /// Hardlinks whose target is not in the layer, with the target, in the archive's order.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

impl Deferred {
    /// Whether the layer is complete by itself.
    pub fn is_empty(&self) -> bool {
        self.implicit.is_empty() && self.links.is_empty()
    }

    /// Completes the layer with what the stack below it has.
    ///
    /// # Errors
    /// [`ApplyError::LinkTarget`] if a hardlink's target is nowhere.
    pub fn settle(self, layer: &LayerDir, parents: &View) -> Result<(), ApplyError> {
        let root = layer.open().at("open the layer", Path::new(""))?;
        for (link, target) in self.links {
            settle_link(&root, parents, &link, &target)?;
        }
        for path in self.implicit {
            settle_directory(&root, parents, &path)?;
        }
        Ok(())
    }
}

fn settle_link(root: &Dir, parents: &View, link: &Path, target: &Path) -> Result<(), ApplyError> {
    let missing =
        || ApplyError::LinkTarget { link: link.to_path_buf(), target: target.to_path_buf() };
    let (Some(above), Some(name)) = (link.parent(), link.file_name()) else {
        return Err(missing());
    };
    let dir = root.resolve_dir(above).at("open the directory", above)?;
    let mtime = dir.own_stat().at("read the metadata", above)?.mtime;
    // An earlier link of the archive may be the target of a later one.
    if let Some((from, from_name)) = find(root, target)? {
        match dir.link(name, &from, from_name) {
            // A later entry of the archive took the name.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at("create the hardlink", link)?,
        }
    } else {
        let found = parents.lookup(target, Follow::NoLast)?.ok_or_else(missing)?;
        if found.metadata().is_dir() {
            return Err(missing());
        }
        link_or_copy(&dir, link, &found)?;
    }
    Ok(dir.set_own_mtime(mtime).at("set the modification time", above)?)
}

/// A file of the layer itself that a hardlink can have as its target.
pub(super) fn find<'a>(
    root: &Dir,
    target: &'a Path,
) -> Result<Option<(Dir, &'a std::ffi::OsStr)>, FsError> {
    let (Some(above), Some(name)) = (target.parent(), target.file_name()) else {
        return Ok(None);
    };
    let dir = match root.resolve_dir(above) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error).at("open the directory", above),
    };
    let found = dir.stat(name).at("look up", target)?;
    let usable = found.is_some_and(|found| !found.is_dir() && !found.is_whiteout());
    Ok(usable.then_some((dir, name)))
}

/// Files of finished layers are never changed, so the two layers can share the inode.
fn link_or_copy(dir: &Dir, link: &Path, found: &Entry) -> Result<(), FsError> {
    let name = link.file_name().unwrap_or_default();
    match dir.link(name, &found.dir, &found.name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::XDEV | Errno::MLINK | Errno::PERM) if found.metadata().is_file() => {
            let file = dir.create_file(name).at("create", link)?;
            copy_whole(&mut Cloning::default(), found, &file, link)
        }
        Err(error) => Err(error).at("create the hardlink", link),
    }
}

/// Gives a directory that the archive took for granted the metadata of the one below.
fn settle_directory(root: &Dir, parents: &View, path: &Path) -> Result<(), FsError> {
    let dir = match root.resolve_dir(path) {
        Ok(dir) => dir,
        // Replaced by something else further on in the archive.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error).at("open the directory", path),
    };
    let Some(below) = parents.lookup(path, Follow::Last)? else { return Ok(()) };
    let metadata = below.metadata();
    if !metadata.is_dir() {
        return Ok(());
    }
    let set = || -> std::io::Result<()> {
        dir.set_own_owner(metadata.owner())?;
        dir.set_own_mode(metadata.mode)?;
        Ok(dir.set_own_mtime(metadata.mtime)?)
    };
    set().at("set the metadata", path)?;
    for (key, value) in below.xattrs()? {
        if !key.starts_with(b"trusted.") {
            dir.set_own_xattr(&key, &value).at("set an extended attribute", path)?;
        }
    }
    dir.set_own_mtime(metadata.mtime).at("set the modification time", path)
}
