//! Removal of whole trees whose content is foreign.

use std::ffi::{OsStr, OsString};
use std::io;

use rustix::io::Errno;

use crate::dir::Dir;
use crate::metadata::FileKind;

/// How many directories above the current one stay open; deeper ones are left and re-entered from
/// the top, so that a tree of any depth needs few descriptors.
const MAX_OPEN: usize = 64;

/// Removes a name and, if it is a directory, everything below; no such name is fine.
pub(crate) fn remove_tree(dir: &Dir, name: &OsStr) -> io::Result<()> {
    match dir.unlink(name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // Each pass removes at least one directory, or fails.
    loop {
        match dir.dir(name) {
            Ok(top) => empty(top)?,
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
fn empty(top: Dir) -> io::Result<()> {
    let pending = remove_files(&top)?;
    let mut levels = vec![Level { dir: top, pending }];
    let mut moved = 0_u32;
    while let Some(depth) = levels.len().checked_sub(1) {
        let Some(name) = levels[depth].pending.last().cloned() else {
            levels.pop();
            if let Some(parent) = levels.last_mut()
                && let Some(name) = parent.pending.pop()
            {
                parent.dir.remove_dir(&name)?;
            }
            continue;
        };
        if depth >= MAX_OPEN {
            loop {
                let up = OsString::from(format!(".moved-{moved}"));
                moved += 1;
                if levels[0].dir.stat(&up)?.is_none() {
                    rustix::fs::renameat(&levels[depth].dir, &name, &levels[0].dir, &up)?;
                    // Next but last: the last one is the directory that is being emptied.
                    let position = levels[0].pending.len() - 1;
                    levels[0].pending.insert(position, up);
                    break;
                }
            }
            levels[depth].pending.pop();
            continue;
        }
        let dir = levels[depth].dir.dir(&name)?;
        let pending = remove_files(&dir)?;
        levels.push(Level { dir, pending });
    }
    Ok(())
}

/// Removes all but the directories, and returns those.
fn remove_files(dir: &Dir) -> io::Result<Vec<OsString>> {
    let mut directories = Vec::new();
    for entry in dir.names()? {
        if entry.kind == Some(FileKind::Directory) {
            directories.push(entry.name);
            continue;
        }
        match dir.unlink(&entry.name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => directories.push(entry.name),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(directories)
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
}
