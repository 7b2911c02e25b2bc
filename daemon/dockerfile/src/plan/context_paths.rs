use std::collections::BTreeSet;

use crate::path;

/// The paths of a context, or of a stage, that instructions read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextPaths {
    paths: BTreeSet<String>,
}

impl ContextPaths {
    /// No paths yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path, which may have wildcards; `..` does not lead out.
    pub fn add(&mut self, path: &str) {
        let path = path::clean(&format!("/{path}"));
        self.paths.insert(path.trim_start_matches('/').to_owned());
    }

    /// Adds everything.
    pub fn add_all(&mut self) {
        self.paths.insert(String::new());
    }

    /// Adds the paths of another set.
    pub fn extend(&mut self, other: &Self) {
        self.paths.extend(other.paths.iter().cloned());
    }

    /// Whether nothing is read.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The paths that have to be there, sorted and relative to the root; `None` if that is
    /// everything.
    pub fn to_follow(&self) -> Option<Vec<String>> {
        if self.paths.contains("") {
            return None;
        }
        Some(self.paths.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(paths: &[&str]) -> Option<Vec<String>> {
        let mut set = ContextPaths::new();
        for path in paths {
            set.add(path);
        }
        set.to_follow()
    }

    #[test]
    fn paths_are_cleaned_and_stay_inside() {
        let expected = ["a/b", "c", "src/*.rs"].map(str::to_owned);
        let found = follow(&["src/*.rs", "./a//b/", "../../c", "/c"]);
        assert_eq!(found.as_deref(), Some(expected.as_slice()));
    }

    #[test]
    fn the_root_is_everything() {
        for root in [".", "/", "", "./", "a/.."] {
            assert_eq!(follow(&["x", root]), None, "{root}");
        }
        assert!(ContextPaths::new().is_empty());
    }
}
