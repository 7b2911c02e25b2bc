//! What of an exec counts: the command, what it can see, and where things are mounted. Secrets,
//! agent sockets, proxies, the addresses of extra hosts and the names of shared cache mounts do not.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use kiln_cache::Digest;
use kiln_proto::pb;

use super::canonical;
use crate::graph::Vertex;
use crate::image::Platform;
use crate::ops::path::clean;
use crate::solver::{CacheMap, Dep, Selector};

/// An index that means "no input" or "no output".
pub(super) const NONE: i64 = -1;

pub(crate) fn cache_map(vertex: &Vertex, exec: &pb::ExecOp) -> anyhow::Result<CacheMap> {
    let meta = exec.meta.as_ref().context("exec op without a process")?;
    if meta.args.is_empty() {
        bail!("exec op without a command");
    }
    let mut outputs = 0;
    let mut deps = vec![(Vec::new(), true); vertex.inputs().len()];
    for mount in &exec.mounts {
        if mount.output != NONE {
            let output = usize::try_from(mount.output).ok().filter(|&output| output < 1024);
            outputs = outputs.max(1 + output.with_context(|| invalid(mount))?);
        }
        if mount.input == NONE || !takes_input(mount) {
            continue;
        }
        let dep = usize::try_from(mount.input).ok().and_then(|input| deps.get_mut(input));
        let (paths, by_content) = dep.with_context(|| invalid(mount))?;
        paths.push(clean(&mount.selector));
        *by_content &= content_counts(mount)?;
    }
    if outputs == 0 {
        bail!("exec op without an output");
    }

    let platform = vertex.platform().cloned().unwrap_or_else(|| Platform::host().to_pb());
    let op = canonical::digest(exec, &platform)?;
    let deps = deps.into_iter().map(|(paths, by_content)| dep(paths, by_content)).collect();
    Ok(CacheMap { op, deps, outputs, parts: parts(meta) })
}

/// What is said of the layer that an output adds, in BuildKit's words.
pub(in crate::ops) fn description(exec: &pb::ExecOp, output: u32) -> String {
    let mount = exec.mounts.iter().find(|mount| mount.output == i64::from(output));
    let dest = mount.map_or("/", |mount| &mount.dest);
    let args = exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default();
    format!("mount {dest} from exec {args}")
}

fn invalid(mount: &pb::Mount) -> String {
    let (dest, input, output) = (&mount.dest, mount.input, mount.output);
    format!("invalid mount {dest:?}: input {input}, output {output}")
}

fn takes_input(mount: &pb::Mount) -> bool {
    matches!(mount.mount_type(), pb::MountType::Bind | pb::MountType::Cache)
}

/// Whether the content of the mounted files may stand in for the input's key.
fn content_counts(mount: &pb::Mount) -> anyhow::Result<bool> {
    // A mount that becomes an output must be known as a whole: what the command did not see of
    // the input is in the output, too.
    let safe = mount.output == NONE || mount.readonly || clean(&mount.selector) == "/";
    match mount.content_cache() {
        pb::MountContentCache::Off => Ok(false),
        pb::MountContentCache::On if !safe => bail!("invalid content cache of {}", invalid(mount)),
        pb::MountContentCache::On => Ok(true),
        // The root is known by its own key: hashing it would cost more than it finds.
        pb::MountContentCache::Default => Ok(safe && clean(&mount.dest) != "/"),
    }
}

/// How an input takes part of which `paths` are mounted, in the order of their mounts. The op names
/// no paths, so it is by their places that a path belongs to its mount.
///
/// BuildKit sorts the paths whose content counts, and leaves out those below others: then mounts of
/// exchanged paths would be one. Where paths are in order, as they mostly are, it is the same.
fn dep(mut paths: Vec<String>, by_content: bool) -> Dep {
    if paths.is_empty() {
        return Dep::default();
    }
    let selector = Some(Digest::of(paths.join("\0")));
    if paths.iter().all(|path| *path == paths[0]) {
        paths.truncate(1);
    }
    let content = by_content.then(|| {
        let follow = |path: String| Selector { path, follow_links: true, ..Selector::default() };
        paths.into_iter().map(follow).collect()
    });
    Dep { selector, content }
}

