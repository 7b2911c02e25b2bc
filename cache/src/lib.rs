//! Content store, RocksDB index, garbage collection and remote cache manifests.
//!
//! Everything that Kiln keeps between builds is known here: blobs by digest, layers and mutable
//! directories by number, cache records by key, images by name. What is *in* the directories is the
//! business of others: a layer is a [`LayerId`] and a size.
//!
//! The crate promises:
//!
//! - what a lookup finds is there, and stays there while the [`Pin`] that comes with it is held;
//! - a record, its keys and its layers appear together or not at all, whenever the process dies;
//! - after a loss of power, what may be damaged is not used ([`Index::reconcile`]);
//! - nothing that somebody needs is collected ([`gc`]).
//!
//! ```
//! use kiln_cache::{Digest, Index, KeyParts, LayerRow, Link, Record, RecordType, key_of};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let index_directory = directory.path().join("index");
//! let index = Index::open(index_directory)?;
//!
//! // The key of a step: its op, and the key of what it runs on.
//! let base = Link::whole(key_of(&Digest::of("FROM alpine@sha256:…"), 0, &[]));
//! let op = Digest::of("RUN apk add make");
//! let key = key_of(&op, 0, &[base.clone()]);
//! assert!(index.lookup(&[key])?.is_none());
//!
//! // It ran, and made a layer.
//! let layer = index.alloc_layer()?;
//! let record = Record {
//!     key,
//!     op,
//!     output: 0,
//!     inputs: vec![vec![base]],
//!     result: vec![layer],
//!     description: "RUN apk add make".to_owned(),
//!     record_type: RecordType::Regular,
//!     created_at: std::time::SystemTime::now(),
//!     duration: None,
//! };
//! let _pin = index.save(record, &KeyParts::default(), &[], &[LayerRow::new(layer, vec![])])?;
//!
//! let hit = index.lookup(&[key])?.expect("it was just saved");
//! assert_eq!(hit.row.result, [layer]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod digest;
mod layer;

mod descriptor;
mod file_list;
mod key;
mod record_type;

pub mod content;
pub mod fault;
pub mod filter;
pub mod gc;
mod index;
pub mod remote;

pub use content::{Blob, ContentError, ContentStore, Expected, Ingest};
pub use descriptor::{CREATED_AT, DESCRIPTION, Descriptor, UNCOMPRESSED};
pub use digest::{Digest, Hasher, InvalidDigest};
pub use file_list::{Checksum, FileChange, FileList, FileListBuilder};
pub use index::{
    BlobRow, DirId, DirKind, DirRow, Dropped, DurableGroup, Earlier, Finding, HistoryEntry, Hit,
    ImageRow, Index, IndexError, InputPart, KeyPart, KeyParts, LayerRow, OnDisk, PartValue, Pin,
    Presence, Problem, Reconciled, Record, Remote, Removed, SharedFile, StepId, Subject,
};
pub use key::{CacheKey, Link, Selector, content_key, key_of};
pub use layer::{ChainId, DiffId, LayerId};
pub use record_type::RecordType;
