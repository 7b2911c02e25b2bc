//! What can go wrong when a path of a tree is read or changed.

use std::io;
use std::path::{Path, PathBuf};

/// A path of a tree could not be read or changed.
///
/// Paths are those inside the tree, never those of the host.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The kernel refused.
    #[error("/{}: cannot {action}", path.display())]
    Io {
        /// What was tried, as a verb with its object: "read the directory".
        action: &'static str,
        /// Where, relative to the tree's root.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nothing has this name.
    #[error("/{}: no such file or directory", .0.display())]
    NotFound(PathBuf),
    /// Something other than a directory stands where a directory is needed.
    #[error("/{}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A directory stands where something else is needed.
    #[error("/{}: is a directory", .0.display())]
    IsADirectory(PathBuf),
    /// Something other than a regular file stands where one is needed.
    #[error("/{}: not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The name is taken.
    #[error("/{}: already exists", .0.display())]
    Exists(PathBuf),
    /// Resolving the path met too many symbolic links.
    #[error("/{}: too many levels of symbolic links", .0.display())]
    SymlinkLoop(PathBuf),
    /// The path cannot name an entry: it has a `..`, or is the root where an entry is needed.
    #[error("{}: not the path of an entry inside a tree", .0.display())]
    InvalidPath(PathBuf),
    /// A device that would read as a whiteout.
    #[error("/{}: the character device 0/0 is reserved for whiteouts", .0.display())]
    ReservedDevice(PathBuf),
}

impl FsError {
    /// The path at fault, relative to the tree's root.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::NotFound(path)
            | Self::NotADirectory(path)
            | Self::IsADirectory(path)
            | Self::NotAFile(path)
            | Self::Exists(path)
            | Self::SymlinkLoop(path)
            | Self::InvalidPath(path)
            | Self::ReservedDevice(path) => path,
        }
    }

    /// Whether the reason is that nothing has this name.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Joins an error of the kernel with the place and the action it concerns.
pub(crate) trait At<T> {
    /// Names what was tried, and where.
    fn at(self, action: &'static str, path: &Path) -> Result<T, FsError>;

    /// The same, where the path would have to be built.
    fn at_path(self, action: &'static str, path: impl FnOnce() -> PathBuf) -> Result<T, FsError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FsError> {
        self.at_path(action, || path.to_path_buf())
    }

    fn at_path(self, action: &'static str, path: impl FnOnce() -> PathBuf) -> Result<T, FsError> {
        self.map_err(|source| FsError::Io { action, path: path(), source: source.into() })
    }
}
