//! Takes out of a step's upper directory what was only made for mounts to go onto.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, fstat, futimens,
    open, openat2, statat, unlinkat,
};

use crate::zygote::protocol::{Created, CreatedKind};

/// Removes what `created` names from `upper`, as far as the step has not made it its own: files
/// that are still empty, directories that are, and copies of lower directories to which nothing
/// has happened. The times of the directories around them stay.
///
/// A path that cannot be removed stays in the layer, which does no harm.
pub(crate) fn remove(upper: &Path, created: Vec<Created>) {
    if created.is_empty() {
        return;
    }
    let Ok(upper) = open(upper, DIRECTORY, Mode::empty()) else { return };
    // Removing an entry changes the directory it is in, so this is found out first.
    let untouched: Vec<_> =
        created.into_iter().filter(|created| is_untouched(&upper, created)).collect();
    for created in untouched.iter().rev() {
        remove_one(&upper, created);
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn is_untouched(upper: &OwnedFd, created: &Created) -> bool {
    let Some((parent, name)) = parent_of(upper, created) else { return false };
    let Ok(stat) = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let kind = FileType::from_raw_mode(stat.st_mode);
    match created.kind {
        CreatedKind::Dir => kind == FileType::Directory,
        CreatedKind::File => kind == FileType::RegularFile && stat.st_size == 0,
        CreatedKind::CopiedUp(seconds, nanoseconds) => {
            kind == FileType::Directory
                && (stat.st_ctime, stat.st_ctime_nsec) == (seconds, nanoseconds)
        }
    }
}

fn remove_one(upper: &OwnedFd, created: &Created) {
    let Some((parent, name)) = parent_of(upper, created) else { return };
    let Ok(before) = fstat(&parent) else { return };
    let flags = match created.kind {
        CreatedKind::File => AtFlags::empty(),
        CreatedKind::Dir | CreatedKind::CopiedUp(..) => AtFlags::REMOVEDIR,
    };
    // A directory that the step has put something into is not empty, and stays.
    let removed =
        unlinkat(&parent, &name, flags).and_then(|()| futimens(&parent, &times_of(&before)));
    if let Err(error) = removed {
        tracing::debug!(path = %String::from_utf8_lossy(&created.path), %error, "mount target stays");
    }
}

/// The directory that holds an entry, and the entry's name. The path goes through directories
/// that the step could replace by links, so it is followed without any.
fn parent_of(upper: &OwnedFd, created: &Created) -> Option<(OwnedFd, CString)> {
    let (parent, name) = match created.path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&created.path[..slash], &created.path[slash + 1..]),
        None => (&b"."[..], &created.path[..]),
    };
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let parent = CString::new(parent).ok()?;
    let parent = openat2(upper.as_fd(), &parent, DIRECTORY, Mode::empty(), flags).ok()?;
    Some((parent, CString::new(name).ok()?))
}

/// The access and modification times of something, to be set again.
pub(crate) fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}