fn parts(meta: &pb::Meta) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::from([
        ("command".to_owned(), meta.args.join(" ")),
        ("workdir".to_owned(), meta.cwd.clone()),
        ("user".to_owned(), meta.user.clone()),
    ]);
    for env in &meta.env {
        let (name, value) = env.split_once('=').unwrap_or((env, ""));
        parts.insert(format!("env {name}"), value.to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::VertexMeta;

    fn mount(input: i64, selector: &str, dest: &str) -> pb::Mount {
        let (selector, dest) = (selector.to_owned(), dest.to_owned());
        pb::Mount { input, selector, dest, output: NONE, readonly: true, ..pb::Mount::default() }
    }

    /// The map of a command on a root of its own (input 0) with these mounts as well.
    fn map(mounts: &[pb::Mount]) -> CacheMap {
        let source = |identifier: &str| {
            let identifier = identifier.to_owned();
            let source = pb::SourceOp { identifier, ..pb::SourceOp::default() };
            let meta = VertexMeta::default();
            Vertex::new(pb::op::Op::Source(source), Vec::new(), None, meta).output(0)
        };
        let root = pb::Mount { output: 0, readonly: false, ..mount(0, "", "/") };
        let exec = pb::ExecOp {
            meta: Some(pb::Meta { args: vec!["true".into()], ..pb::Meta::default() }),
            mounts: [&[root], mounts].concat(),
            ..pb::ExecOp::default()
        };
        let inputs = vec![source("root"), source("other")];
        let op = pb::op::Op::Exec(exec.clone());
        cache_map(&Vertex::new(op, inputs, None, VertexMeta::default()), &exec).unwrap()
    }

    /// What the keys are made of besides the inputs' own: for the definition key the selectors,
    /// for the content key the files, in their order.
    fn keys(mounts: &[pb::Mount]) -> (Vec<Option<Digest>>, Vec<Option<Vec<String>>>) {
        let paths = |selectors: Vec<Selector>| selectors.into_iter().map(|s| s.path).collect();
        let deps = map(mounts).deps.into_iter();
        deps.map(|dep| (dep.selector, dep.content.map(paths))).unzip()
    }

    #[test]
    fn the_path_that_a_mount_shows_counts() {
        let cases: [(&str, &[pb::Mount], &[pb::Mount]); 4] = [
            ("of an input of its own", &[mount(1, "a", "/m")], &[mount(1, "b", "/m")]),
            ("of the root's input", &[mount(0, "a", "/m")], &[mount(0, "b", "/m")]),
            (
                "below another mount's path",
                &[mount(1, "", "/s"), mount(1, "a", "/m")],
                &[mount(1, "", "/s"), mount(1, "b", "/m")],
            ),
            (
                "exchanged with another mount's",
                &[mount(1, "a", "/m"), mount(1, "b", "/n")],
                &[mount(1, "b", "/m"), mount(1, "a", "/n")],
            ),
        ];
        for (rule, one, other) in cases {
            assert_eq!(map(one).op, map(other).op, "{rule}");
            let ((selectors, content), (other_selectors, other_content)) = (keys(one), keys(other));
            assert_ne!(selectors, other_selectors, "{rule}");
            // The root's input is known by its own key only.
            if one[0].input != 0 {
                assert_ne!(content, other_content, "{rule}");
            }
        }
    }

    #[test]
    fn an_input_that_nothing_is_mounted_of_has_no_selector() {
        let (selectors, _) = keys(&[]);
        assert_eq!(selectors, [Some(Digest::of("/")), None]);
    }
}
