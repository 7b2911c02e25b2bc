//! Path resolution in a merged tree, as a process would see it after a chroot.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{At, FsError};
use crate::metadata::Metadata;
use crate::view::merged_dir::{MergedDir, Part};

/// BuildKit's bound, more generous than the kernel's 40.
const MAX_LINKS: usize = 255;

/// Whether a symbolic link at the end of a path is followed. Links before the end always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The path means what the link points to.
    Last,
    /// The path means the link itself.
    NoLast,
}

/// Where a path leads.
pub(crate) enum Resolved {
    /// To the root.
    Root,
    /// To an entry.
    Found { path: PathBuf, parent: Arc<MergedDir>, part: Part, metadata: Metadata },
    /// To nothing. `path` is where it would be: links are resolved as far as they exist.
    Missing { path: PathBuf },
    /// Through something that is not a directory.
    Blocked { path: PathBuf },
}

/// Resolves `path`, absolute or not, from `root`.
pub(crate) fn resolve(
    root: &Arc<MergedDir>,
    path: &Path,
    follow: Follow,
) -> Result<Resolved, FsError> {
    let mut queue = VecDeque::new();
    enqueue(&mut queue, path);
    // The directories on the way, each with its name in the one before.
    let mut entered: Vec<(OsString, Arc<MergedDir>)> = Vec::new();
    // Names after the point where the path stopped to exist.
    let mut missing: Vec<OsString> = Vec::new();
    let mut links = 0;

    while let Some(name) = queue.pop_front() {
        if name == ".." {
            if missing.pop().is_none() {
                entered.pop();
            }
            continue;
        }
        if !missing.is_empty() {
            missing.push(name);
            continue;
        }
        let current = entered.last().map_or(root, |(_, dir)| dir);
        let here = || full_path(&entered, Some(&name));
        let Some((part, metadata)) = current.child(&name).at_path("look up", here)? else {
            missing.push(name);
            continue;
        };
        let is_last = queue.is_empty();
        if metadata.is_symlink() && (!is_last || follow == Follow::Last) {
            links += 1;
            if links > MAX_LINKS {
                return Err(FsError::SymlinkLoop(here()));
            }
            let target = part.dir.read_link(&name).at_path("read the link", here)?;
            if target.as_encoded_bytes().starts_with(b"/") {
                entered.clear();
            }
            enqueue(&mut queue, Path::new(&target));
        } else if is_last {
            let (path, part) = (here(), part.clone());
            let parent = Arc::clone(current);
            return Ok(Resolved::Found { path, parent, part, metadata });
        } else if let Some(dir) = current.enter(&name).at_path("open the directory", here)? {
            entered.push((name, Arc::new(dir)));
        } else {
            return Ok(Resolved::Blocked { path: here() });
        }
    }

    if !missing.is_empty() {
        let mut path = full_path(&entered, None);
        path.extend(missing);
        return Ok(Resolved::Missing { path });
    }
    // The path ended in "..", or in a link to "/": it names the last directory entered.
    let Some((name, _)) = entered.pop() else { return Ok(Resolved::Root) };
    let path = full_path(&entered, Some(&name));
    let parent = entered.last().map_or(root, |(_, dir)| dir);
    match parent.child(&name).at("look up", &path)? {
        Some((part, metadata)) => {
            let (parent, part) = (Arc::clone(parent), part.clone());
            Ok(Resolved::Found { path, parent, part, metadata })
        }
        None => Ok(Resolved::Missing { path }),
    }
}

/// Puts a path's components before those still to be walked.
fn enqueue(queue: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => queue.push_front(name.to_owned()),
            Component::ParentDir => queue.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn full_path(entered: &[(OsString, Arc<MergedDir>)], last: Option<&OsStr>) -> PathBuf {
    entered.iter().map(|(name, _)| name.as_os_str()).chain(last).collect()
}
