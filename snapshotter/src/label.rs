//! SELinux's labels of trees that are shown as they are.

use std::ffi::CStr;
use std::path::Path;

use crate::dir::Dir;
use crate::error::{At, FsError};
use crate::metadata::{FileKind, LABEL};
use crate::view::View;

/// Labels a directory and the trees in it, unless it has that label already. If this is broken off, the
/// next time does not begin with the first tree again.
pub fn label_trees(path: &Path, label: &CStr) -> Result<(), FsError> {
    let root = Dir::open(path).at("open the directory", Path::new(""))?;
    if has(&root, label)? {
        return Ok(());
    }
    for entry in root.names().at("read the directory", Path::new(""))? {
        if entry.kind == Some(FileKind::Directory) {
            label_tree(&path.join(entry.name), label)?;
        }
    }
    set(&root, label)
}

/// Labels a directory and all that is below it, unless it has that label already. What is made in it
/// later has the label of its directory, if the policy does not say otherwise.
///
/// The directory itself comes last: if this is broken off, the next time does all of it.
pub fn label_tree(path: &Path, label: &CStr) -> Result<(), FsError> {
    let root = Dir::open(path).at("open the directory", Path::new(""))?;
    if has(&root, label)? {
        return Ok(());
    }
    for entry in View::of_directory(path)?.walk("")? {
        let entry = entry?;
        let set = entry.dir.set_xattr(&entry.name, LABEL, label.to_bytes_with_nul());
        set.at(ACTION, &entry.path)?;
    }
    set(&root, label)
}

const ACTION: &str = "set SELinux's label";

fn has(dir: &Dir, label: &CStr) -> Result<bool, FsError> {
    let own = dir.own_xattrs().at("read the extended attributes", Path::new(""))?;
    Ok(own.iter().any(|(key, value)| key == LABEL && value == label.to_bytes_with_nul()))
}

fn set(dir: &Dir, label: &CStr) -> Result<(), FsError> {
    dir.set_own_xattr(LABEL, label.to_bytes_with_nul()).at(ACTION, Path::new(""))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const WANTED: &CStr = c"system_u:object_r:container_file_t:s0";

    fn label(dir: &Dir, name: &str) -> Vec<u8> {
        let found = dir.xattrs(OsStr::new(name)).unwrap();
        found.into_iter().find(|(key, _)| key == LABEL).map(|(_, value)| value).unwrap_or_default()
    }

    #[test]
    fn all_of_a_tree_is_labelled_but_what_its_links_lead_to() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/f"), "").unwrap();
        fs::write(scratch.path().join("outside"), "").unwrap();
        symlink("../outside", tree.join("link")).unwrap();
        label_tree(&tree, WANTED).unwrap();
        let above = Dir::open(scratch.path()).unwrap();
        let wanted = WANTED.to_bytes_with_nul();
        for name in ["tree", "tree/a", "tree/a/b", "tree/a/b/f", "tree/link"] {
            assert_eq!(label(&above, name), wanted, "{name}");
        }
        assert_ne!(label(&above, "outside"), wanted);
    }

    #[test]
    fn a_tree_that_has_the_label_is_not_walked_over() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("f"), "").unwrap();
        label_tree(scratch.path(), WANTED).unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let other = c"system_u:object_r:container_ro_file_t:s0".to_bytes_with_nul();
        dir.set_xattr(OsStr::new("f"), LABEL, other).unwrap();
        label_tree(scratch.path(), WANTED).unwrap();
        assert_eq!(label(&dir, "f"), other);
        dir.set_own_xattr(LABEL, other).unwrap();
        label_tree(scratch.path(), WANTED).unwrap();
        assert_eq!(label(&dir, "f"), WANTED.to_bytes_with_nul());
    }

    #[test]
    fn trees_that_have_the_label_are_not_walked_over_for_those_that_do_not() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["1", "2"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
            fs::write(scratch.path().join(name).join("f"), "").unwrap();
        }
        label_tree(&scratch.path().join("1"), WANTED).unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let other = c"system_u:object_r:container_ro_file_t:s0".to_bytes_with_nul();
        dir.set_xattr(OsStr::new("1/f"), LABEL, other).unwrap();
        label_trees(scratch.path(), WANTED).unwrap();
        assert_eq!(label(&dir, "1/f"), other);
        for name in [".", "2", "2/f"] {
            assert_eq!(label(&dir, name), WANTED.to_bytes_with_nul(), "{name}");
        }
    }
}
