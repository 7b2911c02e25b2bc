//! Finding, or making, the places that mounts go onto.
//!
//! Paths come from Dockerfiles and symbolic links from images, so each path is resolved inside the
//! step's root and nowhere else: by the kernel where it exists, and one component at a time from
//! directory descriptors, never by joining strings, where something has to be made.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, mkdirat, mknodat, open,
    openat, openat2, readlinkat, statat, utimensat,
};
use rustix::io::Errno;

use crate::stubs::times_of;
use crate::zygote::protocol::{At, Created, CreatedKind, Failure, Overlay, Stage};

/// Symbolic links followed in one path, as the kernel has it.
const MAX_LINKS: usize = 40;

/// What a mount needs its target to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetKind {
    Dir,
    File,
}

/// Resolves targets inside one root file system.
pub(super) struct Targets<'a> {
    root: BorrowedFd<'a>,
    root_device: u64,
    upper: Option<OwnedFd>,
    created: Vec<Created>,
}

impl<'a> Targets<'a> {
    /// For a mounted `root` whose changes go to `upper`.
    pub(super) fn new(root: BorrowedFd<'a>, upper: Option<OwnedFd>) -> Result<Self, Errno> {
        let root_device = fstat(root)?.st_dev;
        Ok(Self { root, root_device, upper, created: Vec::new() })
    }

    /// What was made in the root file system so far.
    pub(super) fn created(self) -> Vec<Created> {
        self.created
    }

