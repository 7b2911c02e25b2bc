//! Putting entries at names of a layer, and taking them away.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::io::Errno;

use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::remove_tree::remove_tree;
use crate::writer::upper_dir::UpperDir;
use crate::writer::{LayerWriter, Replace};

impl LayerWriter {
    /// Creates something that is not a directory, replacing what the name shows.
    ///
    /// `create` makes the entry and fails if the layer's directory has the name.
    pub(crate) fn place<T>(
        &mut self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
        replace: Replace,
        create: impl Fn(&Dir) -> Result<T, Errno>,
    ) -> Result<T, FsError> {
        let path = || parent.path.join(name);
        // Where nothing lies below, creating tells by itself whether the name is taken.
        if replace == Replace::Files
            && parent.lower.is_some()
            && parent.lookup(name).at_path("look up", path)?.is_some_and(|found| found.is_dir())
        {
            return Err(FsError::IsADirectory(path()));
        }
        let created = match create(&parent.dir) {
            Err(Errno::EXIST) => {
                self.clear(parent, name, replace)?;
                create(&parent.dir)
            }
            result => result,
        };
        // With nothing to restore, which is so for most files, the path need not be built.
        if self.times.contains_key(&parent.path) {
            self.touch(&parent.path);
        }
        created.at_path("create", path)
    }

    /// Makes a directory at a name that shows none, replacing what is there.
    pub(crate) fn create_dir(
        &mut self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
    ) -> Result<Arc<UpperDir>, FsError> {
        let path = parent.path.join(name);
        let dir = match parent.dir.create_dir(name) {
            Err(Errno::EXIST) => {
                self.clear(parent, name, Replace::Files)?;
                parent.dir.create_dir(name)
            }
            result => result,
        }
        .at("create the directory", &path)?;
        // A directory below was removed, or it would be shown: its content must stay hidden.
        if parent.enter_lower(name).at("look up", &path)?.is_some() {
            dir.set_opaque(self.layer.marks()).at("mark the directory opaque", &path)?;
        }
        self.touch(&parent.path);
        Ok(self.remember(UpperDir { path, dir, lower: None }))
    }

    /// Removes what a name shows.
    pub(crate) fn remove_name(
        &mut self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
    ) -> Result<(), FsError> {
        let path = parent.path.join(name);
        self.forget(&path);
        remove_tree(&parent.dir, name).at("remove", &path)?;
        if parent.lookup_lower(name).at("look up", &path)?.is_some() {
            parent.dir.create_whiteout(name).at("create the whiteout", &path)?;
        }
        self.touch(&parent.path);
        Ok(())
    }

    /// Removes what the layer itself has at a name.
    fn clear(
        &mut self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
        replace: Replace,
    ) -> Result<(), FsError> {
        let path = parent.path.join(name);
        match parent.dir.unlink(name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) if replace == Replace::Files => {
                Err(FsError::IsADirectory(path))
            }
            Err(Errno::ISDIR | Errno::PERM) => {
                self.forget(&path);
                remove_tree(&parent.dir, name).at("remove the directory", &path)
            }
            Err(error) => Err(error).at("remove", &path),
        }
    }
}
