//! Source paths with wildcards, as Go's `filepath.Match` reads them.

use anyhow::Context as _;
use kiln_proto::pattern::glob_match;
use kiln_snapshotter::{Follow, View};

/// Whether `path` has an unescaped `*`, `?` or `[`.
pub(super) fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// The paths of `view` that `pattern` matches, sorted.
pub(crate) fn expand(view: &View, pattern: &str) -> anyhow::Result<Vec<String>> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let mut next = Vec::new();
        for dir in found {
            if !has_wildcards(part) {
                next.push(format!("{dir}/{}", unescape(part)));
                continue;
            }
            let is_dir = view.lookup(&dir, Follow::Last)?.is_some_and(|e| e.metadata().is_dir());
            let entries = if is_dir { view.read_dir(&dir)? } else { Vec::new() };
            for entry in entries {
                let name = entry.path().file_name().unwrap_or_default().to_string_lossy();
                let matches = glob_match(part, &name)
                    .with_context(|| format!("invalid wildcard {pattern:?}"))?;
                if matches {
                    next.push(format!("{dir}/{name}"));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

fn unescape(part: &str) -> String {
    let mut chars = part.chars();
    let mut plain = String::with_capacity(part.len());
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    plain
}
