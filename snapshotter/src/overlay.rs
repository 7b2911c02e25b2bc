//! Layers on one file system, to be mounted by overlayfs.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::dir::Dir;
use crate::layer::{FILES, LayerDir, LayerId, OverlayMarks, WORK};
use crate::remove_tree::{discard_tree, remove_tree};
use crate::snapshotter::{Rootfs, SnapshotError, Snapshotter};

/// Layers in the directories `<root>/<id>/{fs,work}`.
#[derive(Debug)]
pub struct Overlay {
    root: PathBuf,
    dir: Dir,
    marks: OverlayMarks,
}

impl Overlay {
    /// Uses an existing directory, on a file system with extended attributes.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, SnapshotError> {
        let root = root.into();
        let fail = |action| {
            let path = root.clone();
            move |source| SnapshotError::Root { path, action, source }
        };
        let dir = Dir::open(&root).map_err(fail("open the directory"))?;
        let marks = OverlayMarks::probe(&dir).map_err(fail("set an extended attribute"))?;
        Ok(Self { root, dir, marks })
    }

    /// The directory that holds the layers.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Gives a layer another id, whose directory it replaces.
    pub fn rename(&self, from: LayerId, to: LayerId) -> Result<(), SnapshotError> {
        self.remove(to)?;
        let (old, new) = (from.to_string(), to.to_string());
        rustix::fs::renameat(&self.dir, &old, &self.dir, &new)
            .map_err(|error| layer_error(from, "rename its directory", error.into()))
    }

    /// Removes a layer that was not finished, and frees its space even if the step that wrote to it
    /// is not quite gone yet.
    pub fn discard(&self, id: LayerId) -> Result<(), SnapshotError> {
        discard_tree(&self.dir, &OsString::from(id.to_string()))
            .map_err(|source| layer_error(id, "remove its directory", source))
    }

    /// Removes the work directory of a finished layer, if there is one, with what overlayfs left in
    /// it. The layer itself may be removed meanwhile.
    pub fn remove_work(&self, id: LayerId) -> Result<(), SnapshotError> {
        let removed = match self.dir.dir(id.to_string().as_ref()) {
            Ok(layer) => remove_tree(&layer, WORK.as_ref()),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        };
        removed.map_err(|source| layer_error(id, "remove its work directory", source))
    }

    fn at(&self, id: LayerId) -> LayerDir {
        LayerDir::new(id, self.root.join(id.to_string()), self.marks)
    }

    fn make(&self, id: LayerId) -> Result<(), Errno> {
        let layer = self.dir.create_dir(id.to_string().as_ref())?;
        for name in [FILES, WORK] {
            layer.create_dir(name.as_ref())?.set_own_mode(0o755)?;
        }
        Ok(())
    }
}

impl Snapshotter for Overlay {
    fn create(&self, id: LayerId) -> Result<LayerDir, SnapshotError> {
        match self.make(id) {
            Ok(()) => Ok(self.at(id)),
            Err(Errno::EXIST) => Err(SnapshotError::Exists(id)),
            Err(error) => Err(layer_error(id, "create its directory", error.into())),
        }
    }

    fn layer(&self, id: LayerId) -> Result<LayerDir, SnapshotError> {
        match self.dir.stat(id.to_string().as_ref()) {
            Ok(Some(metadata)) if metadata.is_dir() => Ok(self.at(id)),
            Ok(_) => Err(SnapshotError::NotFound(id)),
            Err(source) => Err(layer_error(id, "find its directory", source)),
        }
    }

    fn remove(&self, id: LayerId) -> Result<(), SnapshotError> {
        remove_tree(&self.dir, &OsString::from(id.to_string()))
            .map_err(|source| layer_error(id, "remove its directory", source))
    }

    fn list(&self) -> Result<Vec<LayerId>, SnapshotError> {
        let names = self.dir.names().map_err(|source| SnapshotError::Root {
            path: self.root.clone(),
            action: "read the directory",
            source: source.into(),
        })?;
        let mut ids: Vec<LayerId> =
            names.iter().filter_map(|entry| entry.name.to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn mount(&self, stack: &[LayerId], upper: Option<LayerId>) -> Result<Rootfs, SnapshotError> {
        let mut lower: Vec<PathBuf> = Vec::with_capacity(stack.len());
        for &id in stack {
            let layer = self.layer(id)?;
            // To the kernel, the mark means nothing on the root of a layer.
            let opaque = layer.open().and_then(|dir| dir.is_opaque(self.marks));
            if opaque.map_err(|source| layer_error(id, "open its files", source))? {
                lower.clear();
            }
            lower.push(layer.fs());
        }
        let upper = upper.map(|id| self.layer(id)).transpose()?;
        Ok(Rootfs {
            lower,
            work: upper.as_ref().map(LayerDir::work),
            upper: upper.as_ref().map(LayerDir::fs),
            marks: self.marks,
        })
    }
}

fn layer_error(id: LayerId, action: &'static str, source: io::Error) -> SnapshotError {
    SnapshotError::Layer { id, action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_created_listed_mounted_and_removed_by_id() {
        let scratch = tempfile::tempdir().unwrap();
        let snapshots = Overlay::open(scratch.path()).unwrap();
        for id in [3, 1, 20] {
            snapshots.create(LayerId(id)).unwrap();
        }
        assert!(matches!(snapshots.create(LayerId(3)), Err(SnapshotError::Exists(LayerId(3)))));
        std::fs::create_dir(scratch.path().join("unrelated")).unwrap();
        assert_eq!(snapshots.list().unwrap(), [LayerId(1), LayerId(3), LayerId(20)]);

        let rootfs = snapshots.mount(&[LayerId(1), LayerId(3)], Some(LayerId(20))).unwrap();
        assert_eq!(rootfs.lower, ["1/fs", "3/fs"].map(|path| scratch.path().join(path)));
        assert_eq!(rootfs.upper, Some(scratch.path().join("20/fs")));
        assert_eq!(rootfs.work, Some(scratch.path().join("20/work")));

        let opaque = snapshots.layer(LayerId(3)).unwrap();
        opaque.open().unwrap().set_opaque(opaque.marks()).unwrap();
        let rootfs = snapshots.mount(&[LayerId(1), LayerId(3), LayerId(20)], None).unwrap();
        assert_eq!(rootfs.lower, ["3/fs", "20/fs"].map(|path| scratch.path().join(path)));
        assert_eq!((rootfs.upper, rootfs.work), (None, None));

        for _ in 0..2 {
            snapshots.remove_work(LayerId(20)).unwrap();
            snapshots.remove(LayerId(3)).unwrap();
        }
        snapshots.remove_work(LayerId(3)).unwrap();
        let left = std::fs::read_dir(scratch.path().join("20")).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["fs"]);
        assert!(matches!(
            snapshots.mount(&[LayerId(3)], None),
            Err(SnapshotError::NotFound(LayerId(3)))
        ));
    }
}
