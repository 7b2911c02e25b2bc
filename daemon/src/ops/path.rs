//! Paths inside snapshots, as text.

/// The path as absolute and without `.`, `..` and doubled slashes.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_absolute_and_stay_below_the_root() {
        let cases = [("", "/"), ("a//b/./c/", "/a/b/c"), ("../../a", "/a"), ("/a/../..", "/")];
        for (path, cleaned) in cases {
            assert_eq!(clean(path), cleaned, "{path:?}");
        }
    }
}
