//! Paths as instructions name them.

use crate::ops::path::clean;

/// `path` from the directory `workdir`; a slash at the end, which says "into it", stays.
pub(super) fn destination(workdir: &str, path: &str) -> String {
    let path = if path == "." || path.is_empty() { "./" } else { path };
    let mut full = absolute(workdir, path);
    if (path.ends_with('/') || path.ends_with("/.")) && full != "/" {
        full.push('/');
    }
    full
}

/// `path` from the directory `workdir`, in its shortest form.
pub(super) fn absolute(workdir: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{workdir}/{path}")) }
}

/// Whether `path` has characters that make it a pattern.
pub(super) fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_start_at_the_working_directory() {
        let cases = [
            ("/w", "a", "/w/a"),
            ("/w", "a/", "/w/a/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/", "./", "/"),
            ("/w", "/", "/"),
            ("/w", "/a/.", "/a/"),
            ("/w", "../b", "/b"),
            ("", "b", "/b"),
        ];
        for (workdir, path, expected) in cases {
            assert_eq!(destination(workdir, path), expected, "{workdir} {path}");
        }
    }

    #[test]
    fn an_escaped_wildcard_is_none() {
        assert!(has_wildcards("a*") && has_wildcards("[a]b") && has_wildcards("?"));
        assert!(!has_wildcards("a\\*b"));
    }
}
