//! Paths to include together with whatever their symlinks lead to.

use super::WalkError;
use super::listing::{BUFFER, Listing};
use crate::pattern::{clean_path, glob_match};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Adds to include patterns the paths to follow, and each symlink and target on their way.
///
/// An empty result includes all: there was no pattern, or one of them is the root.
pub(super) fn with_followed(
    root: &OwnedFd,
    include: &[String],
    follow: &[String],
) -> Result<Vec<String>, WalkError> {
    if follow.is_empty() {
        return Ok(include.to_vec());
    }
    let followed = Resolver::new(root, follow).run()?;
    // The root among the paths to follow adds nothing; among all of them it lifts the filter.
    let Some(followed) = without_covered(followed) else {
        return Ok(include.to_vec());
    };
    let patterns = include.iter().cloned().chain(followed);
    Ok(without_covered(patterns).unwrap_or_default())
}

/// Leaves out paths that are below the one kept before them; `None` if the root is among them.
fn without_covered(paths: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
    let mut kept: Vec<String> = Vec::new();
    for path in paths {
        if path == "." {
            return None;
        }
        let is_covered = kept.last().is_some_and(|last| {
            path.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        if !is_covered {
            kept.push(path);
        }
    }
    Some(kept)
}

struct Resolver<'a> {
    root: &'a OwnedFd,
    /// Still to be followed. A list instead of recursion, since a tree may be a long chain of links.
    pending: Vec<String>,
    resolved: BTreeSet<String>,
}

impl<'a> Resolver<'a> {
    fn new(root: &'a OwnedFd, paths: &[String]) -> Self {
        Self { root, pending: paths.to_vec(), resolved: BTreeSet::new() }
    }

    fn run(mut self) -> Result<BTreeSet<String>, WalkError> {
        while let Some(path) = self.pending.pop() {
            self.follow(&relative(&path))?;
        }
        Ok(self.resolved)
    }

    /// Goes down a path to its end, or to the first component that is a symlink: that goes on from
    /// its target. Each symlink is taken once, so a loop ends.
    fn follow(&mut self, path: &str) -> Result<(), WalkError> {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let current = &path[..end];
            let rest = &path[end..];
            let targets = self.targets(current)?;
            if targets.is_empty() && !rest.is_empty() {
                continue;
            }
            if self.resolved.insert(current.to_owned()) {
                let pending = targets.into_iter().map(|target| target + rest);
                self.pending.extend(pending);
            }
            return Ok(());
        }
        Ok(())
    }

    /// Where the symlinks that a path names lead to; its last component may be a wildcard.
    fn targets(&self, path: &str) -> Result<Vec<String>, WalkError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
        if matches!(name, "." | "..") || path.starts_with("../") {
            return Ok(Vec::new());
        }
        if !has_wildcard(name) {
            return Ok(self.target(path)?.into_iter().collect());
        }
        let mut targets = Vec::new();
        for entry in self.names(directory)? {
            // A malformed wildcard matches nothing here, and is an error as an include pattern.
            if glob_match(name, &entry).unwrap_or(false) {
                targets.extend(self.target(&relative(&format!("{directory}/{entry}")))?);
            }
        }
        Ok(targets)
    }

    /// The target of a symlink, from the root; `None` for anything else, or nothing.
    fn target(&self, path: &str) -> Result<Option<String>, WalkError> {
        let failed =
            |errno: Errno| WalkError::Io { path: PathBuf::from(path), source: errno.into() };
        let stat = match rustix::fs::statat(self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            stat => stat.map_err(failed)?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        let link = rustix::fs::readlinkat(self.root, path, Vec::new()).map_err(failed)?;
        let link =
            link.into_string().map_err(|_| WalkError::NotUtf8 { path: PathBuf::from(path) })?;
        if link.starts_with('/') {
            return Ok(Some(clean_path(&link)));
        }
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        Ok(Some(clean_path(&format!("/{directory}/{link}"))))
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, WalkError> {
        let failed =
            |errno: Errno| WalkError::Io { path: PathBuf::from(directory), source: errno.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(self.root, directory, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            directory => directory.map_err(failed)?,
        };
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut listing = Listing::read(&directory, &mut buffer).map_err(failed)?;
        let mut names = Vec::new();
        while let Some((name, _)) = listing.next() {
            // A name that is not UTF-8 cannot be matched by a pattern, which is.
            names.extend(name.to_str().map(str::to_owned));
        }
        Ok(names)
    }
}

/// The clean form of a path, from the root of the tree.
fn relative(path: &str) -> String {
    clean_path(&format!("./{path}"))
}

fn has_wildcard(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}
