//! What of a file op counts: its actions, and of the files that it copies their content. What it
//! copies *onto* counts by key.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context as _, bail};
use kiln_cache::Digest;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::user_opt::User;

use super::canonical;
use super::wildcard::has_wildcards;
use crate::graph::Vertex;
use crate::ops::path::clean;
use crate::solver::{CacheMap, Dep, Selector};

/// An index that means "no input" or "no output".
pub(super) const NONE: i64 = -1;

pub(crate) fn cache_map(vertex: &Vertex, file: &pb::FileOp) -> anyhow::Result<CacheMap> {
    let count = vertex.inputs().len();
    let mut uses = vec![Use::default(); count];
    let mut canonical = file.clone();
    let mut outputs = 0;
    for (index, action) in canonical.actions.iter_mut().enumerate() {
        check_inputs(action, index, count)?;
        if action.output != NONE {
            let output = usize::try_from(action.output).ok().filter(|&output| output < 1024);
            outputs = outputs.max(1 + output.context("file action with an invalid output")?);
        }
        if let Some(base) = input_of(&mut uses, action.input) {
            base.is_base = true;
        }
        let owner = match action.action.as_mut().context("file action without an action")? {
            Action::Copy(copy) => {
                if let Some(source) = input_of(&mut uses, action.secondary_input) {
                    let name = last_name(&copy.src).to_owned();
                    source.copied.push(Copied { selector: selector(copy), src: copy.src.clone() });
                    // The directory that the files come from does not count, only their names.
                    copy.src = name;
                }
                copy.owner.as_ref()
            }
            Action::Mkfile(file) => file.owner.as_ref(),
            Action::Mkdir(dir) => dir.owner.as_ref(),
            Action::Symlink(link) => link.owner.as_ref(),
            Action::Rm(_) => None,
        };
        for (input, path) in owner.iter().flat_map(|owner| account_files(owner)) {
            let named = input_of(&mut uses, input).context("owner named by an invalid input")?;
            named.accounts.insert(path);
        }
    }
    if outputs == 0 {
        bail!("file op without an output");
    }
    let deps = uses.into_iter().map(Use::into_dep).collect();
    let op = canonical::digest(&canonical.actions)?;
    let parts = BTreeMap::from([("instruction".to_owned(), vertex.name())]);
    Ok(CacheMap { op, deps, outputs, parts })
}

/// An action's inputs are the op's inputs, or after those the results of earlier actions.
fn check_inputs(action: &pb::FileAction, index: usize, count: usize) -> anyhow::Result<()> {
    for input in [action.input, action.secondary_input] {
        let known = usize::try_from(input).is_ok_and(|input| input < count + index);
        if input != NONE && !known {
            bail!("file action {index} has no input {input}");
        }
    }
    Ok(())
}

/// The op's input that an action's index names, if it is one.
fn input_of<T>(inputs: &mut [T], index: i64) -> Option<&mut T> {
    usize::try_from(index).ok().and_then(|index| inputs.get_mut(index))
}

fn selector(copy: &pb::FileActionCopy) -> Selector {
    Selector {
        path: clean(&copy.src),
        wildcard: copy.allow_wildcard && has_wildcards(&copy.src),
        follow_links: copy.follow_symlink,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        required: copy.required_paths.clone(),
    }
}

