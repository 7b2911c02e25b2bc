//! One entry of a merged tree.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::metadata::{Metadata, Xattrs, is_hosts};

/// A file, directory or other entry of a [`View`](super::View).
///
/// It keeps the directory it was found in open, so that reading it costs no second resolution;
/// many entries kept at once cost as many descriptors as they have directories.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) layer: usize,
    pub(crate) metadata: Metadata,
    pub(crate) dir: Arc<Dir>,
    /// The name in `dir`; `.` for the root.
    pub(crate) name: OsString,
}

impl Entry {
    /// Its path from the root of the tree, without links, `.`, `..` or a leading slash; empty for
    /// the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The position, in the stack, of the layer it comes from: for a directory the topmost one
    /// that has a part of it.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// What `stat` tells about it.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its path, when nothing else is needed any more.
    pub fn into_path(self) -> PathBuf {
        self.path
    }

    /// Opens a regular file for reading; other types fail without waiting for anybody.
    pub fn open(&self) -> Result<File, FsError> {
        if !self.metadata.is_file() {
            return Err(FsError::NotAFile(self.path.clone()));
        }
        let file = self.dir.open_file(&self.name).at("open the file", &self.path)?;
        file.ok_or_else(|| FsError::NotAFile(self.path.clone()))
    }

    /// The target of a symbolic link, as written in it.
    pub fn read_link(&self) -> Result<OsString, FsError> {
        self.dir.read_link(&self.name).at("read the link", &self.path)
    }

    /// Its extended attributes, without those that are the host's.
    pub fn xattrs(&self) -> Result<Xattrs, FsError> {
        let mut xattrs =
            self.dir.xattrs(&self.name).at("read the extended attributes", &self.path)?;
        xattrs.retain(|(name, _)| !is_hosts(name));
        Ok(xattrs)
    }

    pub(crate) fn root(layer: usize, dir: Arc<Dir>) -> Result<Self, FsError> {
        let path = PathBuf::new();
        let metadata = dir.own_stat().at("read the metadata", &path)?;
        Ok(Self { path, layer, metadata, dir, name: OsStr::new(".").to_owned() })
    }
}
