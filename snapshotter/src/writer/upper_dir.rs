//! A directory of the layer being written, together with what the stack below shows there.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use crate::dir::Dir;
use crate::metadata::Metadata;
use crate::view::merged_dir::MergedDir;

/// A directory that exists in the layer being written.
#[derive(Debug)]
pub(crate) struct UpperDir {
    pub(crate) path: PathBuf,
    pub(crate) dir: Dir,
    /// The same directory in the stack below; `None` if nothing of it is seen.
    pub(crate) lower: Option<MergedDir>,
}

impl UpperDir {
    /// What a name shows, in the layer or through it.
    pub(crate) fn lookup(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        match self.dir.stat(name)? {
            Some(metadata) if metadata.is_whiteout() => Ok(None),
            Some(metadata) => Ok(Some(metadata)),
            None => self.lookup_lower(name),
        }
    }

    /// What the stack below has at a name.
    pub(crate) fn lookup_lower(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        let Some(lower) = &self.lower else { return Ok(None) };
        Ok(lower.child(name)?.map(|(_, metadata)| metadata))
    }

    /// The directory that the stack below has at a name.
    pub(crate) fn enter_lower(&self, name: &OsStr) -> io::Result<Option<MergedDir>> {
        match &self.lower {
            Some(lower) => lower.enter(name),
            None => Ok(None),
        }
    }
}
