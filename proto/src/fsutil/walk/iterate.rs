//! The walk itself.

use super::super::Stat;
use super::filter::{Above, Filter};
use super::listing::{BUFFER, Listing};
use super::stat::{Inspector, Place};
use super::{Owner, WalkError};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// The entries of a [`LocalTree`](super::LocalTree), each directory before what is in it.
///
/// Ends after the first error.
#[derive(Debug)]
pub struct Walk {
    filter: Arc<Filter>,
    inspector: Inspector,
    /// The directories from the root to where the walk is.
    stack: Vec<Level>,
    /// Found and not yet given: an entry, and the directories that are wanted because of it.
    found: VecDeque<Stat>,
    /// Scratch space: the path of the entry at hand, and what a directory says.
    path: String,
    buffer: Vec<MaybeUninit<u8>>,
    /// The root while it has not been read.
    unread: Option<Arc<OwnedFd>>,
}

#[derive(Debug)]
struct Level {
    directory: Directory,
    path: String,
    listing: Listing,
    above: Above,
    /// Whether it has been given. One that is not wanted itself is given before what is in it.
    is_given: bool,
    /// Whether its name, or that of one above it, had to be mended to be text.
    is_mended: bool,
}

#[derive(Debug)]
enum Directory {
    Root(Arc<OwnedFd>),
    Below(OwnedFd),
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => fd.as_fd(),
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

impl Walk {
    pub(super) fn new(
        root: Arc<OwnedFd>,
        path: Arc<Path>,
        filter: Arc<Filter>,
        owner: Owner,
    ) -> Self {
        Self {
            filter,
            inspector: Inspector::new(path, owner),
            stack: Vec::new(),
            found: VecDeque::new(),
            path: String::new(),
            buffer: vec![MaybeUninit::uninit(); BUFFER],
            unread: Some(root),
        }
    }

    fn begin(&mut self, root: &Arc<OwnedFd>) -> Result<(), WalkError> {
        // The root's descriptor is shared, and so is its position; reading needs one of its own.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(root, c".", flags, Mode::empty())
            .and_then(|directory| Listing::read(directory, &mut self.buffer))
            .map_err(|errno| self.failed("", errno))?;
        self.stack.push(Level {
            directory: Directory::Root(Arc::clone(root)),
            path: String::new(),
            listing,
            above: Above::default(),
            is_given: true,
            is_mended: false,
        });
        Ok(())
    }

    /// Takes one step; `false` at the end.
    fn step(&mut self) -> Result<bool, WalkError> {
        let Some(level) = self.stack.last_mut() else {
            return Ok(false);
        };
        let Some((name, kind)) = level.listing.next() else {
            self.stack.pop();
            return Ok(true);
        };
        let text = name.to_string_lossy();
        let is_mended = level.is_mended || matches!(text, std::borrow::Cow::Owned(_));
        self.path.clear();
        if !level.path.is_empty() {
            self.path.push_str(&level.path);
            self.path.push('/');
        }
        self.path.push_str(&text);

        if kind == FileType::Directory
            || kind == FileType::Unknown && is_dir(&level.directory, name)
        {
            let Some(entered) = self.filter.enter(&self.path, &level.above) else {
                return Ok(true);
            };
            let directory = match open_directory(&level.directory, name) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(true),
                Err(Errno::ACCESS) if !entered.is_wanted => return Ok(true),
                Err(errno) => return Err(self.failed(&self.path, errno)),
            };
            let listing = Listing::read(&directory, &mut self.buffer)
                .map_err(|errno| self.failed(&self.path, errno))?;
            self.stack.push(Level {
                directory: Directory::Below(directory),
                path: self.path.clone(),
                listing,
                above: entered.above,
                is_given: false,
                is_mended,
            });
            if entered.is_wanted {
                self.give_directories()?;
            }
        } else if self.filter.wants_file(&self.path, &level.above) {
            if is_mended {
                return Err(self.not_utf8());
            }
            let place = Place { directory: &level.directory, name, path: &self.path };
            if let Some(stat) = self.inspector.look(&place)? {
                self.give_directories()?;
                self.found.push_back(stat);
            }
        }
        Ok(true)
    }

    /// Gives the directories that the walk is in and that have not been given.
    fn give_directories(&mut self) -> Result<(), WalkError> {
        let first =
            self.stack.iter().rposition(|level| level.is_given).map_or(0, |given| given + 1);
        for level in &mut self.stack[first..] {
            if level.is_mended {
                return Err(WalkError::NotUtf8 { path: self.inspector.full_path(&level.path) });
            }
            let place = Place { directory: &level.directory, name: c"", path: &level.path };
            let stat = self.inspector.look(&place)?;
            self.found.extend(stat);
            level.is_given = true;
        }
        Ok(())
    }

    fn failed(&self, path: &str, errno: Errno) -> WalkError {
        WalkError::Io { path: self.inspector.full_path(path), source: errno.into() }
    }

    fn not_utf8(&self) -> WalkError {
        WalkError::NotUtf8 { path: self.inspector.full_path(&self.path) }
    }
}

impl Iterator for Walk {
    type Item = Result<Stat, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(stat) = self.found.pop_front() {
                return Some(Ok(stat));
            }
            let stepped = match self.unread.take() {
                Some(root) => self.begin(&root).map(|()| true),
                None => self.step(),
            };
            match stepped {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.stack.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Asks the file, where the directory's file system does not say.
fn is_dir(directory: impl AsFd, name: &CStr) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn open_directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
