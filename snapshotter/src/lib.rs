//! Layers as directories: mounts as data, diff, apply, and safe file trees.
//!
//! A **layer** is one directory, `<root>/<id>/{fs,work}`, whose `fs` is in the format of an
//! overlayfs upper directory: a character device 0/0 hides a name of the layers below, a directory
//! with the opaque attribute hides everything below it. A filesystem is a **stack**: an ordered
//! list of layers, bottom first. What a process writes is its parent's stack plus one new layer;
//! merging is concatenation, for which a layer is [reduced](diff::reduce) once it is written. A layer
//! therefore has no parent of its own, and nothing is ever flattened.
//!
//! What callers may rely on:
//! - A finished layer is immutable. Its files may be hardlinked into other layers, so nothing in
//!   this crate ever changes a file in place: replacing means unlink and create.
//! - Content is foreign. Every path below a layer is reached from a directory descriptor, one
//!   component at a time without following symbolic links, or by `openat2` with
//!   `RESOLVE_IN_ROOT`; symbolic links are resolved in the merged tree, as in a chroot. Nothing
//!   that a layer, an archive or a context contains makes a call touch a file outside.
//! - No call of this crate mounts anything: merged trees are read in user space ([`View`]) and
//!   mounts are described ([`Rootfs`]) for whoever owns a mount namespace.
//!
//! ```
//! use kiln_snapshotter::{Follow, LayerId, LayerWriter, NewEntry, Overlay, Snapshotter, View};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let root = scratch.path();
//! let snapshots = Overlay::open(root)?;
//! let layer = snapshots.create(LayerId(1))?;
//! let mut writer = LayerWriter::new(&layer, &View::empty())?;
//! writer.mkdir_all("/etc", &NewEntry::mode(0o755))?;
//! writer.write_file("/etc/motd", b"hello\n", &NewEntry::mode(0o644))?;
//! writer.finish()?;
//!
//! let view = View::of_layers(&[layer])?;
//! let motd = view.lookup("/etc/motd", Follow::Last)?.expect("was just written");
//! assert_eq!(motd.metadata().size, 6);
//! # Ok(())
//! # }
//! ```

mod sys;

mod dir;
mod error;
mod label;
mod layer;
mod metadata;
mod remove_tree;

mod overlay;
mod snapshotter;
mod trees_dir;

pub mod view;
pub mod writer;

pub mod copy;

pub mod apply;
pub mod diff;
mod tar;
mod whiteout;

pub mod tree;
pub mod unpack;

pub mod usage;

#[cfg(test)]
mod fixture;

pub use error::FsError;
pub use label::{label_tree, label_trees};
pub use layer::{LayerDir, LayerId, OverlayMarks, ParseLayerIdError};
pub use metadata::{Device, FileKind, Metadata, Owner, Timestamp, Xattrs};
pub use overlay::Overlay;
pub use snapshotter::{Rootfs, SnapshotError, Snapshotter};
pub use trees_dir::create_trees_dir;
pub use view::{Entry, Follow, View};
pub use writer::{LayerWriter, NewEntry};
