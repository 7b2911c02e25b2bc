//! What of an exec counts: the command, what it can see, and where things are mounted. Secrets,
//! agent sockets, proxies, the addresses of extra hosts and the names of shared cache mounts do not.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use kiln_cache::Digest;
use kiln_proto::pb;
use prost::Message as _;

use crate::graph::Vertex;
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
        let (selectors, by_content) = dep.with_context(|| invalid(mount))?;
        selectors.push(clean(&mount.selector));
        *by_content &= content_counts(mount)?;
    }
    if outputs == 0 {
        bail!("exec op without an output");
    }

    let mut canonical = exec.clone();
    for mount in &mut canonical.mounts {
        mount.selector.clear();
        if let Some(cache) = &mut mount.cache_opt
            && !is_plain_cache(cache, &mount.dest)
        {
            *cache = pb::CacheOpt::default();
        }
        if let Some(secret) = &mut mount.secret_opt {
            secret.optional = false;
        }
    }
    if let Some(meta) = &mut canonical.meta {
        meta.proxy_env = None;
        meta.extra_hosts.iter_mut().for_each(|host| host.ip.clear());
    }
    let op = pb::Op {
        op: Some(pb::op::Op::Exec(canonical)),
        platform: vertex.platform().cloned(),
        ..Default::default()
    };
    let deps = deps.into_iter().map(|(selectors, by_content)| dep(selectors, by_content)).collect();
    let op = Digest::of([b"exec\0".as_slice(), &op.encode_to_vec()].concat());
    Ok(CacheMap { op, deps, outputs, parts: parts(meta) })
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

/// Whether the cache mount is named by its target, as the Dockerfile's are by default.
fn is_plain_cache(cache: &pb::CacheOpt, dest: &str) -> bool {
    let name = cache.id.split_once('/').map_or("", |(_, name)| name);
    cache.sharing() == pb::CacheSharingOpt::Shared && (cache.id == dest || name == dest)
}

fn dep(mut selectors: Vec<String>, by_content: bool) -> Dep {
    selectors.sort();
    selectors.dedup();
    // Paths below another one are covered by it.
    let all = selectors.clone();
    selectors.retain(|path| {
        let covers = |other: &&String| *other != path && path.starts_with(&with_slash(other));
        !all.iter().any(|other| covers(&other))
    });
    let selector = match selectors.as_slice() {
        [] => None,
        [whole] if whole == "/" => None,
        paths => Some(Digest::of(paths.join("\0"))),
    };
    let content = by_content.then(|| {
        let follow = |path: String| Selector { path, follow_links: true, ..Selector::default() };
        selectors.into_iter().map(follow).collect()
    });
    Dep { selector, content }
}

fn with_slash(path: &str) -> String {
    if path.ends_with('/') { path.to_owned() } else { format!("{path}/") }
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
