//! Clients' files: one directory for each build context, brought up to date by each transfer.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{Digest, DirId, DirKind, Hasher, Index, Pin, fault};
use kiln_proto::fsutil::Stat;
use kiln_snapshotter::FileKind;
use parking_lot::Mutex;
use prost::Message as _;

use crate::kept_dirs::KeptDirs;

/// What is known of one entry of a tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TreeEntry {
    /// As the client announced it.
    pub(crate) stat: Stat,
    /// The digest of a regular file.
    pub(crate) digest: Option<Digest>,
}

impl TreeEntry {
    pub(crate) fn is_dir(&self) -> bool {
        self.stat.go_mode().is_dir()
    }
}

/// The type of what a client has announced, if it is one that Linux has.
pub(crate) fn announced_kind(stat: &Stat) -> Option<FileKind> {
    Some(match stat.go_mode().to_st_mode()? & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        0o020_000 => FileKind::CharDevice,
        0o060_000 => FileKind::BlockDevice,
        0o010_000 => FileKind::Fifo,
        0o140_000 => FileKind::Socket,
        _ => return None,
    })
}

/// A tree's entries by path.
pub(crate) type Manifest = BTreeMap<String, TreeEntry>;

/// The trees of all clients.
///
/// ```text
/// <root>/sources/<id>/fs         the files
/// <root>/sources/<id>/manifest   what is known of them; absent while they change
/// ```
pub(crate) struct LocalTrees {
    pub(crate) dirs: KeptDirs,
    index: Arc<Index>,
    busy: Arc<Mutex<HashSet<DirId>>>,
}

/// A tree in the hands of one build: nobody else reads or changes it.
pub(crate) struct TreeLease {
    id: DirId,
    dir: PathBuf,
    busy: Arc<Mutex<HashSet<DirId>>>,
    pin: Pin,
}

/// A tree that is up to date, held as long as somebody reads it.
pub(crate) struct LocalTree {
    path: PathBuf,
    manifest: Manifest,
    _lease: TreeLease,
}

impl LocalTrees {
    pub(crate) fn open(root: &Path, index: Arc<Index>) -> anyhow::Result<Self> {
        Ok(Self { dirs: KeptDirs::open(root, "sources")?, index, busy: Arc::default() })
    }

    /// A tree of that name that nobody uses, or a new, empty one.
    pub(crate) fn lease(&self, name: &str, description: &str) -> anyhow::Result<TreeLease> {
        for found in self.index.dirs(DirKind::LocalSource, name)? {
            let id = found.row.id;
            if self.busy.lock().insert(id) {
                let (dir, busy) = (self.dirs.path(id), self.busy.clone());
                let lease = TreeLease { id, dir, busy, pin: found.pin };
                self.index.open_dir_for_writing(id, &lease.pin)?;
                return Ok(lease);
            }
        }
        let make = |id| self.dirs.create(id);
        let made = self.index.create_dir(DirKind::LocalSource, name, description, make)?;
        let id = made.row.id;
        self.busy.lock().insert(id);
        Ok(TreeLease { id, dir: self.dirs.path(id), busy: self.busy.clone(), pin: made.pin })
    }
}

/// What is known of the files in the directory of a tree; `None` while they change.
pub(crate) fn read_manifest(dir: &Path) -> Option<Manifest> {
    std::fs::read(dir.join("manifest")).ok().and_then(|bytes| decode(&bytes))
}

