//! Which files a content key stood for, in a form that is small and can be compared.
//!
//! ```text
//! entry: varint   how many bytes of its path it has in common with the one before
//!        varint   how many more there are
//!        bytes    those
//!        8 bytes  of the digest of all that counts of it
//!        4 bytes  a checksum of that without a file's content: type, mode, owner, …
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use crate::digest::Digest;

/// The size beyond which a list is not kept, in bytes: some hundred thousand files.
const MAX_LIST: usize = 8 << 20;
/// Bytes of an entry behind its path.
const TAIL: usize = 12;

/// Builds a list, entry by entry, and counts what does not fit.
#[derive(Debug, Default)]
pub struct FileListBuilder {
    bytes: Vec<u8>,
    last: Vec<u8>,
    is_too_long: bool,
}

impl FileListBuilder {
    /// Adds an entry: the digest of all that counts of it, and a checksum of what is not content.
    pub fn push(&mut self, path: &[u8], whole: &Digest, metadata: Checksum) {
        if self.bytes.len() + path.len() > MAX_LIST {
            self.is_too_long = true;
            return;
        }
        let common = path.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        put_number(&mut self.bytes, common);
        put_number(&mut self.bytes, path.len() - common);
        self.bytes.extend_from_slice(&path[common..]);
        self.bytes.extend_from_slice(&whole.as_bytes()[..8]);
        self.bytes.extend_from_slice(&metadata.0.to_le_bytes());
        self.last.truncate(common);
        self.last.extend_from_slice(&path[common..]);
    }

    /// The list; none if it is too long to be kept.
    pub fn finish(self) -> Option<FileList> {
        (!self.is_too_long).then(|| FileList(self.bytes.into()))
    }
}

/// A checksum of bytes of which nobody gains by giving them the same as others: FNV-1a of 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct Checksum(u32);

impl Checksum {
    /// The checksum of nothing.
    pub const EMPTY: Self = Self(0x811c_9dc5);

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// Some files, each with its path and a few bytes that change with it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileList(Arc<[u8]>);

/// How a file differs between two lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FileChange {
    /// Only the later one has it.
    Added,
    /// Only the earlier one has it.
    Removed,
    /// Its content is another, and nothing else.
    Content,
    /// Its type, mode, owner, link target or extended attributes are others; perhaps its content, too.
    Metadata,
}

impl FileList {
    /// The list that is stored as `bytes`, which need not be one: what cannot be read is left out.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// The list as it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The files that differ from those of an `earlier` list, by path.
    pub fn changes_since(&self, earlier: &Self) -> Vec<(Vec<u8>, FileChange)> {
        if self == earlier {
            return Vec::new();
        }
        let (mut now, mut before) = (Entries::of(self), Entries::of(earlier));
        let mut changes = Vec::new();
        // Mostly they have the same paths in the same order, up to some point.
        loop {
            match (now.next(), before.next()) {
                (Some(tail), Some(old)) if now.path == before.path => {
                    changes.extend(change(tail, old).map(|change| (now.path.clone(), change)));
                }
                (None, None) => break,
                (tail, old) => {
                    compare(now.rest(tail), before.rest(old), &mut changes);
                    break;
                }
            }
        }
        changes.sort();
        // A path may be in a list twice.
        changes.dedup();
        changes
    }
}

/// What has become of a file, if it is not the same.
fn change(now: [u8; TAIL], before: [u8; TAIL]) -> Option<FileChange> {
    if now[8..] != before[8..] {
        return Some(FileChange::Metadata);
    }
    (now != before).then_some(FileChange::Content)
}

/// Adds what differs of files in any order.
fn compare(
    now: HashMap<Vec<u8>, [u8; TAIL]>,
    mut before: HashMap<Vec<u8>, [u8; TAIL]>,
    changes: &mut Vec<(Vec<u8>, FileChange)>,
) {
    for (path, tail) in now {
        let change = match before.remove(&path) {
            None => Some(FileChange::Added),
            Some(old) => change(tail, old),
        };
        changes.extend(change.map(|change| (path, change)));
    }
    changes.extend(before.into_keys().map(|path| (path, FileChange::Removed)));
}