    /// The place of a mount that a step asks for.
    ///
    /// # Errors
    /// Besides what the kernel says: `PERM` for places in /proc, where a mount could turn the
    /// step's own confinement against it.
    pub(super) fn find(&mut self, path: &CStr, kind: TargetKind) -> Result<OwnedFd, Failure> {
        let found = self.resolve(path, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
        let target = match found {
            Err(Errno::NOENT) => self.make(path, kind),
            other => other,
        }
        .at(Stage::MountTarget, path.to_bytes())?;
        let file_system = fstatfs(&target).at(Stage::MountTarget, path.to_bytes())?;
        if file_system.f_type == libc::PROC_SUPER_MAGIC {
            return Err(Errno::PERM).at(Stage::MountTarget, path.to_bytes());
        }
        Ok(target)
    }

    /// The place of one of the standard file systems, a directory that is no symbolic link.
    pub(super) fn find_standard(&mut self, path: &CStr) -> Result<OwnedFd, Failure> {
        let found = self.resolve(path, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS);
        match found {
            Err(Errno::NOENT) => self.make(path, TargetKind::Dir),
            other => other,
        }
        .at(Stage::MountTarget, path.to_bytes())
    }

    fn resolve(&self, path: &CStr, flags: ResolveFlags) -> Result<OwnedFd, Errno> {
        loop {
            match openat2(self.root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags) {
                // Something was renamed meanwhile, in a cache that other steps use too.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    /// Walks to `path`, following links inside the root, and makes what is missing on the way.
    fn make(&mut self, path: &CStr, kind: TargetKind) -> Result<OwnedFd, Errno> {
        let mut walk = Walk { parents: Vec::new(), here: self.open_root()? };
        let mut rest = components(path.to_bytes());
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                walk.leave();
                continue;
            }
            let found = openat(&walk.here, &name, OFlags::PATH | NO_FOLLOW, Mode::empty());
            let next = match found {
                Err(Errno::NOENT) => {
                    let kind = if rest.is_empty() { kind } else { TargetKind::Dir };
                    self.make_one(&walk, &name, kind)?
                }
                other => other?,
            };
            if FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let link = readlinkat(&walk.here, &name, Vec::new())?;
                if link.to_bytes().starts_with(b"/") {
                    walk = Walk { parents: Vec::new(), here: self.open_root()? };
                }
                for component in components(link.to_bytes()).into_iter().rev() {
                    rest.push_front(component);
                }
            } else {
                walk.enter(name, next);
            }
        }
        Ok(walk.here)
    }

    fn open_root(&self) -> Result<OwnedFd, Errno> {
        openat(self.root, c".", OFlags::PATH | NO_FOLLOW, Mode::empty())
    }

    /// Makes one missing entry and leaves its directory's times as they were.
    fn make_one(&mut self, walk: &Walk, name: &OsStr, kind: TargetKind) -> Result<OwnedFd, Errno> {
        let before = fstat(&walk.here)?;
        // What is made elsewhere than in the root file system goes away with its mount, or is
        // wanted in a cache.
        let in_root = before.st_dev == self.root_device;
        let not_in_upper = if in_root { self.missing_in_upper(walk) } else { Vec::new() };
        let made = match kind {
            TargetKind::Dir => mkdirat(&walk.here, name, Mode::from_raw_mode(0o755)),
            TargetKind::File => {
                mknodat(&walk.here, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
            }
        };
        match made {
            // Another step made it meanwhile, in a cache that both use.
            Err(Errno::EXIST) => {
                return openat(&walk.here, name, OFlags::PATH | NO_FOLLOW, Mode::empty());
            }
            result => result?,
        }
        if in_root {
            utimensat(&walk.here, c"", &times_of(&before), AtFlags::EMPTY_PATH)?;
            self.record(walk, name, kind, not_in_upper);
        }
        openat(&walk.here, name, OFlags::PATH | NO_FOLLOW, Mode::empty())
    }

    /// The directories on the way that are in lower layers only, and so will be copied up.
    fn missing_in_upper(&self, walk: &Walk) -> Vec<OsString> {
        let Some(upper) = &self.upper else { return Vec::new() };
        walk.prefixes()
            .filter(|path| !path.is_empty() && stat_below(upper, path).is_none())
            .collect()
    }

    fn record(&mut self, walk: &Walk, name: &OsStr, kind: TargetKind, copied_up: Vec<OsString>) {
        for path in copied_up {
            if let Some(stat) = self.upper.as_ref().and_then(|upper| stat_below(upper, &path)) {
                let kind = CreatedKind::CopiedUp(stat.st_ctime, stat.st_ctime_nsec);
                self.created.push(Created { path: path.into_vec(), kind });
            }
        }
        let mut path = walk.path();
        if !path.is_empty() {
            path.push("/");
        }
        path.push(name);
        let kind = match kind {
            TargetKind::Dir => CreatedKind::Dir,
            TargetKind::File => CreatedKind::File,
        };
        self.created.push(Created { path: path.into_vec(), kind });
    }
}

const NO_FOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Where a walk has come to: the directory and all those above it.
struct Walk {
    parents: Vec<(OwnedFd, OsString)>,
    here: OwnedFd,
}

impl Walk {
    fn enter(&mut self, name: OsString, next: OwnedFd) {
        let left = std::mem::replace(&mut self.here, next);
        self.parents.push((left, name));
    }

    /// Goes up, as the path was walked; the root is above itself.
    fn leave(&mut self) {
        if let Some((parent, _)) = self.parents.pop() {
            self.here = parent;
        }
    }

    fn path(&self) -> OsString {
        self.prefixes().last().unwrap_or_default()
    }

    /// The paths of the directories walked through, outermost first, this one last.
    fn prefixes(&self) -> impl Iterator<Item = OsString> {
        self.parents.iter().scan(OsString::new(), |path, (_, name)| {
            if !path.is_empty() {
                path.push("/");
            }
            path.push(name);
            Some(path.clone())
        })
    }
}

/// The names in a path, without empty ones and dots.
fn components(path: &[u8]) -> VecDeque<OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// Opens the directory that receives the changes of `overlay`, while its path still leads there.
pub(super) fn open_upper(overlay: &Overlay) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    overlay.upper.as_ref().map(|(upper, _)| open(upper, flags, Mode::empty())).transpose()
}

fn stat_below(dir: &OwnedFd, path: &OsStr) -> Option<Stat> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = CString::new(path.as_bytes()).ok()?;
    let fd = openat2(dir.as_fd(), &path, OFlags::PATH | NO_FOLLOW, Mode::empty(), flags).ok()?;
    statat(&fd, c"", AtFlags::EMPTY_PATH).ok()
}
