//! Space for when there is none.
//!
//! To give something up, the index has to write that down, and to start, it has to write some more. On
//! a disk that the cache itself has filled, neither could be done. So a file holds a little space,
//! which is let go then.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// More than a start or a collection of garbage writes to the index before space is freed.
const SIZE: u64 = 8 << 20;

/// The space of one state directory.
pub(crate) struct Reserve<'a> {
    root: &'a Path,
    path: PathBuf,
}

impl<'a> Reserve<'a> {
    pub(crate) fn of(root: &'a Path) -> Self {
        Self { root, path: root.join("index").join("reserve") }
    }

    /// Whether the disk is so full that the space is needed.
    fn is_needed(&self) -> bool {
        statvfs(self.root).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < SIZE)
    }

    /// Lets go of the space.
    pub(crate) fn release(&self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
    }

    /// Lets go of the space if the disk is full.
    pub(crate) fn release_if_needed(&self) {
        if self.is_needed() && fs::remove_file(&self.path).is_ok() {
            tracing::warn!("the disk is full: using the space that is kept for that");
        }
    }

    /// Takes the space again, once there is more than that.
    pub(crate) fn restore(&self) {
        let has_room = || {
            statvfs(self.root)
                .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) > 2 * SIZE)
        };
        if fs::metadata(&self.path).is_ok_and(|file| file.len() == SIZE) || !has_room() {
            return;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&self.path);
        let taken = file.and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, SIZE).map_err(Into::into)
        });
        if let Err(error) = taken {
            // Some file systems cannot; then it is as it would be without.
            tracing::debug!(%error, "no space is kept for when the disk is full");
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_is_taken_once_and_kept_while_there_is_room() {
        use std::os::unix::fs::MetadataExt as _;
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("index")).unwrap();
        let reserve = Reserve::of(root.path());
        for _ in 0..2 {
            reserve.restore();
            reserve.release_if_needed();
            let file = fs::metadata(root.path().join("index/reserve")).unwrap();
            assert!(file.blocks() * 512 >= SIZE);
        }
    }
}
