//! Distrust of a foreign walk.

use super::Stat;
use std::collections::HashSet;
use thiserror::Error;

/// Longer paths cannot be opened anyway.
const MAX_PATH: usize = 4096;

/// An entry that an honest sender would not announce.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadEntry {
    /// Empty, absolute, too long, or with empty, `.` or `..` components or a NUL.
    #[error("entry {path:?}: not a clean relative path")]
    Path {
        /// The entry.
        path: String,
    },
    /// It does not come after the entry before it.
    #[error("entry {path:?}: out of order after {previous:?}")]
    Order {
        /// The entry.
        path: String,
        /// The last entry of the same directory.
        previous: String,
    },
    /// The directory that it is in has not come, or is none, or was left before.
    #[error("entry {path:?}: {directory:?} is not a directory that came before")]
    Parent {
        /// The entry.
        path: String,
        /// Where it would be.
        directory: String,
    },
    /// It shares the content of something that is not an earlier file.
    #[error("entry {path:?}: hardlink to {target:?}, which is not a file that came before")]
    Hardlink {
        /// The entry.
        path: String,
        /// What it names.
        target: String,
    },
    /// Its mode is of no kind or several, or its size is negative.
    #[error("entry {path:?}: impossible mode {mode:#o} or size {size}")]
    Impossible {
        /// The entry.
        path: String,
        /// Go's mode bits.
        mode: u32,
        /// Bytes.
        size: i64,
    },
}

/// Checks a walk, entry by entry.
///
/// What passes is a tree: each path is clean, relative and unique, comes in the order of its
/// components, and lies in directories that came before it.
#[derive(Debug)]
pub struct Validator {
    /// The directories from the root to where the walk is, with the last name seen in each.
    open: Vec<Open>,
    files: HashSet<Box<str>>,
}

#[derive(Debug)]
struct Open {
    directory: String,
    last: String,
}

impl Default for Validator {
    fn default() -> Self {
        Self {
            open: vec![Open { directory: String::new(), last: String::new() }],
            files: HashSet::new(),
        }
    }
}

impl Validator {
    /// Checks the next entry.
    pub fn check(&mut self, stat: &Stat) -> Result<(), BadEntry> {
        let path = || stat.path.clone();
        if !is_clean(&stat.path) {
            return Err(BadEntry::Path { path: path() });
        }
        let mode = stat.go_mode();
        if mode.to_st_mode().is_none() || stat.size < 0 {
            return Err(BadEntry::Impossible { path: path(), mode: stat.mode, size: stat.size });
        }
        self.place(stat)?;
        if mode.is_dir() {
            self.open.push(Open { directory: path(), last: String::new() });
        } else if stat.is_hardlink() {
            if !self.files.contains(stat.linkname.as_str()) {
                return Err(BadEntry::Hardlink { path: path(), target: stat.linkname.clone() });
            }
        } else if !mode.is_symlink() {
            self.files.insert(stat.path.as_str().into());
        }
        Ok(())
    }

    fn place(&mut self, stat: &Stat) -> Result<(), BadEntry> {
        let (directory, name) = stat.path.rsplit_once('/').unwrap_or(("", &stat.path));
        let found = self.open.iter().rposition(|open| open.directory == directory);
        let Some(place) = found else {
            return Err(BadEntry::Parent {
                path: stat.path.clone(),
                directory: directory.to_owned(),
            });
        };
        self.open.truncate(place + 1);
        let open = &mut self.open[place];
        if open.last.as_str() >= name {
            return Err(BadEntry::Order { path: stat.path.clone(), previous: open.last.clone() });
        }
        name.clone_into(&mut open.last);
        Ok(())
    }
}

fn is_clean(path: &str) -> bool {
    path.len() <= MAX_PATH
        && !path.contains('\0')
        && path.split('/').all(|component| !matches!(component, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn entry(path: &str) -> Stat {
        let (path, mode, linkname) = match path.split_once(" -> ") {
            Some((path, target)) => (path, 0o644, target),
            None => match path.strip_suffix('/') {
                Some(directory) => (directory, 1 << 31 | 0o755, ""),
                None => (path, 0o644, ""),
            },
        };
        Stat { path: path.to_owned(), mode, linkname: linkname.to_owned(), ..Stat::default() }
    }

    fn check(paths: &[&str]) -> Result<(), BadEntry> {
        let mut validator = Validator::default();
        paths.iter().try_for_each(|path| validator.check(&entry(path)))
    }

    #[test]
    fn a_walk_in_order_of_components_passes() {
        check(&["a/", "a/x", "a/y/", "a/y/z", "a-b", "b", "c/", "c/d/", "e"]).unwrap();
        check(&["a", "b -> a", "c -> a"]).unwrap();
        check(&[]).unwrap();
    }

    #[test]
    fn hostile_walks_are_refused() {
        for paths in [
            &["/a"][..],
            &[""],
            &["."],
            &[".."],
            &["../a"],
            &["a/", "a/../b"],
            &["a/", "a//b"],
            &["a/", "a/./b"],
            &["a\0"],
            &["a//"],
            &["b", "a"],
            &["a", "a"],
            &["a/", "a/"],
            &["a/x"],
            &["a", "a/x"],
            &["a/", "a/x", "b", "a/y"],
            &["a/", "a/y", "a/x"],
            &["a-b", "a/", "a/x"],
            &["a -> b"],
            &["a/", "b -> a"],
            &["a -> a"],
            &["a -> /etc/passwd"],
        ] {
            assert!(check(paths).is_err(), "{paths:?}");
        }
    }

    #[test]
    fn an_impossible_file_is_refused() {
        let mut stat = entry("a");
        stat.size = -1;
        assert!(Validator::default().check(&stat).is_err());
        let mut stat = entry("a");
        stat.mode |= 1 << 31 | 1 << 27;
        assert!(Validator::default().check(&stat).is_err());
    }

    #[test]
    fn a_hardlink_to_a_hardlink_or_a_symlink_is_refused() {
        assert!(check(&["a", "b -> a", "c -> b"]).is_err());
        let mut validator = Validator::default();
        let mut symlink = entry("a -> x");
        symlink.mode |= 1 << 27;
        validator.check(&symlink).unwrap();
        assert!(validator.check(&entry("b -> a")).is_err());
    }

    proptest! {
        #[test]
        fn whatever_passes_is_a_tree(
            paths in prop::collection::vec("[ab./]{1,5}", 0..8),
        ) {
            let mut validator = Validator::default();
            let mut directories = BTreeSet::from([String::new()]);
            let mut seen = BTreeSet::new();
            for path in paths {
                let stat = entry(&path);
                if validator.check(&stat).is_err() {
                    break;
                }
                prop_assert!(!stat.path.starts_with('/'));
                prop_assert!(!stat.path.split('/').any(|part| part == ".." || part == "."));
                let parent = stat.path.rsplit_once('/').map_or("", |(parent, _)| parent);
                prop_assert!(directories.contains(parent));
                prop_assert!(seen.insert(stat.path.clone()));
                if stat.go_mode().is_dir() {
                    directories.insert(stat.path);
                }
            }
        }
    }
}