/// The last name of a path; `/` for the root, `.` for nothing (Go's `path.Base`).
fn last_name(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// What is made of an input.
#[derive(Clone, Default)]
struct Use {
    /// What is copied from it, in the order of the actions.
    copied: Vec<Copied>,
    /// The files in which names of owners are looked up.
    accounts: BTreeSet<&'static str>,
    /// Whether actions build on it: then all of it counts.
    is_base: bool,
}

#[derive(Clone)]
struct Copied {
    selector: Selector,
    /// The path as the action has it.
    src: String,
}

impl Use {
    /// How the input takes part. The op has only the last name of what it copies: which path or
    /// content an action is of must follow from that and what is said here, or copies of exchanged
    /// files would be one. BuildKit sorts by path whatever the names, so that keys are equal where
    /// that order says enough.
    fn into_dep(mut self) -> Dep {
        let copies = !self.copied.is_empty();
        if self.is_base {
            // BuildKit does not tell apart what is copied from there.
            return Dep { selector: copies.then(|| self.in_order()), content: None };
        }
        if !copies && self.accounts.is_empty() {
            return Dep::default();
        }
        let selector = if self.accounts.is_empty() && self.has_distinct_names() {
            self.sorted()
        } else {
            self.in_order()
        };
        self.copied.sort_by(|one, other| last_name(&one.src).cmp(last_name(&other.src)));
        let mut content: Vec<Selector> = self.copied.into_iter().map(|it| it.selector).collect();
        content.extend(self.accounts.into_iter().map(|path| Selector {
            path: path.to_owned(),
            follow_links: true,
            ..Selector::default()
        }));
        Dep { selector: Some(selector), content: Some(content) }
    }

    fn has_distinct_names(&self) -> bool {
        let mut known = HashSet::new();
        self.copied.iter().all(|copied| known.insert(last_name(&copied.src)))
    }

    fn paths(&self) -> Vec<&str> {
        self.copied.iter().map(|copied| &*copied.src).collect()
    }

    /// The paths as BuildKit has them, the last first.
    fn sorted(&self) -> Digest {
        let mut paths = self.paths();
        paths.sort_unstable_by(|one, other| other.cmp(one));
        Digest::of(paths.join("\0"))
    }

    /// The paths in the order of the actions, in a form that sorted ones do not have.
    fn in_order(&self) -> Digest {
        Digest::of(format!("in order\0{}", self.paths().join("\0")))
    }
}

/// The files in which the names of an owner are looked up, by input.
pub(super) fn account_files(owner: &pb::ChownOpt) -> Vec<(i64, &'static str)> {
    let file = |account: &Option<pb::UserOpt>, path| match account.as_ref()?.user.as_ref()? {
        User::ByName(name) => Some((name.input, path)),
        User::ById(_) => None,
    };
    let user = file(&owner.user, "/etc/passwd");
    let group = file(&owner.group, "/etc/group");
    user.into_iter().chain(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::VertexMeta;

    /// Copies from input 1 onto input 0, each on top of the one before.
    fn copies(sources: &[&str]) -> pb::FileOp {
        let copy = |(index, src): (usize, &&str)| {
            let (src, dest) = ((*src).to_owned(), "/d/".to_owned());
            pb::FileAction {
                input: if index == 0 { 0 } else { 1 + index as i64 },
                secondary_input: 1,
                output: if index + 1 == sources.len() { 0 } else { NONE },
                action: Some(Action::Copy(pb::FileActionCopy { src, dest, ..Default::default() })),
            }
        };
        pb::FileOp { actions: sources.iter().enumerate().map(copy).collect() }
    }

    fn map(file: &pb::FileOp) -> CacheMap {
        let source = |identifier: &str| {
            let identifier = identifier.to_owned();
            let source = pb::SourceOp { identifier, ..pb::SourceOp::default() };
            let meta = VertexMeta::default();
            Vertex::new(pb::op::Op::Source(source), Vec::new(), None, meta).output(0)
        };
        let inputs = vec![source("base"), source("other")];
        let op = pb::op::Op::File(file.clone());
        cache_map(&Vertex::new(op, inputs, None, VertexMeta::default()), file).unwrap()
    }

    /// The paths whose content counts of the input that is copied from.
    fn content(map: &CacheMap) -> Vec<&str> {
        let selectors = map.deps[1].content.as_ref().unwrap();
        selectors.iter().map(|selector| selector.path.as_str()).collect()
    }

    #[test]
    fn the_order_of_copied_files_of_one_name_counts() {
        let (one, other) = (map(&copies(&["/a/x", "/b/x"])), map(&copies(&["/b/x", "/a/x"])));
        assert_eq!(one.op, other.op);
        assert_ne!(one.deps[1].selector, other.deps[1].selector);
        assert_ne!(content(&one), content(&other));
    }

    #[test]
    fn the_content_of_copied_files_is_in_the_order_of_their_names() {
        let (one, other) = (map(&copies(&["/b/x", "/a/y"])), map(&copies(&["/b/y", "/a/x"])));
        assert_eq!(content(&one), ["/b/x", "/a/y"]);
        assert_eq!(content(&other), ["/a/x", "/b/y"]);
        assert_ne!(one.deps[1].selector, other.deps[1].selector);
        assert_ne!(one.op, other.op);
    }

    #[test]
    fn files_in_which_names_of_owners_are_looked_up_do_not_count_where_all_does() {
        let named = pb::NamedUserOpt { name: "u".into(), input: 0 };
        let user = Some(pb::UserOpt { user: Some(User::ByName(named)) });
        let owner = Some(pb::ChownOpt { user, group: None });
        let mut file = copies(&["/a"]);
        let Some(Action::Copy(copy)) = &mut file.actions[0].action else { unreachable!() };
        copy.owner = owner;
        let map = map(&file);
        assert_eq!((map.deps[0].selector, &map.deps[0].content), (None, &None));
    }

    #[test]
    fn the_last_name_of_a_path_is_as_in_go() {
        for (path, name) in [("", "."), ("/", "/"), ("//", "/"), ("/a/b/", "b"), ("a", "a")] {
            assert_eq!(last_name(path), name, "{path:?}");
        }
    }

    #[test]
    fn the_directory_of_copied_files_does_not_count_where_their_content_does() {
        let (one, other) = (map(&copies(&["/a/x"])), map(&copies(&["/b/x"])));
        assert_eq!(one.op, other.op);
        assert_ne!(one.deps[1].selector, other.deps[1].selector);
    }

    #[test]
    fn the_name_of_a_copied_directory_counts_with_a_slash_behind_it() {
        assert_ne!(map(&copies(&["/a/"])).op, map(&copies(&["/b/"])).op);
    }

    #[test]
    fn what_is_copied_from_the_files_that_are_built_on_counts() {
        let within = |src: &str| {
            let mut file = copies(&[src]);
            file.actions[0].secondary_input = 0;
            map(&file).deps.swap_remove(0)
        };
        let (one, other) = (within("/a/x"), within("/b/x"));
        assert_ne!(one.selector, other.selector);
        assert_eq!((one.content, other.content), (None, None));
    }
}
