//! What of a file op counts: its actions, and of the files that it copies their content. What it
//! copies *onto* counts by key.

use std::collections::{BTreeMap, BTreeSet};

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
    let mut selectors: BTreeMap<usize, Vec<Selector>> = BTreeMap::new();
    let mut whole = BTreeSet::new();
    let mut canonical = file.clone();
    let mut outputs = 0;
    for (index, action) in canonical.actions.iter_mut().enumerate() {
        check_inputs(action, index, count)?;
        if action.output != NONE {
            let output = usize::try_from(action.output).ok().filter(|&output| output < 1024);
            outputs = outputs.max(1 + output.context("file action with an invalid output")?);
        }
        if let Ok(input) = usize::try_from(action.input) {
            whole.insert(input);
        }
        let owner = match action.action.as_mut().context("file action without an action")? {
            Action::Copy(copy) => {
                if let Ok(input) = usize::try_from(action.secondary_input)
                    && input < count
                {
                    selectors.entry(input).or_default().push(selector(copy));
                    // The directory that the files come from does not count, only their names.
                    copy.src = copy.src.rsplit('/').next().unwrap_or_default().to_owned();
                }
                copy.owner.as_ref()
            }
            Action::Mkfile(file) => file.owner.as_ref(),
            Action::Mkdir(dir) => dir.owner.as_ref(),
            Action::Symlink(link) => link.owner.as_ref(),
            Action::Rm(_) => None,
        };
        for (input, path) in owner.iter().flat_map(|owner| account_files(owner)) {
            let input = usize::try_from(input).context("owner named by an invalid input")?;
            let path = path.to_owned();
            let selector = Selector { path, follow_links: true, ..Selector::default() };
            selectors.entry(input).or_default().push(selector);
        }
    }
    if outputs == 0 {
        bail!("file op without an output");
    }
    let deps = (0..count).map(|input| {
        let selectors = selectors.remove(&input).filter(|_| !whole.contains(&input));
        selectors.map_or_else(Dep::default, dep)
    });
    let deps = deps.collect();
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

fn dep(mut selectors: Vec<Selector>) -> Dep {
    selectors.sort();
    selectors.dedup();
    let names: Vec<&str> = selectors.iter().map(|selector| selector.path.as_str()).collect();
    let selector = Some(Digest::of(names.join("\0")));
    Dep { selector, content: Some(selectors) }
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
