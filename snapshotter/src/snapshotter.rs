//! What a store of layers owes.

use std::io;
use std::path::PathBuf;

use crate::layer::{LayerDir, LayerId, OverlayMarks};

/// A layer could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The id is in use.
    #[error("layer {0} already exists")]
    Exists(LayerId),
    /// No such layer.
    #[error("layer {0} does not exist")]
    NotFound(LayerId),
    /// A layer's directory could not be changed.
    #[error("layer {id}: cannot {action}")]
    Layer {
        /// Which layer.
        id: LayerId,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The directory that holds the layers cannot be used.
    #[error("{}: cannot {action}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A stack, described for whoever mounts it.
///
/// It is to be mounted with `index=off`, `metacopy=off`, `redirect_dir=off`, and without `xino=on`:
/// only then does a layer say everything about itself by its own files, and does the kernel mark no
/// directory opaque that had nothing below. (`userxattr` implies the last but one, and refuses to
/// be mounted with it.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The `fs` directories of the stack, bottom first.
    pub lower: Vec<PathBuf>,
    /// Where writes go; `None` for a read-only root.
    pub upper: Option<PathBuf>,
    /// The overlay's work directory, on the file system of `upper`.
    pub work: Option<PathBuf>,
    /// [`OverlayMarks::User`] asks for the mount option `userxattr`.
    pub marks: OverlayMarks,
}

/// A store of layers.
///
/// It keeps no record of what is committed: that is the business of whoever holds the ids.
pub trait Snapshotter {
    /// Makes an empty layer, owned by the caller and with mode 0755 at its root.
    fn create(&self, id: LayerId) -> Result<LayerDir, SnapshotError>;

    /// Where a layer is.
    fn layer(&self, id: LayerId) -> Result<LayerDir, SnapshotError>;

    /// Removes a layer with everything in it; no such layer is fine.
    fn remove(&self, id: LayerId) -> Result<(), SnapshotError>;

    /// The ids of all layers, in ascending order.
    fn list(&self) -> Result<Vec<LayerId>, SnapshotError>;

    /// Describes a stack, bottom first, with `upper` as the layer that receives writes.
    fn mount(&self, stack: &[LayerId], upper: Option<LayerId>) -> Result<Rootfs, SnapshotError>;
}
