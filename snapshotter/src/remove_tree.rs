//! Removal of whole trees whose content is foreign.

use std::ffi::{OsStr, OsString};
use std::io;

use rustix::io::Errno;

use crate::dir::Dir;
use crate::metadata::FileKind;

/// How many directories above the current one stay open; deeper ones are left and re-entered from
/// the top, so that a tree of any depth needs few descriptors.
const MAX_OPEN: usize = 64;

/// Files smaller than this are not worth a look before they are removed.
const LARGE: u64 = 256 << 10;

/// When the space of removed files is free again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// When nothing refers to the files any more.
    Later,
    /// At once.
    Now,
}

/// Removes a name and, if it is a directory, everything below. What is not there, or is removed by
/// somebody else meanwhile, is fine.
pub(crate) fn remove_tree(dir: &Dir, name: &OsStr) -> io::Result<()> {
    remove(dir, name, Space::Later)
}

/// Does the same to what nobody reads any more. Its space is free at once, even while an overlay
/// that is about to be unmounted still refers to it.
pub(crate) fn discard_tree(dir: &Dir, name: &OsStr) -> io::Result<()> {
    remove(dir, name, Space::Now)
}

fn remove(dir: &Dir, name: &OsStr, space: Space) -> io::Result<()> {
    match dir.unlink(name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // Each pass removes at least one directory, or fails.
    loop {
        match dir.dir(name) {
            Ok(top) => empty(top, space)?,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        match dir.remove_dir(name) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Level {
    dir: Dir,
    /// Directories that still have to be emptied and removed.
    pending: Vec<OsString>,
}

/// Empties a directory. What lies deeper than [`MAX_OPEN`] levels is moved up to `top` first, so
/// the top may keep directories that the caller's next pass empties.
fn empty(top: Dir, space: Space) -> io::Result<()> {
    let pending = remove_files(&top, space)?;
    let mut levels = vec![Level { dir: top, pending }];
    let mut moved = 0_u32;
    while let Some(depth) = levels.len().checked_sub(1) {
        let Some(name) = levels[depth].pending.last().cloned() else {
            levels.pop();
            if let Some(parent) = levels.last_mut()
                && let Some(name) = parent.pending.pop()
            {
                unless_gone(parent.dir.remove_dir(&name))?;
            }
            continue;
        };
        if depth >= MAX_OPEN {
            loop {
                let up = OsString::from(format!(".moved-{moved}"));
                moved += 1;
                if levels[0].dir.stat(&up)?.is_none() {
                    let (from, to) = (&levels[depth].dir, &levels[0].dir);
                    if unless_gone(rustix::fs::renameat(from, &name, to, &up))?.is_some() {
                        // Next but last: the last one is the directory that is being emptied.
                        let position = levels[0].pending.len() - 1;
                        levels[0].pending.insert(position, up);
                    }
                    break;
                }
            }
            levels[depth].pending.pop();
            continue;
        }
        match unless_gone(levels[depth].dir.dir(&name))? {
            Some(dir) => {
                let pending = remove_files(&dir, space)?;
                levels.push(Level { dir, pending });
            }
            None => _ = levels[depth].pending.pop(),
        }
    }
    Ok(())
}

/// Removes all but the directories, and returns those.
fn remove_files(dir: &Dir, space: Space) -> io::Result<Vec<OsString>> {
    let mut directories = Vec::new();
    // A directory that was removed cannot even be read.
    for entry in unless_gone(dir.names())?.unwrap_or_default() {
        if entry.kind == Some(FileKind::Directory) {
            directories.push(entry.name);
            continue;
        }
        if space == Space::Now && entry.kind == Some(FileKind::File) {
            free(dir, &entry.name)?;
        }
        match unless_gone(dir.unlink(&entry.name)) {
            Err(Errno::ISDIR) => directories.push(entry.name),
            removed => _ = removed?,
        }
    }
    Ok(directories)
}

/// Frees what a large file takes up, unless other layers share it.
fn free(dir: &Dir, name: &OsStr) -> io::Result<()> {
    match dir.stat(name)? {
        Some(file) if file.nlink == 1 && file.size >= LARGE => {
            unless_gone(dir.truncate(name))?;
        }
        _ => {}
    }
    Ok(())
}

/// The result of a call on something; `None` if it is not there any more.
fn unless_gone<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_far_deeper_than_the_descriptor_limit_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Dir::open(scratch.path()).unwrap();
        let mut dir = root.create_dir(OsStr::new("deep")).unwrap();
        for _ in 0..3000 {
            dir.create_file(OsStr::new("file")).unwrap();
            dir = dir.create_dir(OsStr::new("d")).unwrap();
        }
        remove_tree(&root, OsStr::new("deep")).unwrap();
        assert!(root.names().unwrap().is_empty());
    }

    #[test]
    fn two_can_remove_the_same_tree() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Dir::open(scratch.path()).unwrap();
        for _ in 0..50 {
            let doomed = root.create_dir(OsStr::new("doomed")).unwrap();
            for name in ["a", "b", "c"].map(OsStr::new) {
                let inner = doomed.create_dir(name).unwrap();
                inner.create_dir(name).unwrap().create_file(name).unwrap();
            }
            let start = std::sync::Barrier::new(2);
            let remove = |dir: &Dir, name: &str| {
                start.wait();
                remove_tree(dir, OsStr::new(name)).unwrap();
            };
            std::thread::scope(|scope| {
                scope.spawn(|| remove(&root, "doomed"));
                scope.spawn(|| remove(&doomed, "b"));
            });
            assert!(root.names().unwrap().is_empty());
        }
    }

    #[test]
    fn a_symbolic_link_is_removed_and_its_target_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Dir::open(scratch.path()).unwrap();
        root.create_dir(OsStr::new("kept")).unwrap().create_file(OsStr::new("file")).unwrap();
        let doomed = root.create_dir(OsStr::new("doomed")).unwrap();
        doomed.create_symlink(OsStr::new("link"), OsStr::new("../kept")).unwrap();
        remove_tree(&root, OsStr::new("doomed")).unwrap();
        assert!(scratch.path().join("kept/file").exists());
        remove_tree(&root, OsStr::new("never-was")).unwrap();
    }

    #[test]
    fn space_is_freed_at_once_but_for_files_that_others_share() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Dir::open(scratch.path()).unwrap();
        let doomed = root.create_dir(OsStr::new("doomed")).unwrap();
        let mut open = Vec::new();
        for name in ["own", "shared"] {
            let file = doomed.create_file(OsStr::new(name)).unwrap();
            file.set_len(LARGE).unwrap();
            open.push(file);
        }
        root.link(OsStr::new("kept"), &doomed, OsStr::new("shared")).unwrap();
        discard_tree(&root, OsStr::new("doomed")).unwrap();
        let sizes: Vec<u64> = open.iter().map(|file| file.metadata().unwrap().len()).collect();
        assert_eq!(sizes, [0, LARGE]);
    }
}
