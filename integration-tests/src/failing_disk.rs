//! A disk that fails.

use std::fs::OpenOptions;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::fs::inotify;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::process::readable;

/// An ext4 on a loop device; unmounted when dropped.
///
/// Its disk is a file. Where that ends, so does the disk: what is read or written beyond is answered
/// with EIO.
pub struct FailingDisk {
    folder: TempDir,
    size: u64,
}

impl FailingDisk {
    /// Mounts one that holds `megabytes`.
    pub fn mount(megabytes: u64) -> Self {
        let folder = TempDir::with_prefix("kiln-disk-").expect("temporary folder");
        let disk = Self { folder, size: megabytes << 20 };
        std::fs::create_dir(disk.path()).expect("mount point");
        disk.set_size(disk.size);
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()));
        run(Command::new("mount").args(["-o", "loop"]).arg(disk.image()).arg(disk.path()));
        disk
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// From now on, the disk ends after so many megabytes; what was beyond is lost.
    pub fn fail_after(&self, megabytes: u64) {
        self.set_size(megabytes << 20);
    }

    /// The disk has its whole size again, and zeros where it had failed. The file system is checked
    /// and mounted again: nobody may use it meanwhile.
    pub fn mend(&self) {
        self.set_size(self.size);
        // A daemon that was killed has processes with mounts of their own, which end a moment later.
        // Until then the kernel writes what it has in memory over what is repaired. The loop device
        // closes its file when nothing is mounted any more.
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
        let closed = inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&watch, self.image(), closed).expect("a watch");
        let _ = unmount(self.path(), UnmountFlags::DETACH);
        let is_free = readable(&[watch.as_fd()], Duration::from_mins(1)).is_some();
        assert!(is_free, "the file system is still in use");
        // What it repairs is not for this test to judge; it says so by its exit code.
        let _ = Command::new("fsck.ext4").args(["-y", "-f"]).arg(self.image()).output();
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()));
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn set_size(&self, size: u64) {
        let mut options = OpenOptions::new();
        let image = options.write(true).create(true).truncate(false).open(self.image());
        image.and_then(|image| image.set_len(size)).expect("the disk's file");
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// Runs a program of the host, which must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.output().expect("a program of the host");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
