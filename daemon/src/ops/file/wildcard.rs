//! Source paths with wildcards, as Go's `filepath.Match` reads them.

/// Whether `path` has an unescaped `*`, `?` or `[`.
pub(crate) fn has_wildcards(path: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::has_wildcards;

    #[test]
    fn escaped_wildcards_are_none() {
        for (path, expected) in [("a*", true), ("a?", true), ("[a]", true), ("a\\*b", false)] {
            assert_eq!(has_wildcards(path), expected, "{path}");
        }
    }
}
