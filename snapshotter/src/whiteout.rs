//! How layers in tar form say what they hide (OCI image spec, "Whiteouts").

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What the name of an entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark<'a> {
    /// Nothing special.
    None,
    /// Hides this name of the layers below.
    Whiteout(&'a OsStr),
    /// Hides everything that the layers below have in the directory.
    Opaque,
    /// Bookkeeping of a file system of the past.
    Ignored,
    /// Begins like a mark and is none.
    Invalid,
}

const PREFIX: &[u8] = b".wh.";

/// The name of the entry that makes its directory opaque.
pub(crate) const OPAQUE: &str = ".wh..wh..opq";

/// What the last component of an entry's path means.
pub(crate) fn parse(name: &OsStr) -> Mark<'_> {
    let Some(hidden) = name.as_bytes().strip_prefix(PREFIX) else { return Mark::None };
    if name == OPAQUE {
        return Mark::Opaque;
    }
    match hidden {
        b"" | b"." | b".." => Mark::Invalid,
        // aufs's own: plink, orphan and temporary directories.
        _ if hidden.starts_with(PREFIX) => Mark::Ignored,
        _ => Mark::Whiteout(OsStr::from_bytes(hidden)),
    }
}

/// The name of the entry that hides `name`.
pub(crate) fn name_of(name: &OsStr) -> OsString {
    let mut hidden = OsString::from(".wh.");
    hidden.push(name);
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_the_prefix_are_marks() {
        let rows = [
            ("file", Mark::None),
            ("a.wh.b", Mark::None),
            (".wh.file", Mark::Whiteout("file".as_ref())),
            (".wh..hidden", Mark::Whiteout(".hidden".as_ref())),
            (".wh..wh..opq", Mark::Opaque),
            (".wh..wh.plnk", Mark::Ignored),
            (".wh..wh.file", Mark::Ignored),
            (".wh.", Mark::Invalid),
            (".wh..", Mark::Invalid),
            (".wh...", Mark::Invalid),
        ];
        for (name, expected) in rows {
            assert_eq!(parse(name.as_ref()), expected, "{name}");
        }
        assert_eq!(name_of("x".as_ref()), ".wh.x");
    }
}
