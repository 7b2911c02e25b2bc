//! Names of entries, made into paths below a root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::apply::ApplyError;
use crate::tar::printable;

/// The kernel's bound, which also bounds how deep a tree one entry can make.
const MAX_LENGTH: usize = 4095;

/// A name as a path relative to the root: a leading slash and `.` left out, `..` resolved as
/// written.
pub(crate) fn parse(name: &[u8]) -> Result<PathBuf, ApplyError> {
    if name.len() > MAX_LENGTH || name.contains(&0) {
        return Err(ApplyError::Name { name: printable(name) });
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => {
                return Err(ApplyError::Escapes { name: printable(name) });
            }
            _ => {}
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_below_the_root_or_refused() {
        for (name, expected) in [
            ("etc/passwd", "etc/passwd"),
            ("./etc//passwd", "etc/passwd"),
            ("/etc/passwd", "etc/passwd"),
            ("dir/", "dir"),
            ("a/../b", "b"),
            ("./", ""),
            ("..a/b..", "..a/b.."),
        ] {
            assert_eq!(parse(name.as_bytes()).unwrap(), Path::new(expected), "{name}");
        }
        for name in ["..", "../x", "/../x", "a/../../x", "./.."] {
            assert!(matches!(parse(name.as_bytes()), Err(ApplyError::Escapes { .. })), "{name}");
        }
        for name in [&b"a\0b"[..], &[b'a'; 5000]] {
            assert!(matches!(parse(name), Err(ApplyError::Name { .. })));
        }
    }
}
