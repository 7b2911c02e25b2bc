//! Which inodes of a stack are shared with other layers.
//!
//! A file hardlinked out of another layer or tree keeps its inode number. Were the same file linked
//! to a second name of one stack, a process would take the two names for one file: `cp a b` fails
//! with "are the same file". So each layer remembers, beside its files, the inodes it has in
//! common with others, and a file that a stack already has is copied instead.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::layer::{LayerDir, LayerId};
use crate::view::View;

/// The inodes that must not get a further name in a stack.
#[derive(Debug, Default)]
pub(crate) struct SharedInodes {
    stack: HashSet<LayerId>,
    known: HashSet<u64>,
    added: Vec<u64>,
}

impl SharedInodes {
    /// Collects what the layers of a stack, and a layer already begun on top, have recorded.
    pub(crate) fn load(base: &View, layer: &LayerDir) -> io::Result<Self> {
        let mut shared = Self::default();
        for layer in (0..base.depth()).filter_map(|position| base.layer(position)) {
            shared.stack.insert(layer.id());
            shared.known.extend(read(&layer.links())?);
        }
        shared.added = read(&layer.links())?;
        shared.known.extend(&shared.added);
        Ok(shared)
    }

    /// Whether an inode of `layer` (`None`: of a plain tree) can get a name in the stack.
    pub(crate) fn may_link(&self, layer: Option<LayerId>, ino: u64) -> bool {
        !self.known.contains(&ino) && layer.is_none_or(|id| !self.stack.contains(&id))
    }

    pub(crate) fn add(&mut self, ino: u64) {
        self.known.insert(ino);
        self.added.push(ino);
    }

    /// Records what was added beside the layer's files.
    pub(crate) fn save(&self, layer: &LayerDir) -> io::Result<()> {
        if self.added.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = self.added.iter().flat_map(|ino| ino.to_le_bytes()).collect();
        std::fs::write(layer.links(), bytes)
    }
}

fn read(path: &Path) -> io::Result<Vec<u64>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes.as_chunks().0.iter().map(|&ino| u64::from_le_bytes(ino)).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
