//! What a copy changes on the way, and what it leaves out.

use std::fmt;
use std::path::Path;

use crate::metadata::{Metadata, Owner, Timestamp};

/// How modes are changed.
#[derive(Clone, Copy)]
pub enum ModeChange<'a> {
    /// Everything gets this mode, and so do the permission bits of the destination's parents.
    Set(u32),
    /// The new mode for a mode, and whether it is a directory's: what `chmod u=rwX` means.
    Map(&'a dyn Fn(u32, bool) -> u32),
}

impl fmt::Debug for ModeChange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(mode) => write!(f, "Set({mode:#o})"),
            Self::Map(_) => f.write_str("Map"),
        }
    }
}

/// Whether something is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is copied; a directory's content is asked about one by one.
    Include,
    /// It is left out, and with a directory everything below.
    Skip,
    /// A directory that is copied only if something below it is. For anything else: left out.
    Descend,
}

/// Decides about a path below the source, which is a directory's if the flag is set.
pub type Filter<'a> = &'a mut dyn FnMut(&Path, bool) -> Decision;

/// How to copy.
#[derive(Default)]
pub struct CopyOptions<'a> {
    /// Everything gets this owner; `None` keeps the source's.
    pub owner: Option<Owner>,
    /// Modes are changed so; `None` keeps the source's.
    pub mode: Option<ModeChange<'a>>,
    /// Everything gets this modification time; `None` keeps the source's.
    pub timestamp: Option<Timestamp>,
    /// A source directory stands for its content: it is merged into the destination, not put
    /// below it.
    pub dir_copy_contents: bool,
    /// A source that is a symbolic link stands for what it points to.
    pub follow_symlink: bool,
    /// Missing parents of the destination are made; otherwise they are an error.
    pub create_dest_path: bool,
    /// Whatever stands where something is copied to gives way, directories included; only
    /// directories are still merged with directories.
    pub always_replace: bool,
    /// No file is linked to the source's: somebody will write to them in place.
    pub own_files: bool,
    /// What to copy; `None` copies everything.
    pub filter: Option<Filter<'a>>,
    /// Asked before each entry whether to give up.
    pub cancelled: Option<&'a dyn Fn() -> bool>,
}

impl fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions")
            .field("owner", &self.owner)
            .field("mode", &self.mode)
            .field("timestamp", &self.timestamp)
            .field("dir_copy_contents", &self.dir_copy_contents)
            .field("follow_symlink", &self.follow_symlink)
            .field("create_dest_path", &self.create_dest_path)
            .field("always_replace", &self.always_replace)
            .field("own_files", &self.own_files)
            .finish_non_exhaustive()
    }
}

impl CopyOptions<'_> {
    pub(super) fn owner_of(&self, source: &Metadata) -> Owner {
        self.owner.unwrap_or_else(|| source.owner())
    }

    pub(super) fn mode_of(&self, source: &Metadata) -> u32 {
        match self.mode {
            None => source.mode,
            Some(ModeChange::Set(mode)) => mode & 0o7777,
            Some(ModeChange::Map(map)) => map(source.mode, source.is_dir()) & 0o7777,
        }
    }

    pub(super) fn mtime_of(&self, source: &Metadata) -> Timestamp {
        self.timestamp.unwrap_or(source.mtime)
    }

    /// Whether a copy differs from its source in nothing, so that both can be one inode.
    pub(super) fn keeps(&self, source: &Metadata) -> bool {
        self.owner_of(source) == source.owner()
            && self.mode_of(source) == source.mode
            && self.mtime_of(source) == source.mtime
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.is_some_and(|cancelled| cancelled())
    }

    pub(super) fn decide(&mut self, path: &Path, is_dir: bool) -> Decision {
        self.filter.as_mut().map_or(Decision::Include, |filter| filter(path, is_dir))
    }
}
