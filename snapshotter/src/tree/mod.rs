//! Receiving a foreign tree into a directory: a build context, a checkout, an archive.
//!
//! Names come from somebody else, and so does what is in the directory already. No symbolic link is
//! ever followed, and no file is ever changed in place: layers may share its inode.

mod new_file;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::metadata::{Device, FileKind, Owner, Timestamp, Xattrs, is_hosts};
use crate::remove_tree::remove_tree;

pub use new_file::NewFile;

/// Directories that are kept open.
const MAX_OPEN: usize = 128;

/// Metadata of a received entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeMetadata {
    /// Who owns it.
    pub owner: Owner,
    /// Permission bits with setuid, setgid and sticky; without meaning for symbolic links.
    pub mode: u32,
    /// When it was modified.
    pub mtime: Timestamp,
    /// Extended attributes; those of overlayfs, and those that cannot be set, are left out.
    pub xattrs: Xattrs,
}

/// Writes entries below a directory; several threads may use one.
///
/// Paths are relative to the directory and must be plain: no `..`. The directory above an entry
/// has to be there. Whatever stands at a path gives way, directories with all they hold.
#[derive(Debug)]
pub struct TreeWriter {
    root: Arc<Dir>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<PathBuf, Arc<Dir>>,
    /// Modification times that directories are to have at the end.
    times: HashMap<PathBuf, Timestamp>,
}

