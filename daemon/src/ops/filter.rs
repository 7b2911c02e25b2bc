//! Which files below a directory are copied, and so count: patterns of what to include and what to
//! exclude.

use std::path::{Path, PathBuf};

use kiln_proto::pattern::{BadPattern, Matched, Matcher};
use kiln_snapshotter::copy::Decision;

/// Patterns, and what they said of the directories that the walk is in.
#[derive(Default)]
pub(crate) struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
    /// The directories above the current path, outermost first.
    above: Vec<Above>,
}

struct Above {
    path: PathBuf,
    include: Option<Matched>,
    exclude: Option<Matched>,
}

impl Filter {
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self, BadPattern> {
        let matcher = |patterns: &[String]| {
            (!patterns.is_empty()).then(|| Matcher::new(patterns)).transpose()
        };
        Ok(Self { include: matcher(include)?, exclude: matcher(exclude)?, above: Vec::new() })
    }

    /// Whether everything is chosen.
    pub(crate) fn is_empty(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Decides about a path, which is relative. A walk asks about all of them in its order, a
    /// directory before what is in it.
    pub(crate) fn decide(&mut self, path: &Path, is_dir: bool) -> Decision {
        while self.above.last().is_some_and(|above| Some(&*above.path) != path.parent()) {
            self.above.pop();
        }
        let above = self.above.last();
        let text = path.to_string_lossy();
        let ask = |matcher: &Matcher, above: Option<&Matched>| {
            if is_dir {
                let (matches, matched) = matcher.matches_directory_in(&text, above);
                (matches, Some(matched))
            } else {
                (matcher.matches_in(&text, above), None)
            }
        };
        let (included, include) = match &self.include {
            Some(matcher) => ask(matcher, above.and_then(|above| above.include.as_ref())),
            None => (true, None),
        };
        let (excluded, exclude) = match &self.exclude {
            Some(matcher) => ask(matcher, above.and_then(|above| above.exclude.as_ref())),
            None => (false, None),
        };
        if is_dir {
            self.above.push(Above { path: path.to_owned(), include, exclude });
        }
        let has_exceptions = self.exclude.as_ref().is_some_and(Matcher::has_exceptions);
        match (included && !excluded, is_dir) {
            (true, _) => Decision::Include,
            (false, true) if !excluded || has_exceptions => Decision::Descend,
            (false, _) => Decision::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of a tree that are chosen.
    fn chosen(include: &[&str], exclude: &[&str]) -> Vec<&'static str> {
        let patterns = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (include, exclude): (Vec<_>, Vec<_>) = (patterns(include), patterns(exclude));
        let mut filter = Filter::new(&include, &exclude).unwrap();
        let tree = [("a", false), ("d", true), ("d/sub", true), ("d/sub/g", false), ("d/x", false)];
        let is_chosen = |(path, is_dir): &(&str, bool)| {
            filter.decide(Path::new(path), *is_dir) == Decision::Include
        };
        tree.into_iter().filter(is_chosen).map(|(path, _)| path).collect()
    }

    #[test]
    fn what_is_in_a_directory_is_chosen_with_it() {
        assert_eq!(chosen(&[], &[]).len(), 5);
        assert_eq!(chosen(&["d/sub"], &[]), ["d/sub", "d/sub/g"]);
        assert_eq!(chosen(&[], &["d/sub"]), ["a", "d", "d/x"]);
        assert_eq!(chosen(&["d"], &["d/sub"]), ["d", "d/x"]);
        assert_eq!(chosen(&[], &["**", "!d/sub/g"]), ["d/sub/g"]);
    }

    /// As in BuildKit; see `Matcher::matches_in`.
    #[test]
    fn an_exception_for_a_directory_that_is_not_excluded_is_none_for_what_is_in_it() {
        assert_eq!(chosen(&[], &["d/x", "!d"]), ["a", "d", "d/sub", "d/sub/g"]);
    }
}
