//! Which entries of a walk are wanted, and which directories need no look.

use super::super::Selection;
use super::{WalkError, follow};
use crate::pattern::{Matched, Matcher, Pattern};
use std::os::fd::OwnedFd;

/// Include and exclude patterns together.
#[derive(Debug)]
pub(super) struct Filter {
    include: Option<Include>,
    exclude: Option<Exclude>,
}

#[derive(Debug)]
struct Include {
    matcher: Matcher,
    /// Whether each pattern speaks of one known place, so that others need not be searched.
    is_local: bool,
}

#[derive(Debug)]
struct Exclude {
    matcher: Matcher,
    /// The same for each exception.
    is_local: bool,
}

/// What is known of a directory, for what is in it.
#[derive(Debug, Default)]
pub(super) struct Above {
    include: Option<Matched>,
    exclude: Option<Matched>,
}

/// What to do with a directory.
pub(super) struct Entered {
    /// Whether it is wanted itself; if not, it is when something in it is.
    pub(super) is_wanted: bool,
    pub(super) above: Above,
}

impl Filter {
    pub(super) fn new(root: &OwnedFd, selection: &Selection) -> Result<Self, WalkError> {
        let includes =
            follow::with_followed(root, &selection.include_patterns, &selection.follow_paths)?;
        let exclude = Matcher::new(&selection.exclude_patterns)?;
        Ok(Self {
            include: if includes.is_empty() {
                None
            } else {
                Some(Include::new(Matcher::new(&includes)?))
            },
            exclude: (!exclude.patterns().is_empty()).then(|| Exclude::new(exclude)),
        })
    }

    /// Whether anything but a directory is wanted.
    pub(super) fn wants_file(&self, path: &str, above: &Above) -> bool {
        let is_included = self
            .include
            .as_ref()
            .is_none_or(|include| include.matcher.matches_in(path, above.include.as_ref()));
        is_included
            && !self
                .exclude
                .as_ref()
                .is_some_and(|exclude| exclude.matcher.matches_in(path, above.exclude.as_ref()))
    }

    /// `None` if neither a directory nor anything in it can be wanted.
    pub(super) fn enter(&self, path: &str, above: &Above) -> Option<Entered> {
        let mut entered = Entered { is_wanted: true, above: Above::default() };
        if let Some(include) = &self.include {
            let (matched, results) =
                include.matcher.matches_directory_in(path, above.include.as_ref());
            if !matched {
                let may_match = |pattern: &Pattern| pattern.may_match_below(path);
                if include.is_local && !included(&include.matcher).any(may_match) {
                    return None;
                }
                entered.is_wanted = false;
            }
            entered.above.include = Some(results);
        }
        if let Some(exclude) = &self.exclude {
            let (matched, results) =
                exclude.matcher.matches_directory_in(path, above.exclude.as_ref());
            if matched {
                let may_match = |pattern: &Pattern| pattern.may_match_below(path);
                if exclude.is_local && !exceptions(&exclude.matcher).any(may_match) {
                    return None;
                }
                entered.is_wanted = false;
            }
            entered.above.exclude = Some(results);
        }
        Some(entered)
    }
}

impl Include {
    fn new(matcher: Matcher) -> Self {
        let is_local = included(&matcher).all(Pattern::is_below_one_path);
        Self { matcher, is_local }
    }
}

impl Exclude {
    fn new(matcher: Matcher) -> Self {
        let is_local = exceptions(&matcher).all(Pattern::is_below_one_path);
        Self { matcher, is_local }
    }
}

fn included(matcher: &Matcher) -> impl Iterator<Item = &Pattern> {
    let patterns = matcher.patterns().iter();
    patterns.filter(|pattern| !pattern.is_exception())
}

fn exceptions(matcher: &Matcher) -> impl Iterator<Item = &Pattern> {
    let patterns = matcher.patterns().iter();
    patterns.filter(|pattern| pattern.is_exception())
}