impl TreeLease {
    /// Where the files are.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.join("fs")
    }

    fn manifest_path(&self) -> PathBuf {
        self.dir.join("manifest")
    }

    /// Takes what is known of the tree: from here to [`Self::save`], the files may change.
    ///
    /// A tree whose manifest is missing was being changed when the daemon was killed; it is
    /// emptied.
    pub(crate) fn open(&self) -> anyhow::Result<Manifest> {
        let path = self.manifest_path();
        let manifest = read_manifest(&self.dir);
        let at = |path: &Path| path.display().to_string();
        let files = self.files();
        if let Some(manifest) = manifest {
            std::fs::remove_file(&path).with_context(|| at(&path))?;
            return Ok(manifest);
        }
        if files.exists() {
            std::fs::remove_dir_all(&files).with_context(|| at(&files))?;
        }
        std::fs::create_dir_all(&files).with_context(|| at(&files))?;
        Ok(Manifest::new())
    }

    /// Removes the files, and what is known of them.
    pub(crate) fn discard(&self) -> anyhow::Result<()> {
        let files = self.files();
        std::fs::remove_dir_all(&files).with_context(|| files.display().to_string())
    }

    /// Writes down what the files are now.
    pub(crate) fn save(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let (path, draft) = (self.manifest_path(), self.dir.join("manifest.new"));
        let at = |path: &Path| path.display().to_string();
        fault::may_fail().with_context(|| at(&draft))?;
        std::fs::write(&draft, encode(manifest)).with_context(|| at(&draft))?;
        fault::may_die();
        std::fs::rename(&draft, &path).with_context(|| at(&path))
    }

    /// The tree as it is now, for reading.
    pub(crate) fn into_tree(self, manifest: Manifest) -> LocalTree {
        LocalTree { path: self.files(), manifest, _lease: self }
    }
}

impl Drop for TreeLease {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.id);
    }
}

impl LocalTree {
    /// Where the files are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of a file or directory, by its path from the root of the tree without links on the
    /// way.
    pub(crate) fn known(&self, path: &str) -> Option<&TreeEntry> {
        self.manifest.get(path)
    }

    /// What is known of all that is below a directory, without looking at it: as in a walk, first a
    /// directory and then what is in it, by name.
    pub(crate) fn below(&self, dir: &Path) -> Vec<(&str, &TreeEntry)> {
        let Some(dir) = dir.to_str() else { return Vec::new() };
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let from =
            self.manifest.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        let mut below: Vec<_> = from
            .map(|(path, entry)| (path.as_str(), entry))
            .take_while(|(path, _)| path.starts_with(&prefix))
            .collect();
        // As texts they are in order already, but for names with what comes before a `/`.
        below.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
        below
    }

    /// The digest of a regular file, by its path from the root of the tree.
    pub(crate) fn file_digest(&self, path: &Path) -> Option<Digest> {
        let path = std::str::from_utf8(path.as_os_str().as_bytes()).ok()?;
        self.manifest.get(path)?.digest
    }
}

impl std::fmt::Debug for LocalTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTree").field("path", &self.path).finish_non_exhaustive()
    }
}

/// In the digest at the end of a manifest: to change with what is in it, or with what digests are of.
const FORM: &[u8] = b"2";

/// For each entry its length-delimited `Stat`, then 32 bytes of digest, zero where it has none. In
/// the end, the digest of all that: who believes in it does not look at the files again.
fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(manifest.len() * 128);
    for entry in manifest.values() {
        bytes.extend(entry.stat.encode_length_delimited_to_vec());
        bytes.extend(entry.digest.map_or([0; 32], |digest| *digest.as_bytes()));
    }
    let all = check(&bytes);
    bytes.extend(all.as_bytes());
    bytes
}

fn check(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(FORM);
    hasher.update(bytes);
    hasher.finish()
}

/// `None` if the bytes are not what [`encode`] writes.
fn decode(bytes: &[u8]) -> Option<Manifest> {
    let (mut bytes, all) = bytes.split_last_chunk::<32>()?;
    if check(bytes) != Digest::from_bytes(*all) {
        return None;
    }
    let mut manifest = Manifest::new();
    while !bytes.is_empty() {
        let stat = Stat::decode_length_delimited(&mut bytes).ok()?;
        let (digest, rest) = bytes.split_first_chunk::<32>()?;
        bytes = rest;
        let digest = (digest != &[0; 32]).then(|| Digest::from_bytes(*digest));
        manifest.insert(stat.path.clone(), TreeEntry { stat, digest });
    }
    Some(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_being_stored() {
        let entry = |path: &str, digest| {
            let stat = Stat { path: path.into(), mode: 0o644, size: 3, ..Stat::default() };
            (path.to_owned(), TreeEntry { stat, digest })
        };
        let manifest = Manifest::from([entry("a", None), entry("b/c", Some(Digest::of("x")))]);
        assert_eq!(decode(&encode(&manifest)), Some(manifest.clone()));
        let bytes = encode(&manifest);
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }
}
