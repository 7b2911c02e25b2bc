//! Bringing a written layer down to what it changes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

use crate::diff::compare::{Side, is_alike};
use crate::dir::{Dir, Name};
use crate::error::{At, FsError};
use crate::layer::{LayerDir, OverlayMarks};
use crate::metadata::{FileKind, Metadata};
use crate::view::View;
use crate::view::merged_dir::MergedDir;

/// How deep a layer is looked through. Every directory on the way stays open, with those below it;
/// what lies deeper stays as it was written, which is right on this stack and only says more than
/// it has to on others.
const MAX_DEPTH: usize = 100;

/// Makes a layer that is complete, but not in use yet, say no more than how it differs from the
/// stack that it was written on. What the two show together stays the same in every detail.
///
/// Files that were copied up and have not changed are removed, as are such directories with nothing
/// left in them, and whiteouts of nothing. A directory that was removed and made anew, which
/// overlayfs marks as opaque, gets a whiteout of each name instead that it no longer has. So the
/// layer means the same wherever it is merged: an opaque directory would hide what others have put
/// there, and overlayfs marks even new ones.
pub fn reduce(layer: &LayerDir, lower: &View) -> Result<(), FsError> {
    let path = Path::new("");
    let root = layer.open().at("open the layer", path)?;
    let level = Level { path, lower: Some(lower.root()), is_hidden: false, depth: 0 };
    Reducer { marks: layer.marks() }.directory(&root, &level)?;
    Ok(())
}

struct Reducer {
    marks: OverlayMarks,
}

/// Where in the layer a directory is.
struct Level<'a> {
    path: &'a Path,
    /// The same directory of the stack below, if there is one.
    lower: Option<&'a MergedDir>,
    /// Whether, because of a mark further up, nothing of the stack below is shown in it.
    is_hidden: bool,
    depth: usize,
}

impl Reducer {
    /// Reduces one directory, and says whether nothing is left in it.
    fn directory(&self, dir: &Dir, level: &Level<'_>) -> Result<bool, FsError> {
        let path = level.path;
        let before = dir.own_stat().at("read the metadata", path)?;
        let is_marked = dir.is_opaque(self.marks).at("read the mark", path)?;
        let is_hidden = level.is_hidden || is_marked;
        let names = dir.names().at("read the directory", path)?;
        let mut left = names.len();
        for entry in &names {
            left -= usize::from(self.entry(dir, entry, level, is_hidden)?);
        }
        let mut is_changed = left < names.len();
        if let Some(lower) = level.lower.filter(|_| is_hidden) {
            let known: HashSet<_> = names.iter().map(|entry| &entry.name).collect();
            for child in lower.children().at("read the directory below", path)? {
                if !known.contains(&child.name) {
                    dir.create_whiteout(&child.name).at("create the whiteout", path)?;
                    (left, is_changed) = (left + 1, true);
                }
            }
        }
        if is_marked {
            dir.remove_own_xattr(self.marks.opaque()).at("remove the mark", path)?;
        }
        if is_changed {
            dir.set_own_mtime(before.mtime).at("set the modification time", path)?;
        }
        Ok(left == 0)
    }

    /// Reduces an entry of a directory, and says whether it is gone.
    fn entry(
        &self,
        dir: &Dir,
        Name { name, kind }: &Name,
        level: &Level<'_>,
        is_hidden: bool,
    ) -> Result<bool, FsError> {
        let path = || level.path.join(name);
        // Of what is all new, only directories and whiteouts are of interest.
        let may_be_left = !matches!(kind, None | Some(FileKind::Directory | FileKind::CharDevice));
        if level.lower.is_none() && may_be_left {
            return Ok(false);
        }
        let Some(metadata) = dir.stat(name).at_path("look up", path)? else { return Ok(true) };
        if metadata.is_dir() {
            return self.inner_directory(dir, name, &metadata, level, is_hidden);
        }
        let below = match level.lower {
            Some(lower) => lower.child(name).at_path("look up below", path)?,
            None => None,
        };
        if metadata.is_whiteout() {
            if below.is_none() {
                dir.unlink(name).at_path("remove the whiteout", path)?;
            }
            return Ok(below.is_none());
        }
        let Some((part, below)) = below else { return Ok(false) };
        let above = Side { dir, name, metadata: &metadata };
        let below = Side { dir: &part.dir, name, metadata: &below };
        let is_alike = is_alike(&above, &below).at_path("compare with the stack below", path)?;
        if is_alike {
            dir.unlink(name).at_path("remove what has not changed", path)?;
        }
        Ok(is_alike)
    }

    fn inner_directory(
        &self,
        parent: &Dir,
        name: &OsStr,
        metadata: &Metadata,
        level: &Level<'_>,
        is_hidden: bool,
    ) -> Result<bool, FsError> {
        let path = level.path.join(name);
        let dir = parent.dir(name).at("open the directory", &path)?;
        let lower = match level.lower {
            Some(lower) => lower.enter(name).at("open the directory below", &path)?,
            None => None,
        };
        if level.depth == MAX_DEPTH {
            if is_hidden && lower.is_some() {
                dir.set_opaque(self.marks).at("mark the directory opaque", &path)?;
            }
            return Ok(false);
        }
        let inner = Level { path: &path, lower: lower.as_ref(), is_hidden, depth: level.depth + 1 };
        if !self.directory(&dir, &inner)? {
            return Ok(false);
        }
        let Some(top) = lower.as_ref().and_then(MergedDir::top) else { return Ok(false) };
        let below = top.dir.own_stat().at("read the metadata", &path)?;
        let above = Side { dir: parent, name, metadata };
        let below = Side { dir: &top.dir, name: OsStr::new("."), metadata: &below };
        let is_alike = is_alike(&above, &below).at("compare with the stack below", &path)?;
        if is_alike {
            parent.remove_dir(name).at("remove what has not changed", &path)?;
        }
        Ok(is_alike)
    }
}