impl TreeWriter {
    /// Writes below an existing directory of the host.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let root = Dir::open(path).at("open the tree", Path::new(""))?;
        Ok(Self { root: Arc::new(root), state: Mutex::default() })
    }

    /// Makes a directory, or gives one that is there new metadata.
    pub fn directory(
        &self,
        path: impl AsRef<Path>,
        metadata: &TreeMetadata,
    ) -> Result<(), FsError> {
        let (path, above, name) = self.locate(path.as_ref())?;
        let dir = match above.dir(&name) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.replace(&above, &path, &name, |above| above.create_dir(&name))?
            }
            Err(error) => return Err(error).at("open the directory", &path),
        };
        dir.set_own_owner(metadata.owner).at("set the owner", &path)?;
        dir.set_own_mode(metadata.mode).at("set the mode", &path)?;
        for (key, value) in settable(&metadata.xattrs) {
            tolerate(dir.set_own_xattr(key, value), key, &path);
        }
        self.lock().times.insert(path, metadata.mtime);
        Ok(())
    }

    /// Begins a regular file, which has its name from now on and its metadata once it is finished.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<NewFile, FsError> {
        let (path, above, name) = self.locate(path.as_ref())?;
        let file = self.replace(&above, &path, &name, |above| above.create_file(&name))?;
        Ok(NewFile::new(file, path))
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        path: impl AsRef<Path>,
        target: impl AsRef<OsStr>,
        metadata: &TreeMetadata,
    ) -> Result<(), FsError> {
        let (path, above, name) = self.locate(path.as_ref())?;
        let target = target.as_ref();
        self.replace(&above, &path, &name, |above| above.create_symlink(&name, target))?;
        set_on_name(&above, &path, &name, metadata, false)
    }

    /// Gives a file of the tree a further name.
    pub fn hardlink(
        &self,
        path: impl AsRef<Path>,
        target: impl AsRef<Path>,
    ) -> Result<(), FsError> {
        let (path, above, name) = self.locate(path.as_ref())?;
        let (target, from, from_name) = self.locate(target.as_ref())?;
        match from.stat(&from_name).at("look up", &target)? {
            None => return Err(FsError::NotFound(target)),
            Some(found) if found.is_dir() => return Err(FsError::IsADirectory(target)),
            Some(_) if path == target => return Ok(()),
            Some(_) => {}
        }
        self.replace(&above, &path, &name, |above| above.link(&name, &from, &from_name))
    }

    /// Makes a device node, a fifo, or a socket's name.
    pub fn node(
        &self,
        path: impl AsRef<Path>,
        kind: FileKind,
        device: Device,
        metadata: &TreeMetadata,
    ) -> Result<(), FsError> {
        let (path, above, name) = self.locate(path.as_ref())?;
        if kind == FileKind::CharDevice && device == Device::default() {
            return Err(FsError::ReservedDevice(path));
        }
        self.replace(&above, &path, &name, |above| above.create_node(&name, kind, device))?;
        set_on_name(&above, &path, &name, metadata, true)
    }

    /// Removes whatever stands at a path; nothing there is fine.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), FsError> {
        match self.locate(path.as_ref()) {
            Ok((path, above, name)) => self.clear(&above, &path, &name),
            Err(FsError::NotFound(_) | FsError::NotADirectory(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Completes the tree: directories get the modification times that they were given, or had
    /// before entries in them changed.
    pub fn finish(self) -> Result<(), FsError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, mtime) in state.times {
            match self.root.strict_dir(&path) {
                Ok(dir) => dir.set_own_mtime(mtime).at("set the modification time", &path)?,
                // Removed, or replaced, after it was made.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error).at("open the directory", &path),
            }
        }
        Ok(())
    }

    /// Where an entry goes: its checked path, the directory above it, and its name there.
    fn locate(&self, path: &Path) -> Result<(PathBuf, Arc<Dir>, OsString), FsError> {
        let invalid = || FsError::InvalidPath(path.to_path_buf());
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(invalid()),
            }
        }
        let name = clean.file_name().ok_or_else(invalid)?.to_owned();
        let above = self.dir(clean.parent().unwrap_or(Path::new("")))?;
        Ok((clean, above, name))
    }

    /// An existing directory. Entries are about to change in it.
    fn dir(&self, path: &Path) -> Result<Arc<Dir>, FsError> {
        let mut state = self.lock();
        if let Some(dir) = state.open.get(path) {
            return Ok(Arc::clone(dir));
        }
        let dir = match self.root.strict_dir(path) {
            Ok(dir) => Arc::new(dir),
            Err(Errno::NOENT) => return Err(FsError::NotFound(path.to_path_buf())),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(FsError::NotADirectory(path.to_path_buf()));
            }
            Err(error) => return Err(error).at("open the directory", path),
        };
        if !state.times.contains_key(path) {
            let mtime = dir.own_stat().at("read the metadata", path)?.mtime;
            state.times.insert(path.to_path_buf(), mtime);
        }
        if state.open.len() >= MAX_OPEN {
            state.open.clear();
        }
        state.open.insert(path.to_path_buf(), Arc::clone(&dir));
        Ok(dir)
    }

    /// Creates an entry, after removing what has its name.
    fn replace<T>(
        &self,
        above: &Dir,
        path: &Path,
        name: &OsStr,
        create: impl Fn(&Dir) -> Result<T, Errno>,
    ) -> Result<T, FsError> {
        match create(above) {
            Err(Errno::EXIST) => {
                self.clear(above, path, name)?;
                create(above)
            }
            result => result,
        }
        .at("create", path)
    }

    fn clear(&self, above: &Dir, path: &Path, name: &OsStr) -> Result<(), FsError> {
        let mut state = self.lock();
        state.open.retain(|open, _| !open.starts_with(path));
        state.times.retain(|open, _| !open.starts_with(path));
        remove_tree(above, name).at("remove", path)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The maps are caches that are right at any moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_on_name(
    above: &Dir,
    path: &Path,
    name: &OsStr,
    metadata: &TreeMetadata,
    has_mode: bool,
) -> Result<(), FsError> {
    above.set_owner(name, metadata.owner).at("set the owner", path)?;
    for (key, value) in settable(&metadata.xattrs) {
        tolerate(above.set_xattr(name, key, value), key, path);
    }
    if has_mode {
        above.set_mode(name, metadata.mode).at("set the mode", path)?;
    }
    above.set_mtime(name, metadata.mtime).at("set the modification time", path)
}

/// The attributes that somebody else may set: `trusted.*` is the administrator's.
fn settable(xattrs: &Xattrs) -> impl Iterator<Item = (&[u8], &[u8])> {
    xattrs
        .iter()
        .filter(|(key, _)| !key.starts_with(b"trusted.") && !is_hosts(key))
        .map(|(key, value)| (key.as_slice(), value.as_slice()))
}

fn tolerate(result: std::io::Result<()>, key: &[u8], path: &Path) {
    if let Err(error) = result {
        let key = String::from_utf8_lossy(key);
        tracing::debug!(%key, path = %path.display(), %error, "extended attribute left out");
    }
}
