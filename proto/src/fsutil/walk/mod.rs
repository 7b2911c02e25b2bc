//! Walking a local directory for the sender.
//!
//! The walk is lexical by component, filtered on the way: a file that is not wanted is never
//! looked at beyond its name, and a directory in which nothing can be wanted is never entered.

mod filter;
mod follow;
mod iterate;
mod listing;
mod stat;

pub use iterate::Walk;

use super::{Selection, Stat, Tree};
use crate::pattern::BadPattern;
use filter::Filter;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Whom the entries of a sent tree belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owner {
    /// Whom they belong to here.
    #[default]
    Kept,
    /// One user and group, as in a build context (both 0).
    Set {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// Why a directory cannot be sent.
#[derive(Debug, Error)]
pub enum WalkError {
    /// A pattern cannot be read.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A file or directory cannot be looked at.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name or a symlink's target is not UTF-8, which the protocol cannot carry.
    #[error("{}: its name or target is not UTF-8", path.display())]
    NotUtf8 {
        /// Where.
        path: PathBuf,
    },
}

/// A directory of this machine, or the part of it that a selection leaves, ready to be sent.
#[derive(Debug)]
pub struct LocalTree {
    root: Arc<OwnedFd>,
    path: Arc<Path>,
    filter: Arc<Filter>,
    owner: Owner,
}

impl LocalTree {
    /// Opens a directory. Paths to follow are resolved now; the rest happens when it is walked.
    pub fn new(path: &Path, selection: &Selection, owner: Owner) -> Result<Self, WalkError> {
        let failed = |source: io::Error| WalkError::Io { path: path.to_owned(), source };
        let real = path.canonicalize().map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(&real, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let filter = Filter::new(&root, selection)?;
        Ok(Self { root: Arc::new(root), path: real.into(), filter: Arc::new(filter), owner })
    }

    /// The entries in the order of their components.
    pub fn walk(&self) -> Walk {
        Walk::new(
            Arc::clone(&self.root),
            Arc::clone(&self.path),
            Arc::clone(&self.filter),
            self.owner,
        )
    }
}

impl Tree for LocalTree {
    type Error = WalkError;
    type File = File;

    fn entries(&self) -> impl Iterator<Item = Result<Stat, WalkError>> {
        self.walk()
    }

    fn open(&self, path: &str) -> io::Result<File> {
        // Not to hang if the file has become a named pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
            // Some sandboxes know no openat2; the tree is then trusted not to change under us.
            Err(Errno::NOSYS | Errno::PERM) => {
                rustix::fs::openat(&self.root, path, flags, Mode::empty())
            }
            opened => opened,
        };
        Ok(opened?.into())
    }
}

#[cfg(test)]
mod tests;
