//! Depth-first traversal of a merged tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{At, FsError};
use crate::view::View;
use crate::view::entry::Entry;
use crate::view::merged_dir::{Child, MergedDir};

/// Directories above the current one that stay open. Those further up are closed and opened again
/// on the way back, so that the depth of a foreign tree does not decide how many descriptors a
/// walk takes.
const MAX_OPEN: usize = 64;

/// The entries below a directory, a directory before its content, siblings sorted by byte.
///
/// Made by [`View::walk`]. Symbolic links are entries like others and are not followed.
#[derive(Debug)]
pub struct Walk {
    view: View,
    levels: Vec<Level>,
    /// The directory that was returned last, still to be entered.
    next: Option<PathBuf>,
}

#[derive(Debug)]
struct Level {
    path: PathBuf,
    dir: Option<Arc<MergedDir>>,
    children: std::vec::IntoIter<Child>,
}

impl Walk {
    pub(crate) fn new(view: View, path: PathBuf) -> Self {
        Self { view, levels: Vec::new(), next: Some(path) }
    }

    /// Leaves out the content of the directory that was returned last.
    pub fn skip_dir(&mut self) {
        self.next = None;
    }

    fn open(&self, path: &Path) -> Result<Arc<MergedDir>, FsError> {
        let dir = match (self.levels.last(), path.file_name()) {
            (Some(Level { dir: Some(parent), .. }), Some(name)) => {
                parent.enter(name).at("open the directory", path)?.map(Arc::new)
            }
            _ => self.view.merged(path)?,
        };
        dir.ok_or_else(|| FsError::NotADirectory(path.to_path_buf()))
    }

    /// Opens the innermost level again, and with it those above that the way back needs next.
    fn reopen(&mut self) -> Result<(), FsError> {
        let depth = self.levels.len();
        let mut dir: Option<Arc<MergedDir>> = None;
        for (index, level) in self.levels.iter_mut().enumerate() {
            let entered = match (&dir, level.path.file_name()) {
                (Some(above), Some(name)) => {
                    above.enter(name).at("open the directory", &level.path)?.map(Arc::new)
                }
                _ => self.view.merged(&level.path)?,
            };
            let entered = entered.ok_or_else(|| FsError::NotADirectory(level.path.clone()))?;
            if index + MAX_OPEN >= depth {
                level.dir = Some(Arc::clone(&entered));
            }
            dir = Some(entered);
        }
        Ok(())
    }

    fn descend(&mut self, path: PathBuf) -> Result<(), FsError> {
        let dir = self.open(&path)?;
        let children = dir.children().at("read the directory", &path)?.into_iter();
        self.levels.push(Level { path, dir: Some(dir), children });
        if let Some(above) = self.levels.len().checked_sub(MAX_OPEN + 1) {
            self.levels[above].dir = None;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Entry>, FsError> {
        if let Some(path) = self.next.take() {
            self.descend(path)?;
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let Some(child) = level.children.next() else {
                self.levels.pop();
                continue;
            };
            if level.dir.is_none() {
                self.reopen()?;
            }
            let Some(Level { path, dir: Some(dir), .. }) = self.levels.last() else { continue };
            let path = path.join(&child.name);
            // A part that is gone means that the tree changed since its names were read.
            let Some(part) = dir.parts.get(child.part) else { continue };
            let Some(metadata) = part.dir.stat(&child.name).at("look up", &path)? else { continue };
            if metadata.is_dir() {
                self.next = Some(path.clone());
            }
            let (layer, dir) = (part.layer, Arc::clone(&part.dir));
            return Ok(Some(Entry { path, layer, metadata, dir, name: child.name }));
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Entry, FsError>;

    /// An error ends the walk.
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.step().transpose();
        if matches!(entry, Some(Err(_))) {
            self.levels.clear();
            self.next = None;
        }
        entry
    }
}
