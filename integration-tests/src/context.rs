//! The folder that a test builds from.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::dedent::dedent;

/// A build context, or any other temporary folder of files; removed when dropped.
pub struct Context {
    folder: TempDir,
}

impl Context {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: TempDir::with_prefix("kiln-context-").expect("temporary folder") }
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// With `text` as its `Dockerfile`; indentation that all lines share is taken away.
    pub fn dockerfile(self, text: &str) -> Self {
        self.file("Dockerfile", dedent(text))
    }

    /// With a file; parents are made.
    pub fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.write(path, contents);
        self
    }

    /// With a folder.
    pub fn dir(self, path: &str) -> Self {
        fs::create_dir_all(self.at(path)).expect("folder in the context");
        self
    }

    /// With a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        symlink(target, self.parented(path)).expect("link in the context");
        self
    }

    /// With permissions on an entry that is there already.
    pub fn mode(self, path: &str, mode: u32) -> Self {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).expect("permissions");
        self
    }

    /// Writes a file now, between two builds.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.parented(path), contents).expect("file in the context");
    }

    /// Replaces the `Dockerfile` now, between two builds.
    pub fn write_dockerfile(&self, text: &str) {
        self.write("Dockerfile", dedent(text));
    }

    /// Removes a file now, between two builds.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).expect("file in the context");
    }

    /// What a file holds.
    pub fn read(&self, path: &str) -> String {
        let path = self.at(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The absolute path of an entry.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    fn parented(&self, path: &str) -> PathBuf {
        let path = self.at(path);
        let parent = path.parent().expect("an entry has a parent");
        fs::create_dir_all(parent).expect("folder in the context");
        path
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}
