//! Paths with wildcards, as `COPY` and LLB's file operations know them.
//!
//! `*` stands for any text within a name, `?` for one character, `[a-z]` and `[^a-z]` for one of a
//! class; `\` takes the meaning away from the character behind it. No wildcard crosses a `/`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dir::clean;
use crate::error::{At, FsError};
use crate::view::View;
use crate::view::merged_dir::MergedDir;
use crate::view::resolve::Follow;

impl View {
    /// The paths that match a pattern, in the order of a walk; a pattern without wildcards is
    /// itself the only one, whether it exists or not.
    ///
    /// Links before the first wildcard are followed, the one right before it only with
    /// [`Follow::Last`]; behind it none is.
    ///
    /// # Errors
    /// [`FsError::NotFound`] if the part before the first wildcard does not exist.
    pub fn glob(&self, pattern: impl AsRef<Path>, follow: Follow) -> Result<Vec<PathBuf>, FsError> {
        let pattern = clean(pattern.as_ref());
        let mut names = pattern.components().map(|name| name.as_os_str().as_bytes()).peekable();
        let mut base = PathBuf::new();
        while let Some(name) = names.next_if(|name| !has_wildcard(name)) {
            base.push(std::ffi::OsStr::from_bytes(name));
        }
        let patterns: Vec<&[u8]> = names.collect();
        if patterns.is_empty() {
            return Ok(vec![base]);
        }
        let entry = self.existing(&base, follow)?;
        let mut matches = Vec::new();
        if entry.metadata().is_dir()
            && let Some(dir) = self.merged(entry.path())?
        {
            expand(&dir, entry.path(), &patterns, &mut matches)?;
        }
        Ok(matches)
    }
}

/// Collects what matches below a directory. The depth is that of the pattern.
fn expand(
    dir: &Arc<MergedDir>,
    path: &Path,
    patterns: &[&[u8]],
    matches: &mut Vec<PathBuf>,
) -> Result<(), FsError> {
    let Some((pattern, rest)) = patterns.split_first() else { return Ok(()) };
    for child in dir.children().at("read the directory", path)? {
        if !is_match(pattern, child.name.as_bytes()) {
            continue;
        }
        let below = path.join(&child.name);
        if rest.is_empty() {
            matches.push(below);
        } else if let Some(dir) = dir.enter(&child.name).at("open the directory", &below)? {
            expand(&Arc::new(dir), &below, rest, matches)?;
        }
    }
    Ok(())
}

fn has_wildcard(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether a name matches; a malformed pattern matches nothing.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // Where to try again with the last star standing for one more byte.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match pattern.split_first() {
            None if name.is_empty() => return true,
            None => None,
            Some((b'*', rest)) => {
                retry = Some((rest, name));
                pattern = rest;
                continue;
            }
            Some(_) => one(pattern, name),
        };
        if let Some(next) = step {
            (pattern, name) = next;
            continue;
        }
        match retry {
            Some((after_star, [_, tail @ ..])) => {
                retry = Some((after_star, tail));
                (pattern, name) = (after_star, tail);
            }
            _ => return false,
        }
    }
}

/// Takes one character from the name if the pattern's next element allows it.
fn one<'a>(pattern: &'a [u8], name: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (character, rest_of_name) = next_char(name)?;
    match pattern {
        [b'?', rest @ ..] => Some((rest, rest_of_name)),
        [b'[', rest @ ..] => {
            let (matches, rest) = class(rest, character)?;
            matches.then_some((rest, rest_of_name))
        }
        _ => {
            let (expected, rest) = escaped(pattern)?;
            (expected == character).then_some((rest, rest_of_name))
        }
    }
}

/// Whether a character is in the class that begins here, and what follows the class.
fn class(pattern: &[u8], character: char) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    loop {
        if let [b']', after @ ..] = rest
            && !first
        {
            return Some((found != negated, after));
        }
        first = false;
        if matches!(rest.first()?, b'-' | b']') {
            return None;
        }
        let (low, after) = escaped(rest)?;
        rest = after;
        let mut high = low;
        if let [b'-', after @ ..] = rest {
            (high, rest) = escaped(after)?;
        }
        found |= (low..=high).contains(&character);
    }
}

fn escaped(pattern: &[u8]) -> Option<(char, &[u8])> {
    match pattern {
        [b'\\', rest @ ..] => next_char(rest),
        _ => next_char(pattern),
    }
}

/// The next character; a byte that is not UTF-8 counts as one that matches only wildcards.
fn next_char(text: &[u8]) -> Option<(char, &[u8])> {
    let chunk = text.get(..text.len().min(4))?;
    let valid = match std::str::from_utf8(chunk) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&chunk[..error.valid_up_to()]).ok()?,
    };
    match valid.chars().next() {
        Some(character) => Some((character, &text[character.len_utf8()..])),
        None => Some((char::REPLACEMENT_CHARACTER, text.get(1..)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Stack;

    #[test]
    fn names_match_as_in_go() {
        let rows = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "", true),
            ("*c", "abc", true),
            ("a*b*c*d", "axbxcxd", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("*.c", "x.c.d", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[a-ζ]*", "α", true),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("[]a]", "]", false),
            ("[-x]", "x", false),
            ("[x-]", "x", false),
            ("[a-b-c]", "a", false),
            ("[", "a", false),
            ("[^", "a", false),
            ("a[", "ab", false),
            ("*\\", "a", false),
        ];
        for (pattern, name, expected) in rows {
            assert_eq!(is_match(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_find_paths_of_the_merged_tree() {
        let stack = Stack::new(&[
            &["src/a.c=", "src/b.c=", "src/b.h=", "src/sub/c.c=", "lib->src", "x=", "docs/b.c="],
            &["-src/a.c", "src/d.c="],
        ]);
        let view = stack.view();
        let rows: &[(&str, &[&str])] = &[
            ("/src/*.c", &["src/b.c", "src/d.c"]),
            ("src/*", &["src/b.c", "src/b.h", "src/d.c", "src/sub"]),
            ("*/b.c", &["docs/b.c", "src/b.c"]),
            ("*/*/*", &["src/sub/c.c"]),
            ("s?c/su[a-c]", &["src/sub"]),
            ("nothing*", &[]),
            ("x/*", &[]),
            ("no/such", &["no/such"]),
        ];
        for (pattern, expected) in rows {
            let found = view.glob(pattern, Follow::Last).unwrap();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(found, expected, "{pattern}");
        }
        assert_eq!(view.glob("lib/b*", Follow::Last).unwrap().len(), 2);
        assert!(view.glob("lib/b*", Follow::NoLast).unwrap().is_empty());
        assert!(matches!(view.glob("no/*", Follow::Last), Err(FsError::NotFound(_))));
    }
}
