//! How much disk a layer takes.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{At, FsError};
use crate::layer::LayerDir;
use crate::view::View;

/// What a layer takes on its file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Allocated bytes, each inode counted once.
    ///
    /// A file that the layer has in common with others counts in each of them: removing one frees
    /// it only with the last.
    pub bytes: u64,
    /// Inodes, the root directory's included.
    pub inodes: u64,
}

/// Adds up a layer's files, whiteouts included.
pub fn of_layer(layer: &LayerDir) -> Result<Usage, FsError> {
    of_directory(&layer.fs())
}

/// Adds up a plain tree.
pub fn of_directory(path: &Path) -> Result<Usage, FsError> {
    let view = View::of_directory(path)?;
    let root = crate::dir::Dir::open(path)
        .and_then(|dir| dir.own_stat())
        .at("read the metadata", Path::new(""))?;
    let mut usage = Usage { bytes: root.blocks * 512, inodes: 1 };
    let mut seen = HashSet::new();
    for entry in view.walk("")? {
        let metadata = *entry?.metadata();
        if metadata.nlink > 1 && !metadata.is_dir() && !seen.insert((metadata.dev, metadata.ino)) {
            continue;
        }
        usage.bytes += metadata.blocks * 512;
        usage.inodes += 1;
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path();
        std::fs::create_dir(tree.join("dir")).unwrap();
        std::fs::write(tree.join("dir/file"), vec![1; 10_000]).unwrap();
        let once = of_directory(tree).unwrap();
        assert_eq!(once.inodes, 3);
        assert!(once.bytes >= 10_000);
        std::fs::hard_link(tree.join("dir/file"), tree.join("again")).unwrap();
        assert_eq!(of_directory(tree).unwrap(), once);
    }
}
