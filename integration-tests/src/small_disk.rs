//! A file system that is soon full.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A tmpfs of a given size; unmounted when dropped.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one that holds `megabytes`.
    pub fn mount(megabytes: u32) -> Self {
        let folder = TempDir::with_prefix("kiln-disk-").expect("temporary folder");
        let options = std::ffi::CString::new(format!("size={megabytes}m")).expect("mount options");
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
            .expect("mounting a tmpfs takes root");
        Self { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still mounted below goes with it.
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}