/// Reads a list, entry by entry.
struct Entries<'a> {
    bytes: &'a [u8],
    /// Of the entry that was read last.
    path: Vec<u8>,
}

impl<'a> Entries<'a> {
    fn of(list: &'a FileList) -> Self {
        Self { bytes: &list.0, path: Vec::new() }
    }

    fn next(&mut self) -> Option<[u8; TAIL]> {
        take_entry(&mut self.bytes, &mut self.path)
    }

    /// The entry that was read last, with this tail, and all that follow.
    fn rest(mut self, mut tail: Option<[u8; TAIL]>) -> HashMap<Vec<u8>, [u8; TAIL]> {
        let mut rest = HashMap::new();
        while let Some(of_path) = tail {
            rest.insert(self.path.clone(), of_path);
            tail = self.next();
        }
        rest
    }
}

/// Reads the next entry, whose path replaces the one before; `None` where there is none.
fn take_entry(bytes: &mut &[u8], path: &mut Vec<u8>) -> Option<[u8; TAIL]> {
    let common = take_number(bytes)?;
    let more = take_number(bytes)?;
    if common > path.len() {
        return None;
    }
    path.truncate(common);
    let (rest, behind) = bytes.split_at_checked(more)?;
    path.extend_from_slice(rest);
    let (tail, behind) = behind.split_first_chunk::<TAIL>()?;
    *bytes = behind;
    Some(*tail)
}

/// Seven bits a byte, the lowest first.
fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Files = std::collections::BTreeMap<Vec<u8>, (Option<u8>, u32)>;

    fn list(files: &Files) -> FileList {
        let mut list = FileListBuilder::default();
        for (path, (content, metadata)) in files {
            let whole = Digest::of(format!("{content:?} {metadata}"));
            list.push(path, &whole, Checksum(*metadata));
        }
        list.finish().unwrap()
    }

    fn files() -> impl Strategy<Value = Files> {
        let path = prop::collection::vec(prop::sample::select(&b"ab/"[..]), 0..200);
        prop::collection::btree_map(path, (any::<Option<u8>>(), 0..3_u32), 0..20)
    }

    proptest! {
        #[test]
        fn what_changed_is_what_differs(before in files(), now in files()) {
            let mut expected = Vec::new();
            for path in before.keys().chain(now.keys()).collect::<std::collections::BTreeSet<_>>() {
                let change = match (before.get(path), now.get(path)) {
                    (None, _) => FileChange::Added,
                    (_, None) => FileChange::Removed,
                    (Some(old), Some(new)) if old.1 != new.1 => FileChange::Metadata,
                    (Some(old), Some(new)) if old != new => FileChange::Content,
                    _ => continue,
                };
                expected.push((path.clone(), change));
            }
            prop_assert_eq!(list(&now).changes_since(&list(&before)), expected);
        }

        #[test]
        fn bytes_that_are_no_list_are_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let damaged = FileList::from_bytes(bytes);
            damaged.changes_since(&FileList::default());
        }
    }

    #[test]
    fn an_entry_takes_little_more_than_what_its_path_adds() {
        let files =
            (0..1000).map(|n| (format!("src/module/file{n:04}.rs").into_bytes(), (Some(1), 0)));
        assert!(list(&files.collect()).as_bytes().len() < 1000 * 20);
    }

    #[test]
    fn checksums_are_those_of_their_algorithm() {
        let mut checksum = Checksum::EMPTY;
        checksum.update(b"foo");
        checksum.update(b"bar");
        assert_eq!(checksum.0, 0xbf9c_f968);
    }

    #[test]
    fn a_list_without_end_is_not_kept() {
        let mut list = FileListBuilder::default();
        for n in 0..MAX_LIST / TAIL {
            list.push(n.to_string().as_bytes(), &Digest::of(""), Checksum::EMPTY);
        }
        assert_eq!(list.finish(), None);
    }
}
