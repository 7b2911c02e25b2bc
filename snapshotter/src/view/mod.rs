//! The merged read-only view of a stack, in user space.

mod entry;
mod glob;
pub(crate) mod merged_dir;
pub(crate) mod resolve;
mod walk;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::layer::LayerDir;
use crate::metadata::Xattrs;

pub use entry::Entry;
pub use resolve::Follow;
pub use walk::Walk;

use merged_dir::{MergedDir, Part};
use resolve::{Resolved, resolve};

/// A stack of layers, or a plain tree, read as one file system.
///
/// Paths may be absolute or relative; both start at the root of the tree, and `..` does not leave
/// it. Cloning shares the open directories.
#[derive(Debug, Clone)]
pub struct View {
    root: Arc<MergedDir>,
    /// The layers, bottom first; `None` for a plain tree.
    layers: Vec<Option<LayerDir>>,
}

impl View {
    /// A tree without any entry.
    pub fn empty() -> Self {
        Self { root: Arc::default(), layers: Vec::new() }
    }

    /// The merged tree of a stack, bottom first.
    pub fn of_layers(stack: &[LayerDir]) -> Result<Self, FsError> {
        let mut parts = Vec::with_capacity(stack.len());
        for (position, layer) in stack.iter().enumerate() {
            let (part, hides_below) = root_of(layer, position)?;
            if hides_below {
                parts.clear();
            }
            parts.push(part);
        }
        parts.reverse();
        let layers = stack.iter().cloned().map(Some).collect();
        Ok(Self { root: Arc::new(MergedDir { parts }), layers })
    }

    /// One directory as it is: nothing in it is taken for a whiteout or a mark.
    pub fn of_directory(path: &Path) -> Result<Self, FsError> {
        let dir = Arc::new(Dir::open(path).at("open the tree", Path::new(""))?);
        let parts = vec![Part { layer: 0, dir, marks: None }];
        Ok(Self { root: Arc::new(MergedDir { parts }), layers: vec![None] })
    }

    /// This tree with one more layer on top.
    pub fn with_layer(&self, layer: &LayerDir) -> Result<Self, FsError> {
        let (part, hides_below) = root_of(layer, self.layers.len())?;
        let mut parts = Vec::with_capacity(self.root.parts.len() + 1);
        parts.push(part);
        if !hides_below {
            parts.extend(self.root.parts.iter().cloned());
        }
        let mut layers = self.layers.clone();
        layers.push(Some(layer.clone()));
        Ok(Self { root: Arc::new(MergedDir { parts }), layers })
    }

    /// What a path names; `None` if nothing, also where the path leads through a file.
    pub fn lookup(&self, path: impl AsRef<Path>, follow: Follow) -> Result<Option<Entry>, FsError> {
        match resolve(&self.root, path.as_ref(), follow)? {
            Resolved::Root => match self.root.top() {
                Some(top) => Ok(Some(Entry::root(top.layer, Arc::clone(&top.dir))?)),
                None => Ok(None),
            },
            Resolved::Found { path, part, metadata, .. } => {
                let name = path.file_name().unwrap_or_default().to_owned();
                Ok(Some(Entry { path, layer: part.layer, metadata, dir: part.dir, name }))
            }
            Resolved::Missing { .. } | Resolved::Blocked { .. } => Ok(None),
        }
    }

    /// Where a path leads once its symbolic links are resolved, whether or not something is there:
    /// from the first name that does not exist on, it is taken as written.
    pub fn real_path(&self, path: impl AsRef<Path>, follow: Follow) -> Result<PathBuf, FsError> {
        match resolve(&self.root, path.as_ref(), follow)? {
            Resolved::Root => Ok(PathBuf::new()),
            Resolved::Found { path, .. } | Resolved::Missing { path } => Ok(path),
            Resolved::Blocked { path } => Err(FsError::NotADirectory(path)),
        }
    }

    /// The entries of a directory, sorted by name; a link to a directory is followed.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<Entry>, FsError> {
        let (path, dir) = self.directory(path.as_ref())?;
        let mut entries = Vec::new();
        for child in dir.children().at("read the directory", &path)? {
            let part = &dir.parts[child.part];
            let path = path.join(&child.name);
            // Gone since the names were read: then it is no entry.
            if let Some(metadata) = part.dir.stat(&child.name).at("look up", &path)? {
                let (layer, dir) = (part.layer, Arc::clone(&part.dir));
                entries.push(Entry { path, layer, metadata, dir, name: child.name });
            }
        }
        Ok(entries)
    }

    /// Opens a regular file for reading, following links.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File, FsError> {
        self.existing(path.as_ref(), Follow::Last)?.open()
    }

    /// The target of a symbolic link, as written in it.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<OsString, FsError> {
        self.existing(path.as_ref(), Follow::NoLast)?.read_link()
    }

    /// Extended attributes, without those that are the host's; a last link is not followed.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> Result<Xattrs, FsError> {
        self.existing(path.as_ref(), Follow::NoLast)?.xattrs()
    }

    /// Everything below a directory, itself left out; a link to a directory is followed.
    pub fn walk(&self, path: impl AsRef<Path>) -> Result<Walk, FsError> {
        let path = self.real_path(path, Follow::Last)?;
        Ok(Walk::new(self.clone(), path))
    }

    /// How many layers the stack has; a plain tree counts as one.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The layer at a position of the stack; `None` for a plain tree.
    pub fn layer(&self, position: usize) -> Option<&LayerDir> {
        self.layers.get(position)?.as_ref()
    }

    /// What a path names, or an error that says why it names nothing.
    pub(crate) fn existing(&self, path: &Path, follow: Follow) -> Result<Entry, FsError> {
        self.lookup(path, follow)?.ok_or_else(|| FsError::NotFound(crate::dir::clean(path)))
    }

    pub(crate) fn root(&self) -> &Arc<MergedDir> {
        &self.root
    }

    /// The tree below a directory, as if that were the root.
    pub(crate) fn below(&self, path: &Path) -> Result<Self, FsError> {
        let (_, root) = self.directory(path)?;
        Ok(Self { root, layers: self.layers.clone() })
    }

    /// The merged directory at a path; `None` if there is something else, or nothing.
    pub(crate) fn merged(&self, path: &Path) -> Result<Option<Arc<MergedDir>>, FsError> {
        match resolve(&self.root, path, Follow::Last)? {
            Resolved::Root => Ok(Some(Arc::clone(&self.root))),
            Resolved::Found { path, parent, metadata, .. } if metadata.is_dir() => {
                let name = path.file_name().unwrap_or_default();
                Ok(parent.enter(name).at("open the directory", &path)?.map(Arc::new))
            }
            _ => Ok(None),
        }
    }

    fn directory(&self, path: &Path) -> Result<(PathBuf, Arc<MergedDir>), FsError> {
        let real = self.real_path(path, Follow::Last)?;
        match self.merged(&real)? {
            Some(dir) => Ok((real, dir)),
            None if self.lookup(&real, Follow::NoLast)?.is_some() => {
                Err(FsError::NotADirectory(real))
            }
            None => Err(FsError::NotFound(real)),
        }
    }
}

/// The root of a layer at a position of a stack, and whether it hides the layers below, which
/// merging in user space allows.
fn root_of(layer: &LayerDir, position: usize) -> Result<(Part, bool), FsError> {
    let root = Path::new("");
    let dir = Arc::new(layer.open().at("open the layer", root)?);
    let marks = layer.marks();
    let hides_below = dir.is_opaque(marks).at("read the mark", root)?;
    Ok((Part { layer: position, dir, marks: Some(marks) }, hides_below))
}
