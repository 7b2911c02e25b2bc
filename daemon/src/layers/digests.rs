//! Digests of files ([`FileHeader`](super::FileHeader)), kept with the layers that the files are in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_cache::{Digest, Index, LayerId};
use parking_lot::Mutex;

use super::LocalTree;

/// The name under which the index keeps a layer's digests. To change with what they are of.
const KIND: &str = "file-hashes";
/// How many layers' digests stay in memory between builds.
const KEPT: usize = 32;

/// The digests of one layer's files, by path.
#[derive(Default)]
struct LayerDigests {
    files: BTreeMap<PathBuf, Digest>,
    is_changed: bool,
}

type Shared = Arc<Mutex<LayerDigests>>;

/// The digests of the layers used last.
pub(super) struct DigestCache {
    index: Arc<Index>,
    layers: Mutex<(HashMap<LayerId, Shared>, VecDeque<LayerId>)>,
}

impl DigestCache {
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self { index, layers: Mutex::default() }
    }

    pub(super) fn of_layers(&self, ids: &[LayerId]) -> anyhow::Result<FileDigests> {
        let layers = ids.iter().map(|&id| self.layer(id)).collect::<Result<_, _>>()?;
        Ok(FileDigests(Source::Layers { index: self.index.clone(), ids: ids.to_vec(), layers }))
    }

    /// Frees what is kept between builds; it can be read again.
    pub(super) fn clear(&self) {
        *self.layers.lock() = Default::default();
    }

    fn layer(&self, id: LayerId) -> anyhow::Result<Shared> {
        let mut cached = self.layers.lock();
        let (layers, order) = &mut *cached;
        if let Some(digests) = layers.get(&id) {
            return Ok(digests.clone());
        }
        let files = stored(&self.index, id)?;
        let digests = Arc::new(Mutex::new(LayerDigests { files, is_changed: false }));
        layers.insert(id, digests.clone());
        order.push_back(id);
        if order.len() > KEPT
            && let Some(oldest) = order.pop_front()
        {
            layers.remove(&oldest);
        }
        Ok(digests)
    }
}

/// The digests of a snapshot's files, computed where they are not known.
pub(crate) struct FileDigests(Source);

enum Source {
    Layers { index: Arc<Index>, ids: Vec<LayerId>, layers: Vec<Shared> },
    Tree(Arc<LocalTree>),
}

impl FileDigests {
    pub(crate) fn of_tree(tree: Arc<LocalTree>) -> Self {
        Self(Source::Tree(tree))
    }

    /// None known, and none kept.
    #[cfg(test)]
    pub(crate) fn none(index: Arc<Index>) -> Self {
        Self(Source::Layers { index, ids: Vec::new(), layers: Vec::new() })
    }

    /// The client's directory that the files are in, if they are in one.
    pub(crate) fn tree(&self) -> Option<&Arc<LocalTree>> {
        match &self.0 {
            Source::Tree(tree) => Some(tree),
            Source::Layers { .. } => None,
        }
    }

    /// The digest of the file at `path` in the layer at `position` of the stack.
    pub(crate) fn get(
        &self,
        position: usize,
        path: &Path,
        compute: impl FnOnce() -> anyhow::Result<Digest>,
    ) -> anyhow::Result<Digest> {
        match &self.0 {
            Source::Tree(tree) => match tree.file_digest(path) {
                Some(digest) => Ok(digest),
                None => compute(),
            },
            Source::Layers { layers, .. } => {
                let Some(layer) = layers.get(position) else { return compute() };
                if let Some(digest) = layer.lock().files.get(path) {
                    return Ok(*digest);
                }
                let digest = compute()?;
                let mut layer = layer.lock();
                layer.files.insert(path.to_owned(), digest);
                layer.is_changed = true;
                Ok(digest)
            }
        }
    }

    /// Writes down what was computed.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let Source::Layers { index, ids, layers } = &self.0 else { return Ok(()) };
        for (id, layer) in ids.iter().zip(layers) {
            let mut layer = layer.lock();
            if std::mem::take(&mut layer.is_changed) {
                index.put_layer_data(*id, KIND, &encode(&layer.files))?;
            }
        }
        Ok(())
    }
}

/// The digests of a layer's files that were computed so far.
pub(super) fn stored(index: &Index, id: LayerId) -> anyhow::Result<BTreeMap<PathBuf, Digest>> {
    let stored = index.layer_data(id, KIND)?;
    Ok(stored.and_then(|bytes| decode(&bytes)).unwrap_or_default())
}

/// `path NUL digest` for each file, in order.
pub(super) fn encode(files: &BTreeMap<PathBuf, Digest>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, digest) in files {
        bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
        bytes.push(0);
        bytes.extend_from_slice(digest.as_bytes());
    }
    bytes
}

/// `None` if the bytes are not what [`encode`] writes: then all is computed again.
pub(super) fn decode(mut bytes: &[u8]) -> Option<BTreeMap<PathBuf, Digest>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut files = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|&byte| byte == 0)?;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..end]));
        let (digest, rest) = bytes[end + 1..].split_first_chunk::<32>()?;
        files.insert(path, Digest::from_bytes(*digest));
        bytes = rest;
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_survive_being_stored() {
        let files: BTreeMap<_, _> =
            ["a", "b/c", "é"].iter().map(|p| (PathBuf::from(p), Digest::of(p))).collect();
        assert_eq!(decode(&encode(&files)), Some(files));
        assert_eq!(decode(b"a\0short"), None);
    }
}
