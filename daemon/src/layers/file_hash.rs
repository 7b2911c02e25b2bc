//! What a file is: one digest of its metadata and its content.
//!
//! It is BuildKit's, so that cache keys that stand for files are the same: the metadata as a list of
//! names and values (which Docker once took from the headers of archives), then the content. The name
//! and the times of a file are not in it.

use std::ffi::OsString;
use std::io::Write as _;

use kiln_cache::{Checksum, Digest, Hasher};
use kiln_proto::fsutil::Stat;
use kiln_snapshotter::{Device, Entry, FileKind, FsError, Owner};

use super::tree::announced_kind;

/// The metadata of a file, in the form that is hashed.
pub(crate) struct FileHeader {
    bytes: Vec<u8>,
    /// Where the size begins and ends.
    size: std::ops::Range<usize>,
}

/// What the form is made of.
struct Fields<'a> {
    kind: FileKind,
    mode: u32,
    owner: Owner,
    size: u64,
    link: &'a [u8],
    device: Device,
    /// Sorted by name.
    xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl FileHeader {
    /// Of a file in a layer or a client's tree.
    pub(crate) fn of(entry: &Entry) -> Result<Self, FsError> {
        let metadata = entry.metadata();
        let link = match metadata.kind {
            FileKind::Symlink => entry.read_link()?,
            _ => OsString::new(),
        };
        Ok(Self::new(&Fields {
            kind: metadata.kind,
            mode: metadata.mode,
            owner: metadata.owner(),
            size: metadata.size,
            link: link.as_encoded_bytes(),
            device: metadata.rdev,
            xattrs: &entry.xattrs()?,
        }))
    }

    /// Of what a client has announced.
    pub(crate) fn of_announced(stat: &Stat) -> Self {
        let kind = announced_kind(stat).unwrap_or(FileKind::File);
        let is_link = kind == FileKind::Symlink;
        let number = |number: i64| u32::try_from(number).unwrap_or(0);
        let xattrs = stat.xattrs.iter();
        let mut xattrs: Vec<_> =
            xattrs.map(|(name, value)| (name.clone().into_bytes(), value.to_vec())).collect();
        xattrs.sort();
        Self::new(&Fields {
            kind,
            // Links have no other mode here, whatever they have at the client's.
            mode: if is_link { 0o777 } else { stat.go_mode().permissions() },
            owner: Owner { uid: stat.uid, gid: stat.gid },
            size: u64::try_from(stat.size).unwrap_or(0),
            link: if is_link { stat.linkname.as_bytes() } else { &[] },
            device: Device { major: number(stat.devmajor), minor: number(stat.devminor) },
            xattrs: &xattrs,
        })
    }

    fn new(fields: &Fields<'_>) -> Self {
        let typeflag = match fields.kind {
            FileKind::File | FileKind::Socket => '0',
            FileKind::Symlink => '2',
            FileKind::CharDevice => '3',
            FileKind::BlockDevice => '4',
            FileKind::Directory => '5',
            FileKind::Fifo => '6',
        };
        let size = if fields.kind == FileKind::File { fields.size } else { 0 };
        let mut bytes = Vec::with_capacity(128);
        let Owner { uid, gid } = fields.owner;
        // Writing to a vector does not fail.
        let _ = write!(bytes, "namemode{}uid{uid}gid{gid}size", fields.mode);
        let start = bytes.len();
        let _ = write!(bytes, "{size}");
        let size = start..bytes.len();
        let _ = write!(bytes, "typeflag{typeflag}linkname");
        bytes.extend_from_slice(fields.link);
        // BuildKit does not look at the numbers of devices in layers, but what is one depends on them.
        let Device { major, minor } = fields.device;
        let _ = write!(bytes, "unamegnamedevmajor{major}devminor{minor}");
        let xattrs: Vec<_> = fields.xattrs.iter().filter(|(name, _)| counts(name)).collect();
        for (name, value) in &xattrs {
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        // Where one ends is not to be seen; only of a file's rights the kernel knows the length.
        if xattrs.iter().any(|(name, _)| name != CAPABILITY) {
            for (name, value) in &xattrs {
                let _ = write!(bytes, "/{}/{}", name.len(), value.len());
            }
        }
        Self { bytes, size }
    }

    /// A checksum of all of it but the size.
    pub(crate) fn checksum(&self) -> Checksum {
        let mut checksum = Checksum::EMPTY;
        checksum.update(&self.bytes[..self.size.start]);
        checksum.update(&self.bytes[self.size.end..]);
        checksum
    }

    /// What is to be fed with the content.
    pub(crate) fn hasher(&self) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.bytes);
        hasher
    }

    /// The digest of `entry`, whose header this is; reads its content.
    pub(crate) fn digest(&self, entry: &Entry) -> anyhow::Result<Digest> {
        let mut hasher = self.hasher();
        if entry.metadata().is_file() {
            std::io::copy(&mut entry.open()?, &mut hasher)?;
        }
        Ok(hasher.finish())
    }
}

