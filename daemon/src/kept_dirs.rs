//! Directories that are kept from build to build, by the ids that the index gives them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kiln_cache::DirId;
use kiln_snapshotter::create_trees_dir;

/// The directories of one kind: `<root>/<kind>/<id>`.
#[derive(Clone)]
pub(crate) struct KeptDirs(PathBuf);

impl KeptDirs {
    /// Those below `root`, in a directory that is made if it is missing.
    pub(crate) fn open(root: &Path, kind: &str) -> anyhow::Result<Self> {
        let dir = root.join(kind);
        create_trees_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self(dir))
    }

    /// The directory that holds them.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// Where a directory is, or would be.
    pub(crate) fn path(&self, id: DirId) -> PathBuf {
        self.0.join(id.to_string())
    }

    /// All that are there, whether or not the index knows them.
    pub(crate) fn list(&self) -> anyhow::Result<Vec<DirId>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()).map(DirId));
        }
        Ok(found)
    }

    /// Makes an empty directory.
    pub(crate) fn create(&self, id: DirId) -> anyhow::Result<()> {
        let path = self.path(id);
        std::fs::create_dir(&path).with_context(|| path.display().to_string())
    }

    /// Removes what is in a directory.
    pub(crate) fn empty(&self, id: DirId) -> anyhow::Result<()> {
        let path = self.path(id);
        let empty = || {
            for entry in std::fs::read_dir(&path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            std::io::Result::Ok(())
        };
        empty().with_context(|| path.display().to_string())
    }

    /// Removes a directory; none of that id is fine.
    pub(crate) fn remove(&self, id: DirId) -> anyhow::Result<()> {
        let path = self.path(id);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| path.display().to_string())
            }
            _ => Ok(()),
        }
    }
}
