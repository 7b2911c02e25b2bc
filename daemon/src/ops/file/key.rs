//! What of a file op counts: its actions, and of the files that it copies their content. What it
//! copies *onto* counts by key.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use kiln_cache::Digest;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::user_opt::User;
use prost::Message as _;

use super::wildcard::has_wildcards;
use crate::graph::Vertex;
use crate::ops::path::clean;
use crate::solver::{CacheMap, Dep, Selector};

/// An index that means "no input" or "no output".
pub(super) const NONE: i64 = -1;

pub(crate) fn cache_map(vertex: &Vertex, file: &pb::FileOp) -> anyhow::Result<CacheMap> {
    let count = vertex.inputs().len();
    // Of each input: the files that are read, in the order of the actions, and whether actions
    // build on it.
    let mut uses = vec![(Vec::new(), false); count];
    let mut canonical = file.clone();
    let mut outputs = 0;
    for (index, action) in canonical.actions.iter_mut().enumerate() {
        check_inputs(action, index, count)?;
        if action.output != NONE {
            let output = usize::try_from(action.output).ok().filter(|&output| output < 1024);
            outputs = outputs.max(1 + output.context("file action with an invalid output")?);
        }
        if let Some((_, is_base)) = input_of(&mut uses, action.input) {
            *is_base = true;
        }
        let owner = match action.action.as_mut().context("file action without an action")? {
            Action::Copy(copy) => {
                if let Some((selectors, _)) = input_of(&mut uses, action.secondary_input) {
                    let selector = selector(copy);
                    // The directory that the files come from does not count, only their names.
                    copy.src = selector.path.rsplit('/').next().unwrap_or_default().to_owned();
                    selectors.push(selector);
                }
                copy.owner.as_ref()
            }
            Action::Mkfile(file) => file.owner.as_ref(),
            Action::Mkdir(dir) => dir.owner.as_ref(),
            Action::Symlink(link) => link.owner.as_ref(),
            Action::Rm(_) => None,
        };
        for (input, path) in owner.iter().flat_map(|owner| account_files(owner)) {
            let named = input_of(&mut uses, input);
            let (selectors, _) = named.context("owner named by an invalid input")?;
            let path = path.to_owned();
            selectors.push(Selector { path, follow_links: true, ..Selector::default() });
        }
    }
    if outputs == 0 {
        bail!("file op without an output");
    }
    let deps = uses.into_iter().map(|(selectors, is_base)| dep(selectors, is_base)).collect();
    let op = Digest::of([b"file\0".as_slice(), &canonical.encode_to_vec()].concat());
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

/// How an input takes part of which `selectors` are read, in the order of the actions. The op has
/// only the last part of what it copies, so it is by their places that files belong to their action.
fn dep(selectors: Vec<Selector>, is_base: bool) -> Dep {
    if selectors.is_empty() {
        return Dep::default();
    }
    let paths: Vec<&str> = selectors.iter().map(|selector| selector.path.as_str()).collect();
    let selector = Some(Digest::of(paths.join("\0")));
    Dep { selector, content: (!is_base).then_some(selectors) }
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

    #[test]
    fn the_order_of_copied_files_counts() {
        let (one, other) = (map(&copies(&["/a/x", "/b/x"])), map(&copies(&["/b/x", "/a/x"])));
        assert_eq!(one.op, other.op);
        assert_ne!(one.deps[1].selector, other.deps[1].selector);
        assert_ne!(one.deps[1].content, other.deps[1].content);
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