/// The rights that a program has whoever runs it.
const CAPABILITY: &[u8] = b"security.capability";

/// Whether an extended attribute says something of the file, not of the host that has it.
///
/// BuildKit leaves out access control lists as well; here they are copied with the file.
fn counts(name: &[u8]) -> bool {
    !name.starts_with(b"security.") || name == CAPABILITY
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Fields<'_> = Fields {
        kind: FileKind::File,
        mode: 0o644,
        owner: Owner { uid: 0, gid: 0 },
        size: 5,
        link: &[],
        device: Device { major: 0, minor: 0 },
        xattrs: &[],
    };

    fn digest(fields: &Fields<'_>, content: &str) -> String {
        let mut hasher = FileHeader::new(fields).hasher();
        hasher.update(content);
        hasher.finish().to_string()
    }

    /// The digests that BuildKit 0.32.2 computes of the same files.
    #[test]
    fn a_file_has_the_digest_that_buildkit_gives_it() {
        for (name, fields, content, expected) in [
            (
                "a file",
                PLAIN,
                "hello",
                "cb3569cdc1e1de3978ee5b8ea2a3bf0ceca715be019dc377ed496759d3cccfd6",
            ),
            (
                "an empty one",
                Fields { size: 0, ..PLAIN },
                "",
                "700591407496206b27e3739e92128dd4d3a119e929d3b3677835a1ab6627aa3d",
            ),
            (
                "a program with rights",
                Fields { mode: 0o4755, size: 1, ..PLAIN },
                "s",
                "a66a3af9a512dc14eea9804be6a105a8ae5815b01806f2796a20c295f6a61b60",
            ),
            (
                "a link",
                Fields { kind: FileKind::Symlink, mode: 0o777, link: b"d", size: 1, ..PLAIN },
                "",
                "6770336f1c1892104b53ea1521dd7fd4ff5e13560d5fba8a7224866b3b16a52f",
            ),
            (
                "a pipe",
                Fields { kind: FileKind::Fifo, size: 0, ..PLAIN },
                "",
                "ed66acfbb9d93c08ed7faab2b6c0e2201a312df9abcbd94a761a1ea7f345dad5",
            ),
        ] {
            assert_eq!(digest(&fields, content), format!("sha256:{expected}"), "{name}");
        }
    }

    #[test]
    fn labels_of_the_host_do_not_count_and_rights_do() {
        let with = |name: &str| {
            let xattrs = [(name.as_bytes().to_vec(), b"v".to_vec())];
            digest(&Fields { xattrs: &xattrs, ..PLAIN }, "hello")
        };
        let plain = digest(&PLAIN, "hello");
        assert_eq!(with("security.selinux"), plain);
        for name in ["security.capability", "user.k", "system.posix_acl_access"] {
            assert_ne!(with(name), plain, "{name}");
        }
    }

    #[test]
    fn attributes_are_told_apart_wherever_they_end() {
        let with = |xattrs: &[(&str, &str)]| {
            let xattrs: Vec<_> = xattrs
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            digest(&Fields { xattrs: &xattrs, ..PLAIN }, "hello")
        };
        let alike: [&[_]; 4] = [
            &[("user.a", "buser.c")],
            &[("user.ab", "user.c")],
            &[("user.a", "b"), ("user.c", "")],
            &[("user.ab", ""), ("user.c", "")],
        ];
        let digests: std::collections::HashSet<_> = alike.iter().map(|it| with(it)).collect();
        assert_eq!(digests.len(), alike.len());
    }

    #[test]
    fn what_is_announced_is_what_is_written() {
        let stat = Stat { mode: 0o644, size: 5, ..Stat::default() };
        assert_eq!(FileHeader::of_announced(&stat).bytes, FileHeader::new(&PLAIN).bytes);
    }
}
