//! A disk whose power can be cut.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::ioctl_ficlone;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::failing_disk::run;

/// An ext4 whose disk can be remembered as it is at any moment: what has reached it by then, in the
/// order in which it did, and nothing of what the kernel has yet to write.
///
/// The disk is a file of an XFS, which copies files as they are at one moment.
pub struct PowerCutDisk {
    folder: TempDir,
}

/// What a disk held when the power was cut.
pub struct PowerCut(PathBuf);

impl PowerCutDisk {
    /// Mounts one that holds `megabytes`.
    pub fn mount(megabytes: u64) -> Self {
        let folder = TempDir::with_prefix("kiln-disk-").expect("temporary folder");
        let disk = Self { folder };
        // As much again for whatever is written over while it is remembered, and what XFS insists on.
        let below = disk.file("below");
        sized(&below, 4 * megabytes + 512);
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&below));
        std::fs::create_dir(disk.file("disks")).expect("mount point");
        std::fs::create_dir(disk.path()).expect("mount point");
        mount_image(&below, &disk.file("disks"));
        let image = disk.file("disks/now");
        sized(&image, megabytes);
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        mount_image(&image, &disk.path());
        disk
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.file("mounted")
    }

    /// Remembers the disk as it is. Who writes to it notices nothing.
    pub fn cut(&self, number: usize) -> PowerCut {
        let path = self.file("disks").join(number.to_string());
        let now = File::open(self.file("disks/now")).expect("the disk");
        let cut = File::create_new(&path).expect("another disk");
        ioctl_ficlone(&cut, &now).expect("a file system that copies by reference");
        PowerCut(path)
    }

    /// Mounts what was there at `cut` instead, with what is written from then on. Nobody may use the
    /// disk meanwhile.
    pub fn go_back_to(&self, cut: &PowerCut) {
        unmount(self.path(), UnmountFlags::empty()).expect("a disk that nobody uses");
        mount_image(&cut.0, &self.path());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
        let _ = unmount(self.file("disks"), UnmountFlags::DETACH);
    }
}

fn sized(path: &Path, megabytes: u64) {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|file| file.set_len(megabytes << 20)).expect("a disk's file");
}

fn mount_image(image: &Path, at: &Path) {
    run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
}
