//! Reverse references: the keys of [`Family::Links`](super::schema::Family::Links).
//!
//! A key is a tag, what is referred to, and what refers to it; most rows are empty. They are
//! written in the same batch as what they follow from, so they are never out of step with it.

use super::dir::{DirId, DirKind};
use crate::{
    digest::Digest,
    key::CacheKey,
    layer::{ChainId, LayerId},
};

const CHILD: u8 = b'c';
const RECORD: u8 = b'r';
const CHAIN: u8 = b'n';
const DIR: u8 = b'd';
const SHARED: u8 = b's';

/// The rows of all [`shared`].
pub(super) const ALL_SHARED: [u8; 1] = [SHARED];

/// Layers that build on `parent`.
pub(super) fn children_of(parent: LayerId) -> [u8; 9] {
    tagged(CHILD, parent)
}

pub(super) fn child(parent: LayerId, child: LayerId) -> [u8; 17] {
    join(children_of(parent), child.0.to_be_bytes())
}

/// Records in whose result `layer` is on top.
pub(super) fn records_of(layer: LayerId) -> [u8; 9] {
    tagged(RECORD, layer)
}

pub(super) fn record(layer: LayerId, key: &CacheKey) -> [u8; 41] {
    join(records_of(layer), *key.digest().as_bytes())
}

/// The layer on top of an image's chain; the row holds its number.
pub(super) fn chain(chain: &ChainId) -> [u8; 33] {
    join([CHAIN], *chain.digest().as_bytes())
}

/// Mutable directories of one kind and name.
pub(super) fn dirs_of(kind: DirKind, name: &str) -> [u8; 34] {
    // Names come from clients and have any length.
    join([DIR, kind as u8], *Digest::of(name).as_bytes())
}

pub(super) fn dir(kind: DirKind, name: &str, id: DirId) -> [u8; 42] {
    join(dirs_of(kind, name), id.0.to_be_bytes())
}

/// Files that a layer or directory has in common with others; the row holds them.
pub(super) fn shared(number: u64) -> [u8; 9] {
    join([SHARED], number.to_be_bytes())
}

/// The number at the end of a key that refers to a layer or a directory.
pub(super) fn trailing_number(key: &[u8]) -> Option<u64> {
    key.last_chunk().copied().map(u64::from_be_bytes)
}

/// The cache key at the end of a key made by [`record`].
pub(super) fn trailing_key(key: &[u8]) -> Option<CacheKey> {
    key.last_chunk().copied().map(|bytes| CacheKey::new(Digest::from_bytes(bytes)))
}

/// What a row is about: the one that refers to something, and a layer to which there may be several
/// such.
pub(super) enum Referrer {
    Child(LayerId, LayerId),
    Record(CacheKey),
    Chain(ChainId),
    Dir(DirId),
    /// The number of a layer or a directory.
    Shared(u64),
}

/// What a key of this family says; `None` if it is not one that is written here.
pub(super) fn referrer(key: &[u8]) -> Option<Referrer> {
    let (&tag, rest) = key.split_first()?;
    match (tag, rest.len()) {
        (CHILD, 16) => {
            let parent = rest.first_chunk().copied().map(u64::from_be_bytes)?;
            Some(Referrer::Child(LayerId(parent), LayerId(trailing_number(rest)?)))
        }
        (RECORD, 40) => trailing_key(rest).map(Referrer::Record),
        (CHAIN, 32) => {
            let digest = rest.first_chunk().copied().map(Digest::from_bytes)?;
            Some(Referrer::Chain(ChainId::new(digest)))
        }
        (SHARED, 8) => trailing_number(rest).map(Referrer::Shared),
        (DIR, 41) => trailing_number(rest).map(DirId).map(Referrer::Dir),
        _ => None,
    }
}

fn tagged(tag: u8, layer: LayerId) -> [u8; 9] {
    join([tag], layer.0.to_be_bytes())
}

fn join<const A: usize, const B: usize, const C: usize>(head: [u8; A], tail: [u8; B]) -> [u8; C] {
    let mut joined = [0; C];
    joined[..A].copy_from_slice(&head);
    joined[A..].copy_from_slice(&tail);
    joined
}
