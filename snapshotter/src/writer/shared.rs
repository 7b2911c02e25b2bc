//! Which inodes of a stack are shared with other layers.
//!
//! A file hardlinked out of another layer or tree keeps its inode number. Were the same file linked
//! to a second name of one stack, a process would take the two names for one file: `cp a b` fails
//! with "are the same file". So each layer remembers, beside its files, the inodes it has in
//! common with others, and a file that a stack already has is copied instead.
//!
//! It also remembers whose they were, so that what many layers share is counted once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use crate::layer::{LayerDir, LayerId};
use crate::view::View;

/// By number, the inodes that a layer shares, and the layers whose they were at first; `None` is a
/// plain tree.
pub(crate) type Origins = HashMap<u64, Option<LayerId>>;

/// The inodes that must not get a further name in a stack.
#[derive(Debug, Default)]
pub(crate) struct SharedInodes {
    stack: HashSet<LayerId>,
    known: HashSet<u64>,
    added: Origins,
    /// What layers that were linked from had from others.
    sources: HashMap<LayerId, Origins>,
}

impl SharedInodes {
    /// Collects what the layers of a stack, and a layer already begun on top, have recorded.
    pub(crate) fn load(base: &View, layer: &LayerDir) -> io::Result<Self> {
        let mut shared = Self::default();
        for layer in (0..base.depth()).filter_map(|position| base.layer(position)) {
            shared.stack.insert(layer.id());
            shared.known.extend(read(&layer.links())?.keys());
        }
        shared.added = read(&layer.links())?;
        shared.known.extend(shared.added.keys());
        Ok(shared)
    }

    /// Whether an inode of `layer` (`None`: of a plain tree) can get a name in the stack.
    pub(crate) fn may_link(&self, layer: Option<LayerId>, ino: u64) -> bool {
        !self.known.contains(&ino) && layer.is_none_or(|id| !self.stack.contains(&id))
    }

    /// Notes that an inode of `layer` (`None`: of a plain tree) got a name.
    pub(crate) fn add(&mut self, layer: Option<&LayerDir>, ino: u64) -> io::Result<()> {
        let origin = match layer {
            None => None,
            Some(layer) => {
                let id = layer.id();
                let known = match self.sources.entry(id) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => unknown.insert(read(&layer.links())?),
                };
                known.get(&ino).copied().unwrap_or(Some(id))
            }
        };
        self.known.insert(ino);
        self.added.insert(ino, origin);
        Ok(())
    }

    /// Records what was added beside the layer's files.
    pub(crate) fn save(&self, layer: &LayerDir) -> io::Result<()> {
        if self.added.is_empty() {
            return Ok(());
        }
        // No layer has the number zero.
        let numbers =
            self.added.iter().flat_map(|(ino, origin)| [*ino, origin.map_or(0, |id| id.0)]);
        std::fs::write(layer.links(), numbers.flat_map(u64::to_le_bytes).collect::<Vec<_>>())
    }
}

/// What a layer has recorded.
pub(crate) fn read(path: &Path) -> io::Result<Origins> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Origins::new()),
        Err(error) => return Err(error),
    };
    let numbers: &[[u8; 8]] = bytes.as_chunks().0;
    let pairs = numbers.as_chunks().0.iter().map(|pair: &[_; 2]| pair.map(u64::from_le_bytes));
    Ok(pairs.map(|[ino, origin]| (ino, (origin != 0).then_some(LayerId(origin)))).collect())
}
