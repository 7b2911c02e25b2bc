//! Layers: written for base images, read back from results.

use std::io::{Cursor, Read};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// The digest of `bytes` as manifests write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What an entry of a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A hard link to an earlier entry.
    Hardlink,
    /// Anything else: devices, pipes.
    Special,
}

/// One entry of a layer, whiteouts included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Without leading or trailing slash.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Target of a link.
    pub link: String,
    /// Content of a regular file.
    pub contents: Vec<u8>,
}

impl Entry {
    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.contents).into_owned()
    }
}

/// A layer read back from an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob as it was stored.
    pub digest: String,
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// Media type from the manifest; empty where the format has none.
    pub media_type: String,
    /// In the order of the tar.
    pub entries: Vec<Entry>,
}

impl Layer {
    /// Reads a blob, compressed or not.
    pub(crate) fn read(blob: &[u8], media_type: &str) -> Self {
        let tar = decompress(blob);
        Self {
            digest: digest(blob),
            diff_id: digest(&tar),
            media_type: media_type.to_owned(),
            entries: entries(&tar),
        }
    }

    /// The paths of all entries but folders that lead to others, sorted.
    pub fn paths(&self) -> Vec<&str> {
        let mut paths: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| entry.kind != Kind::Folder || !self.has_below(&entry.path))
            .map(|entry| entry.path.as_str())
            .collect();
        paths.sort_unstable();
        paths
    }

    fn has_below(&self, folder: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }
}

fn decompress(blob: &[u8]) -> Vec<u8> {
    match blob {
        [0x1f, 0x8b, ..] => {
            let mut tar = Vec::new();
            GzDecoder::new(blob).read_to_end(&mut tar).expect("gzip layer");
            tar
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::decode_all(blob).expect("zstd layer"),
        _ => blob.to_vec(),
    }
}

/// Reads the entries of an uncompressed tar.
pub(crate) fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut archive = tar::Archive::new(tar);
    let mut found = Vec::new();
    for entry in archive.entries().expect("tar") {
        let mut entry = entry.expect("tar entry");
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File,
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => Kind::Symlink,
            tar::EntryType::Link => Kind::Hardlink,
            _ => Kind::Special,
        };
        let mut read = Entry {
            path: String::from_utf8_lossy(&entry.path_bytes()).trim_matches('/').to_owned(),
            kind,
            mode: header.mode().expect("mode") & 0o7777,
            uid: header.uid().expect("uid"),
            gid: header.gid().expect("gid"),
            mtime: header.mtime().expect("mtime"),
            link: entry
                .link_name_bytes()
                .map(|name| String::from_utf8_lossy(&name).into_owned())
                .unwrap_or_default(),
            contents: Vec::new(),
        };
        entry.read_to_end(&mut read.contents).expect("content of a tar entry");
        found.push(read);
    }
    found
}

/// Writes a layer's tar, the same bytes every time.
pub struct LayerTar {
    tar: tar::Builder<Cursor<Vec<u8>>>,
}

impl LayerTar {
    /// An empty layer.
    pub fn new() -> Self {
        Self { tar: tar::Builder::new(Cursor::new(Vec::new())) }
    }

    /// Adds a file that root owns.
    pub fn file(self, path: &str, mode: u32, contents: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, contents, "")
    }

    /// Adds a folder that root owns.
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, &[], "")
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, &[], target)
    }

    /// Adds a device node that everybody may use.
    pub fn device(mut self, path: &str, kind: tar::EntryType, major: u32, minor: u32) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        header.set_device_major(major).expect("ustar");
        header.set_device_minor(minor).expect("ustar");
        put(&mut header.as_old_mut().name, path);
        header.set_cksum();
        self.tar.append(&header, &[][..]).expect("tar in memory");
        self
    }

    /// Adds an entry of any kind, with names written into the header as they are given: also such
    /// names as a well-behaved program would refuse to write.
    pub fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        contents: &[u8],
        link: &str,
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(contents.len() as u64);
        put(&mut header.as_old_mut().name, path);
        put(&mut header.as_old_mut().linkname, link);
        header.set_cksum();
        self.tar.append(&header, contents).expect("tar in memory");
        self
    }

    /// The tar.
    pub fn finish(self) -> Vec<u8> {
        self.tar.into_inner().expect("tar in memory").into_inner()
    }
}

impl Default for LayerTar {
    fn default() -> Self {
        Self::new()
    }
}

fn put(field: &mut [u8; 100], text: &str) {
    assert!(text.len() <= field.len(), "{text}: too long for this header");
    field.fill(0);
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// The same bytes every time.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).expect("gzip in memory");
    encoder.finish().expect("gzip in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_layer_reads_back() {
        let tar = LayerTar::new()
            .dir("etc", 0o755)
            .file("etc/passwd", 0o644, b"root")
            .symlink("bin/sh", "busybox")
            .finish();
        let layer = Layer::read(&gzip(&tar), "");
        assert_eq!(layer.diff_id, digest(&tar));
        assert_eq!(layer.paths(), ["bin/sh", "etc/passwd"]);
        assert_eq!(layer.entries[1].text(), "root");
        assert_eq!(layer.entries[2].link, "busybox");
    }
}
