//! How much disk a layer takes.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{At, FsError};
use crate::layer::{LayerDir, LayerId};
use crate::view::View;
use crate::writer::shared::{self};

/// What a layer or a tree takes on its file system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Allocated bytes, each inode counted once, without those of `shared`.
    pub bytes: u64,
    /// Inodes, the root directory's included.
    pub inodes: u64,
    /// Files that others have, too. Removing one frees it only with the last of them.
    pub shared: Vec<SharedFile>,
}

/// A file that several layers or trees have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFile {
    /// Its inode's number.
    pub ino: u64,
    /// Allocated bytes.
    pub bytes: u64,
    /// The layer that counts the file among its own, as long as it is there.
    pub origin: Option<LayerId>,
}

/// Adds up a finished layer's files, whiteouts included, and what belongs to it beside them.
pub fn of_layer(layer: &LayerDir) -> Result<Usage, FsError> {
    let path = Path::new("");
    let origins = shared::read(&layer.links()).at("read what the layer shares", path)?;
    // A file that has more names than these got them from layers that were made of this one.
    let mut usage = add_up(&layer.fs(), |ino, _| origins.get(&ino).copied())?;
    for beside in [layer.path(), &layer.links()] {
        if let Ok(metadata) = std::fs::symlink_metadata(beside) {
            usage.bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        }
    }
    Ok(usage)
}

/// Adds up a plain tree. What has names elsewhere is shared with who knows whom.
pub fn of_directory(path: &Path) -> Result<Usage, FsError> {
    add_up(path, |_, has_other_names| has_other_names.then_some(None))
}

/// Adds up a tree; `origin` tells of inodes, by whether they have names elsewhere, which are shared.
fn add_up(
    path: &Path,
    origin: impl Fn(u64, bool) -> Option<Option<LayerId>>,
) -> Result<Usage, FsError> {
    let view = View::of_directory(path)?;
    let root = crate::dir::Dir::open(path)
        .and_then(|dir| dir.own_stat())
        .at("read the metadata", Path::new(""))?;
    let mut usage = Usage { bytes: root.blocks * 512, inodes: 1, shared: Vec::new() };
    let mut several: HashMap<_, (u64, u64)> = HashMap::new();
    for entry in view.walk("")? {
        let metadata = *entry?.metadata();
        let bytes = metadata.blocks * 512;
        if metadata.nlink > 1 && !metadata.is_dir() {
            let names_left = metadata.nlink;
            let (left, _) =
                several.entry((metadata.dev, metadata.ino)).or_insert((names_left, bytes));
            *left = left.saturating_sub(1);
        } else {
            usage.bytes += bytes;
            usage.inodes += 1;
        }
    }
    usage.inodes += several.len() as u64;
    for ((_, ino), (names_elsewhere, bytes)) in several {
        match origin(ino, names_elsewhere > 0) {
            Some(origin) => usage.shared.push(SharedFile { ino, bytes, origin }),
            None => usage.bytes += bytes,
        }
    }
    usage.shared.sort_unstable_by_key(|file| file.ino);
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{CopyOptions, copy};
    use crate::fixture::Stack;
    use crate::writer::LayerWriter;

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

    #[test]
    fn a_file_with_a_name_elsewhere_is_told_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let alone = of_directory(&tree).unwrap();
        std::fs::write(tree.join("file"), vec![1; 10_000]).unwrap();
        std::fs::hard_link(tree.join("file"), scratch.path().join("elsewhere")).unwrap();
        let usage = of_directory(&tree).unwrap();
        assert_eq!((usage.bytes, usage.inodes), (alone.bytes, 2));
        assert!(matches!(usage.shared[..], [SharedFile { bytes: 10_000.., origin: None, .. }]));
    }

    #[test]
    fn what_a_layer_has_from_another_is_counted_with_that_one_however_long_the_way() {
        // No layer of an index has the number of the fixture's first.
        let stack = Stack::new(&[&[], &["d/f=1"]]);
        let first = &stack.layers[1];
        let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
        let mut copied = |from: &LayerDir, to: &LayerDir| {
            let source = View::of_layers(std::slice::from_ref(from)).unwrap();
            let mut writer = LayerWriter::new(to, &View::empty()).unwrap();
            copy(&source, "d", &mut writer, "d", &mut options).unwrap();
            writer.finish().unwrap();
            of_layer(to).unwrap()
        };
        let second = stack.empty_layer();
        let third = stack.empty_layer();
        for usage in [copied(first, &second), copied(&second, &third)] {
            let [file] = usage.shared[..] else { panic!("{usage:?}") };
            assert_eq!(file.origin, Some(first.id()));
        }
        assert_eq!(of_layer(first).unwrap().shared, []);
    }
}
